"""What is looked for: the training inputs of models, from one start or several."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from memrecon_fast.common.checks import check_integer, check_seed
from memrecon_fast.reconstruction.head import Head
from memrecon_fast.reconstruction.pictures import Scaling
from memrecon_fast.reconstruction.random_features import RandomFeatures
from memrecon_fast.reconstruction.results import ReconstructionSettings

Model = RandomFeatures | Head
DECIDES = ("targets", "images", "settings", "seed")
"""Of a plan: what decides the solutions. What else is in it may change from session to session."""


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """A model, and what its last layer learned."""

    name: str
    """What the user called it."""
    model: Model
    theta: Tensor
    """(p,) or (outputs, p)."""
    digest: str
    """SHA-256 of all that the features and θ are made of."""
    image_shape: tuple[int, int, int] | None
    """(C, H, W) of an input, where inputs are pictures."""
    scaling: Scaling
    """Of these."""


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
    """The training images, to compare with."""

    source: str
    """Where they are from, in words."""
    pictures: Tensor
    """float32 (n, C, H, W), in [0, 1]."""
    names: Sequence[str]


@dataclasses.dataclass(frozen=True, eq=False)
class Law:
    """How models of other p fit their labels, for the chart of the law: they are not reconstructed."""

    inputs: int
    """n."""
    training_error: Sequence[tuple[int, float]]
    """p, and the mean squared error on the n labels."""


@dataclasses.dataclass(frozen=True, eq=False)
class Search:
    """What is carried out.

    targets: one, or models of several p with the same training inputs. images: n; None: the fewest that explain θ.
    starts: each target is reconstructed from so many, with the seeds `seed`, `seed` + 1, …

    Raises TypeError or ValueError for numbers out of range, no target, and pictures of a shape that does not fit.
    """

    targets: Sequence[Target]
    images: int | None = None
    settings: ReconstructionSettings = dataclasses.field(default_factory=ReconstructionSettings)
    starts: int = 2
    seed: int = 42
    truth: Truth | None = None
    law: Law | None = None

    def __post_init__(self) -> None:
        check_integer("starts", self.starts, low=1)
        check_seed(self.seed)
        if not self.targets:
            raise ValueError("there must be at least one target")
        for target in self.targets:
            if target.image_shape is not None:
                target.scaling.check(target.image_shape)
            if self.truth is not None and target.image_shape != tuple(self.truth.pictures.shape[1:]):
                raise ValueError(
                    f"{target.name}: its inputs are pictures {target.image_shape}, those to compare with are "
                    f"{tuple(self.truth.pictures.shape[1:])}"
                )
            if self.truth is not None:
                target.scaling.inputs_of(self.truth.pictures)  # raises for what it cannot be compared with

    @property
    def seeds(self) -> range:
        """Of the starts."""
        return range(self.seed, self.seed + self.starts)


def digest_of_tensors(*tensors: Tensor) -> str:
    """SHA-256 of their shapes, kinds and numbers."""
    found = hashlib.sha256()
    for tensor in tensors:
        bits = tensor.detach().cpu().contiguous()
        array = (bits.view(torch.int16) if bits.dtype == torch.bfloat16 else bits).numpy()
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def describe(search: Search) -> dict[str, Any]:
    """The content of `reconstruction.json`, without sessions."""
    truth = search.truth
    return {
        "targets": [_describe(target) for target in search.targets],
        "plan": {
            "targets": [target.digest for target in search.targets],
            "images": search.images,
            "settings": dataclasses.asdict(search.settings),
            "starts": search.starts,
            "seed": search.seed,
            "truth": None if truth is None else digest_of_tensors(truth.pictures),
        },
        "truth": None if truth is None else {"source": truth.source, "names": list(truth.names)},
        "law": None if search.law is None else _describe_law(search.law),
        "sessions": [],
    }


def _describe(target: Target) -> dict[str, Any]:
    model = target.model
    kind = f"random features, {model.activation}" if isinstance(model, RandomFeatures) else "the body of a net"
    return {
        "name": target.name,
        "features": kind,
        "lengths_known": isinstance(model, Head) and not model.where.on_sphere,
        "p": model.p,
        "d": model.d,
        "outputs": 1 if target.theta.dim() == 1 else len(target.theta),
        "image_shape": None if target.image_shape is None else list(target.image_shape),
        "scaling": dataclasses.asdict(target.scaling)
        | {"mean": list(target.scaling.mean), "std": list(target.scaling.std)},
    }


def _describe_law(law: Law) -> Mapping[str, Any]:
    return {"inputs": law.inputs, "training_error": [[p, float(error)] for p, error in law.training_error]}
