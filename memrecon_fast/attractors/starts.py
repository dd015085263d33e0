"""What a harvest starts from: images made of random numbers, or of pictures, one for each index."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from memrecon_fast.attractors.checks import check_images
from memrecon_fast.common.checks import check_choice
from memrecon_fast.common.seeding import keyed_random

Pictures: TypeAlias = "Sequence[Tensor] | Tensor"
"""Pictures by their index, each float32 of the shape of the images: a batch (P, *image_shape), or what reads one at a
time, such as `images.Images`."""

GREY = 0.5
SMOOTH_STD = 1.2
SMOOTH_CELLS = 4
"""Along each side of the grid that smooth noise is drawn on."""
GAUSSIAN_STD = 2.0
MOST_CONTRAST = 4.0


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of starts."""

    name: str
    draw: Callable[[Generator, tuple[int, ...], Pictures | None], NDArray[np.float32]]
    """From random numbers: an image of this shape, float32, of any finite range. Pictures: those that were given."""
    takes_pictures: bool = False


def make_start(
    kind: str, image_shape: tuple[int, ...], seed: int, index: int, pictures: Pictures | None = None
) -> Tensor:
    """Start number `index`: float32, image_shape, on the CPU; a function of (kind, seed, index) and the pictures alone.

    Its pixels may leave [0, 1] by far.
    """
    generator = keyed_random(f"start: {kind}", seed, index)
    return torch.from_numpy(KINDS[kind].draw(generator, image_shape, pictures))


def check_kind(kind: str) -> None:
    """Raise ValueError for a kind that there is not."""
    check_choice("kind", kind, tuple(KINDS))


def check_pictures(kind: str, image_shape: tuple[int, ...], pictures: Pictures | None) -> None:
    """Raise TypeError or ValueError where pictures are missing, given for nothing, or of another shape.

    Of what is no tensor the first one is looked at.
    """
    if not KINDS[kind].takes_pictures:
        if pictures is not None:
            taking = ", ".join(repr(one.name) for one in KINDS.values() if one.takes_pictures)
            raise ValueError(f"kind {kind!r} takes no pictures; they are for {taking}")
        return
    if pictures is None or not len(pictures):
        raise ValueError(f"kind {kind!r} starts from pictures: give at least one, a batch (P, *image_shape)")
    batch = check_images("pictures", pictures if isinstance(pictures, Tensor) else pictures[0][None])
    if tuple(batch.shape[1:]) != image_shape:
        raise ValueError(
            f"pictures must be of image_shape {image_shape}, a batch (P, *image_shape); they are of "
            f"{tuple(batch.shape[1:])}"
        )


def _smooth(generator: Generator, shape: tuple[int, ...], _: Pictures | None) -> NDArray[np.float32]:
    """0.5 + 1.2 z: z normal on a grid of 4 cells along each side, interpolated linearly.

    The first of three or more axes is that of the channels, which are drawn each for itself.
    """
    channels, sides = (shape[:1], shape[1:]) if len(shape) > 2 else ((), shape)
    values = generator.standard_normal((*channels, *(min(SMOOTH_CELLS, side) for side in sides)))
    for axis, side in enumerate(sides, len(channels)):
        values = _interpolated(values, axis, side)
    return (GREY + SMOOTH_STD * values).astype(np.float32)


def _interpolated(values: NDArray[np.float64], axis: int, count: int) -> NDArray[np.float64]:
    """Linearly along an axis, to so many entries; cells and entries are as wide as each other at the ends."""
    cells = values.shape[axis]
    places = ((np.arange(count) + 0.5) * cells / count - 0.5).clip(0, cells - 1)
    below = np.minimum(places.astype(np.int64), max(cells - 2, 0))
    share = (places - below).reshape(-1, *[1] * (values.ndim - axis - 1))
    above = np.minimum(below + 1, cells - 1)
    found: NDArray[np.float64] = values.take(below, axis) * (1 - share) + values.take(above, axis) * share
    return found


def _uniform(generator: Generator, shape: tuple[int, ...], _: Pictures | None) -> NDArray[np.float32]:
    """Each pixel by itself in [0, 1)."""
    return generator.random(shape, dtype=np.float32)


def _gaussian(generator: Generator, shape: tuple[int, ...], _: Pictures | None) -> NDArray[np.float32]:
    """0.5 + 2 z, each pixel by itself."""
    return (GREY + GAUSSIAN_STD * generator.standard_normal(shape)).astype(np.float32)


def _images(generator: Generator, shape: tuple[int, ...], pictures: Pictures | None) -> NDArray[np.float32]:
    """A picture, mirrored or not, its contrast about grey stretched 1- to 4-fold, of three axes shifted cyclically."""
    assert pictures is not None
    chosen, mirrored, stretch = generator.integers(len(pictures)), generator.integers(2), generator.random()
    picture: NDArray[np.float32] = pictures[int(chosen)].numpy(force=True)
    if len(shape) > 2:
        shifts = [int(generator.integers(side)) for side in shape[1:]]
        picture = np.roll(picture, shifts, axis=tuple(range(1, len(shape))))
    if mirrored and len(shape) > 1:
        picture = picture[..., ::-1]
    contrast = np.float32(math.pow(MOST_CONTRAST, stretch))
    stretched = np.float32(GREY) + contrast * (picture - np.float32(GREY))
    return np.ascontiguousarray(stretched, np.float32)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("smooth", _smooth),
        Kind("uniform", _uniform),
        Kind("gaussian", _gaussian),
        Kind("images", _images, takes_pictures=True),
    )
}
"""By name. Large smooth noise finds the most: most of what uniform noise begins ends in a few attractors."""
