"""What is surveyed, and what it is known by."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from typing import Any

from memrecon_fast.attractors.basins import DEGRADATIONS, DRAWS
from memrecon_fast.attractors.curves import TIMES
from memrecon_fast.attractors.starts import KINDS, check_kind
from memrecon_fast.audit.plan import SPLITS, model_digest
from memrecon_fast.autoencoders.adapting import Adapted
from memrecon_fast.common.checks import check_choice, check_integer, check_number, check_seed
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.images.decode import printable
from memrecon_fast.images.scan import Images, check_images

BLOCK_ROWS = {"cpu": 256, "cuda": 1024}
"""Rows of a block, by the kind of device: what a crash costs. With fewer, the few slow ones at the end of each block
would cost more."""


@dataclasses.dataclass(frozen=True)
class Survey:
    """What is to be found out about the attractors of a model.

    splits: "members", the images that the model was trained on, and maybe "controls", others like them; none where
        they are unknown, for a harvest alone.
    image_shape: (C, H, W); without members it must be given.
    k, tolerance: as for `spectra`. seed: of all random choices.
    harvest: at most so many random starts of a harvest; 0: none.
    curve: so many random starts of a recovery curve; 0: none.
    kind: of these starts, see `starts.KINDS`; "images" takes the controls.
    basins: in which ways to move away from the members, and see whether iteration comes back: names of
        `basins.DEGRADATIONS`.
    slots: images that are worked on at a time; by default what suits memory.

    Raises TypeError or ValueError for what does not fit together.
    """

    splits: Mapping[str, Images] = dataclasses.field(default_factory=dict)
    image_shape: tuple[int, int, int] | None = None
    k: int = 6
    tolerance: float = 1e-4
    seed: int = 42
    harvest: int = 0
    curve: int = 0
    basins: tuple[str, ...] = ()
    kind: str = "smooth"
    slots: int | None = None

    def __post_init__(self) -> None:
        for split in self.splits:
            check_choice("split", split, SPLITS)
            check_images(f"the {split}", self.splits[split])
        if self.splits and "members" not in self.splits:
            raise ValueError("controls are compared with members: give these as well")
        for split, images in self.splits.items():
            if images.image_shape != self.shape:
                raise ValueError(f"the {split} are of shape {images.image_shape}, not of {self.shape}")
        check_integer("k", self.k, low=1, high=32)
        check_number("tolerance", self.tolerance, low=0, low_is_allowed=False)
        check_seed(self.seed)
        check_integer("harvest", self.harvest, low=0)
        check_integer("curve", self.curve, low=0)
        for one in self.basins:
            check_choice("basins", one, tuple(DEGRADATIONS))
        if not self.splits and (self.curve or self.basins):
            raise ValueError("a recovery curve and basins are about members: give these")
        if not self.splits and not self.harvest:
            raise ValueError("without members there is a harvest alone: harvest must say from how many starts")
        check_kind(self.kind)
        if KINDS[self.kind].takes_pictures and (self.harvest or self.curve) and "controls" not in self.splits:
            raise ValueError(f"starts of the kind {self.kind} are made of controls: give these as well")
        if self.slots is not None:
            check_integer("slots", self.slots, low=1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        if self.image_shape is not None:
            return self.image_shape
        if "members" not in self.splits:
            raise ValueError("without members, image_shape must say what the model takes")
        return self.splits["members"].image_shape


def describe(survey: Survey, autoencoder: Autoencoder, device: str, model: str) -> dict[str, Any]:
    """What is surveyed, for JSON; `sessions` are added as it is worked on.

    model: as the user named it. device: "cpu" or "cuda".
    """
    return {
        "id": uuid.uuid4().hex,
        "model": printable(model),
        **({"adaptation": str(autoencoder.adaptation)} if isinstance(autoencoder, Adapted) else {}),
        "sources": {split: printable(images.source.name) for split, images in survey.splits.items()},
        "counts": {
            split: {"images": len(images), "unusable": len(images.problems)} for split, images in survey.splits.items()
        },
        "remarks": {split: list(map(printable, images.remarks)) for split, images in survey.splits.items()},
        "plan": {
            "model": model_digest(autoencoder),
            "images": {split: images.digest() for split, images in survey.splits.items()},
            "image_shape": list(survey.shape),
            "k": survey.k,
            "tolerance": survey.tolerance,
            "seed": survey.seed,
            "harvest": survey.harvest,
            "curve": survey.curve,
            "times": list(TIMES),
            "kind": survey.kind,
            "basins": {name: list(DEGRADATIONS[name].usual) for name in survey.basins},
            "draws": DRAWS,
            "device": device,
            "rows_in_block": BLOCK_ROWS[device],
        },
        "sessions": [],
    }
