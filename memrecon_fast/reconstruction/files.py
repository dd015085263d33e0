"""A model of random features and what it learned, in one safetensors file: what `memrecon reconstruct` reads."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from memrecon_fast.autoencoders.tensors import read_tensors, write_tensors
from memrecon_fast.common.shapes import Fields, Listed, Of
from memrecon_fast.reconstruction.pictures import Scaling
from memrecon_fast.reconstruction.random_features import RandomFeatures
from memrecon_fast.reconstruction.weights import Drawn

KEY = "memrecon_random_features"
"""Of the file's metadata: a JSON object."""
_NUMBERS = Listed(Of(int, float))
_SHAPE = Fields(
    {"activation": Of(str)},
    optional={
        "image_shape": Listed(Of(int)),
        "scaling": Fields({"name": Of(str), "mean": _NUMBERS, "std": _NUMBERS}),
    },
)


@dataclasses.dataclass(frozen=True, eq=False)
class Opened:
    """What a file holds."""

    model: RandomFeatures
    theta: Tensor
    image_shape: tuple[int, int, int] | None
    """(C, H, W) of an input, where inputs are pictures."""
    scaling: Scaling | None
    """Of these."""


def save(
    model: RandomFeatures,
    theta: Tensor,
    path: str | os.PathLike[str],
    image_shape: tuple[int, int, int] | None = None,
    scaling: Scaling | None = None,
) -> None:
    """Write V, as "weights", and θ (p,), as "theta", to a safetensors file, with the activation in its metadata.

    image_shape: (C, H, W) of an input, where inputs are pictures; scaling: how they were made of them.

    Raises ValueError where θ or the shape does not fit the model, and where the path does not end in .safetensors, or V
    is not stored.
    """
    if theta.shape != (model.p,):
        raise ValueError(f"theta must have an entry for each of the {model.p} features, not {tuple(theta.shape)}")
    if image_shape is not None:
        _check_shape(image_shape, model.d)
    if Path(path).suffix != ".safetensors":
        raise ValueError(f"the name of the file must end in .safetensors, not {path}")
    described: dict[str, Any] = {"activation": model.activation}
    if image_shape is not None:
        described["image_shape"] = image_shape
    if scaling is not None:
        described["scaling"] = dataclasses.asdict(scaling)
    if isinstance(model.weights, Drawn):
        raise ValueError("V is not stored, but drawn from a seed: RandomFeatures(model.weights[:]) is the same, stored")
    write_tensors(Path(path), {"weights": model.weights, "theta": theta}, {KEY: json.dumps(described)})


def load(path: str | os.PathLike[str]) -> Opened:
    """What is in a file that `save` wrote. Raises ValueError for any other file, OSError where it cannot be read."""
    tensors, metadata = read_tensors(Path(path))
    described = _described(metadata.get(KEY, ""))
    if described is None or not {"weights", "theta"} <= tensors.keys():
        raise ValueError(
            f"{path} is not a model of random features: mf.reconstruction.save(model, theta, path) writes such files; "
            "for a net, give package.module:factory with --weights and --initial"
        )
    if fault := _SHAPE.fault(described, "it"):
        raise ValueError(f"what {path} says of itself cannot be: {fault}")
    model, shape, scaling = RandomFeatures(tensors["weights"], described["activation"]), None, None
    if "image_shape" in described:
        _check_shape(described["image_shape"], model.d)
        shape = tuple(described["image_shape"])
    if "scaling" in described:
        said = described["scaling"]
        scaling = Scaling(said["name"], tuple(said["mean"]), tuple(said["std"]))
    return Opened(model, tensors["theta"], shape, scaling)


def _check_shape(shape: Sequence[int], d: int) -> None:
    if len(shape) != 3 or min(shape) < 1 or math.prod(shape) != d:
        raise ValueError(f"image_shape must be (C, H, W) of {d} numbers, not {tuple(shape)}")


def _described(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
