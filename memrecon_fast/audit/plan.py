"""What is to be audited, and what it is known by."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from memrecon_fast.audit.store.manifest import TRAITS
from memrecon_fast.audit.store.records import Cell
from memrecon_fast.autoencoders.adapting import Adapted
from memrecon_fast.common.checks import check_choice, check_integer, check_number
from memrecon_fast.common.digests import digest_of, parts_of_module
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.degradation import check_mask, contradiction, may_be_erased
from memrecon_fast.engine.stated import check_shape, original_of
from memrecon_fast.images.decode import printable
from memrecon_fast.images.scan import Images, check_images
from memrecon_fast.methods import DEFAULT_METHODS, METHODS, Open, find, headline_of, traits_of
from memrecon_fast.results import noise_floor
from memrecon_fast.settings import Settings

SPLITS = ("members", "controls")
DEGRADED_MASK = "given"
"""The name of the mask of degraded images, known or not."""
ALL_IMAGES = sys.maxsize
"""As `keep_images`: every one."""


@dataclasses.dataclass(frozen=True, repr=False)
class Audit:
    """What is to be audited.

    splits: "members", the images that the model was trained on, and maybe "controls", others like them.
    masks: bool (C, H, W), True = kept, by name; none keeps everything or nothing.
    methods: of `METHODS`; by default "accelerated" and "iterate". "ddnm" needs a diffusion model:
        `METHODS["ddnm"] = methods.ddnm(open_diffusion(FOLDER))`, or for a block of code
        `with methods.registered(methods.ddnm(…))`.
    settings: of the recoveries; their seed is also that of the noise. With noise, the kept pixels are not put back:
        `restore_known_pixels` is then False, whatever was given.
    noise_std: standard deviation of the noise on the degraded images, at most 1. Of `degraded` ones it is what they
        are said to carry: nothing is added.
    keep_images: of each cell, the estimates of so many images with the lowest and the highest errors are kept.
    backend, slots: as for `recover`.
    degraded: the images are degraded already, and their originals unknown. The only mask is then `DEGRADED_MASK`: the
        known one, for methods that are given it, or all True for those that estimate it; and of each method the
        estimates can be recognised by their score.

    Raises TypeError or ValueError for what does not fit together.
    """

    splits: Mapping[str, Images]
    masks: Mapping[str, Tensor]
    methods: tuple[str, ...] = DEFAULT_METHODS
    settings: Settings = dataclasses.field(default_factory=Settings)
    noise_std: float = 0.0
    keep_images: int = 0
    backend: str = "auto"
    slots: int | None = None
    degraded: bool = False

    def __post_init__(self) -> None:
        for name, given, of in (("splits", self.splits, "Images"), ("masks", self.masks, "bool tensors")):
            if not isinstance(given, Mapping):
                raise TypeError(f"{name} must be {of} by name, a dict, not {type(given).__name__}")
        for split in self.splits:
            check_choice("split", split, SPLITS)
            check_images(f"the {split}", self.splits[split])
        if "members" not in self.splits or not self.masks or not self.methods:
            raise ValueError("an audit needs members, at least one mask and at least one method")
        for method in self.methods:
            find(method)
        for name, mask in self.masks.items():
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool or tuple(mask.shape) != self.image_shape:
                but = _but(mask, self.image_shape)
                raise ValueError(f"the mask {name!r} must be a bool tensor of shape {self.image_shape}, {but}")
            if not self.degraded or self.knows_mask:
                check_mask(f"the mask {name!r}", mask)
        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"a method is named twice: {', '.join(self.methods)}")
        check_number("noise_std", self.noise_std, low=0)
        if self.noise_std > 1:
            raise ValueError(f"noise_std must be at most 1, as pixels lie in [0, 1], not {self.noise_std!r}")
        if self.noise_std > 0:  # here, so that what describes an audit describes what runs
            settings = dataclasses.replace(self.settings, restore_known_pixels=False)
            object.__setattr__(self, "settings", settings)
        check_integer("keep_images", self.keep_images, low=0)
        if self.slots is not None:
            check_integer("slots", self.slots, low=1)
        if self.degraded:
            self._check_degraded()
        for split, images in self.splits.items():
            if images.image_shape != self.image_shape:
                raise ValueError(f"the {split} are of shape {images.image_shape}, the members of {self.image_shape}")

    def _check_degraded(self) -> None:
        wrong = [method for method in self.methods if not METHODS[method].scored]
        if wrong:
            raise ValueError(
                f"what {', '.join(wrong)} makes of degraded images cannot be judged without their originals; "
                f"expected {', '.join(name for name, method in METHODS.items() if method.scored)}"
            )
        if list(self.masks) != [DEGRADED_MASK]:
            raise ValueError(f"degraded images are taken as they are: the only mask is {DEGRADED_MASK!r}")

    def __repr__(self) -> str:
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        given["masks"] = list(self.masks)
        return f"Audit({', '.join(f'{name}={value!r}' for name, value in given.items())})"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.splits["members"].image_shape

    @property
    def knows_mask(self) -> bool:
        """Whether a method is given the true mask."""
        return any(METHODS[method].mask == "given" for method in self.methods)

    @property
    def headline(self) -> str:
        """See `headline_of`; its results say which images the gallery shows."""
        return headline_of(traits_of(self.methods))

    @property
    def most_at_a_time(self) -> int | None:
        """`slots`, but no more than there are recoveries of a method."""
        recoveries = len(self.masks) * sum(len(images.usable()) for images in self.splits.values())
        return None if self.slots is None else min(self.slots, max(recoveries, 1))

    def cells(self, method: str | None = None) -> list[Cell]:
        """All cells, or those of a method."""
        methods = self.methods if method is None else (method,)
        return [Cell(split, mask, method) for method in methods for mask in self.masks for split in self.splits]

    def prepare(self, autoencoder: Autoencoder) -> dict[str, Open]:
        """What makes the stream of each method. Raises TypeError or ValueError where the autoencoder does not do."""
        check_shape(autoencoder, self.image_shape)
        return {
            method: METHODS[method].prepare(autoencoder, self.image_shape, self._settings_of(method), self.backend)
            for method in self.methods
        }

    def check_degradation(self) -> None:
        """Raise ValueError where `degraded` images are not degraded as is said. Reads them."""
        if not self.degraded:
            return
        for split, images in self.splits.items():
            if self.knows_mask:
                self._check_known_mask(split, images)
            elif not self.noise_std and not any(may_be_erased(images[index][None]) for index in images.usable()):
                raise ValueError(
                    f"the {split} are not degraded: not one entry of an image is 0, as those are that were erased "
                    "(where they carry noise, noise_std must say so)"
                )

    def _check_known_mask(self, split: str, images: Images) -> None:
        (mask,) = self.masks.values()
        found = ((index, contradiction(images[index], mask, self.noise_std > 0)) for index in images.usable())
        wrong = [(index, words) for index, words in found if words]
        if wrong:
            index, words = wrong[0]
            raise ValueError(
                f"{len(wrong)} of {len(images)} {split} contradict the mask, first {images.names[index]}: {words} "
                "(where they carry noise, noise_std must say so)"
            )

    def _settings_of(self, method: str) -> Settings:
        """With what noise leaves of every score allowed for: otherwise all would be tried for every image."""
        pixels = math.prod(self.image_shape)
        noisy = pixels if METHODS[method].traits.is_blind else min(int(mask.sum()) for mask in self.masks.values())
        below = self.settings.recognized_below + noise_floor(self.noise_std, noisy, pixels)
        return dataclasses.replace(self.settings, recognized_below=below)


def _but(mask: object, image_shape: tuple[int, ...]) -> str:
    """What was given as a mask, and what makes a mask of it, in words."""
    found, how = type(mask).__name__, ""
    if isinstance(mask, Tensor):
        found = f"{mask.dtype} {tuple(mask.shape)}"
        if mask.dtype != torch.bool:
            how = "mask.bool()"
        elif tuple(mask.shape) in (image_shape[1:], (1, *image_shape[1:])):
            how = f"mask.expand{image_shape}"
    elif isinstance(mask, np.ndarray):
        how = "torch.from_numpy(mask)"
    elif isinstance(mask, str):
        how = "degradation.make_mask(name, image_shape)"
    return f"not {found}{how and f'; try {how}'}"


def describe(
    audit: Audit, autoencoder: Autoencoder, device: str, model: str, sources: Mapping[str, str], parts: str | None
) -> dict[str, Any]:
    """What is audited, for JSON; `sessions` are added as the run is worked on. "kept": the entries that a mask keeps;
    "remarks": on the images, for instance which files were left out and why.

    model, sources: as the user named them. device: "cpu" or "cuda". parts: where the part files are, see
    `parts.Parts`; None: in the run's folder.
    """
    return {
        "id": uuid.uuid4().hex,
        "model": printable(model),
        **({"adaptation": str(autoencoder.adaptation)} if isinstance(autoencoder, Adapted) else {}),
        "sources": {split: printable(source) for split, source in sources.items()},
        "counts": {
            split: {"images": len(images), "unusable": len(images.problems)} for split, images in audit.splits.items()
        },
        TRAITS: {name: dataclasses.asdict(traits) for name, traits in traits_of(audit.methods).items()},
        "remarks": {split: list(map(printable, images.remarks)) for split, images in audit.splits.items()},
        "kept": {name: int(mask.sum()) for name, mask in audit.masks.items()},
        "plan": {
            "model": model_digest(autoencoder),
            "images": {split: images.digest() for split, images in audit.splits.items()},
            "image_shape": list(audit.image_shape),
            "masks": {name: digest_of([mask]) for name, mask in audit.masks.items()},
            "methods": list(audit.methods),
            "settings": audit.settings.to_dict(),
            **{name: _as_json(METHODS[name].identity) for name in audit.methods if METHODS[name].identity},
            "noise_std": audit.noise_std,
            "degraded": audit.degraded,
            "keep_images": audit.keep_images,
            "device": device,
            "parts": parts,
        },
        "sessions": [],
    }


def model_digest(autoencoder: Autoencoder) -> str:
    """SHA-256 of the layers, as they are printed, and of all parameters and buffers, as they are before it is used.

    Of a compiled module that of what was compiled. Of a callable that is no nn.Module the name alone, as nothing else
    is known of it.
    """
    autoencoder = original_of(autoencoder)
    if not isinstance(autoencoder, nn.Module):
        return f"{getattr(autoencoder, '__qualname__', type(autoencoder).__qualname__)}, unknown"
    program = autoencoder.model if isinstance(autoencoder, Adapted) else autoencoder
    code = program.code if isinstance(program, (torch.fx.GraphModule, torch.jit.ScriptModule)) else ""
    return digest_of(parts_of_module(autoencoder, code))


def watch_weights(autoencoder: Autoencoder) -> Callable[[], str]:
    """What says later how the parameters are not what they are now; "" where they are. Buffers, such as counters, are
    the module's own business: it is by its answers that they are watched."""

    def digest() -> str:
        named = dict(autoencoder.named_parameters()) if isinstance(autoencoder, nn.Module) else {}
        return digest_of([part for name in sorted(named) for part in (name, named[name])])

    before = digest()
    return lambda: "" if digest() == before else "the weights of the model were changed while it was used"


def _as_json(content: Mapping[str, Any]) -> Any:
    """As it is read again: tuples are lists there, for instance."""
    return json.loads(json.dumps(content))
