"""The pictures of a run: the best, the borderline and the worst of each cell as small arrays. Reports need no model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memrecon_fast.common.files import replacing
from memrecon_fast.metrics import ACCURATE_MSE, APPROXIMATE_MSE

GALLERY = "gallery"
GROUPS = ("best", "borderline", "worst")
IN_EACH_GROUP = 4
LARGEST_SIDE = 128
"""Pixels; larger images are reduced to this by averaging."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """One image of a cell; all uint8 (C, H, W)."""

    index: int
    original: NDArray[np.uint8]
    degraded: NDArray[np.uint8]
    recovered: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    """255 = kept."""


def choose(errors: NDArray[np.float64]) -> dict[int, str]:
    """Which images a gallery shows: position → its group of `GROUPS`, in the order of the groups.

    errors: the MSE of each, in the order of their indices, infinite where it diverged. The lowest errors, those nearest
    to a threshold of recovery (as ratios) and the highest, no image twice; of equal ones the first.
    """
    ascending = np.argsort(errors, kind="stable")
    best = ascending[:IN_EACH_GROUP]
    worst = ascending[IN_EACH_GROUP:][-IN_EACH_GROUP:]
    between = np.sort(ascending[IN_EACH_GROUP : len(ascending) - len(worst)])
    borderline = between[np.argsort(_distance(errors[between]), kind="stable")[:IN_EACH_GROUP]]
    groups = zip(GROUPS, (best, borderline[np.argsort(errors[borderline], kind="stable")], worst), strict=True)
    return {int(position): group for group, positions in groups for position in positions}


def candidates(errors: NDArray[np.float64]) -> set[int]:
    """Positions that hold all of these images that `choose` may choose, whatever others there are."""
    ascending = np.argsort(errors, kind="stable")
    borderline = np.argsort(_distance(errors), kind="stable")[: 3 * IN_EACH_GROUP]
    return {*ascending[:IN_EACH_GROUP].tolist(), *ascending[-2 * IN_EACH_GROUP :].tolist(), *borderline.tolist()}


def make_picture(original: Tensor, degraded: Tensor, recovered: Tensor, mask: Tensor) -> NDArray[np.uint8]:
    """The four as they are shown, uint8 (4, C, H, W), of float32 (or bool) tensors (C, H, W); NaN becomes black."""
    return np.stack([_to_bytes(image) for image in (original, degraded, recovered, mask)])


def write_pictures(path: Path, pictures: Sequence[Picture]) -> None:
    """Write the pictures of a cell, in the order of their indices, to an `.npz` file, whole or not at all."""
    ordered = sorted(pictures, key=lambda picture: picture.index)
    fields = [field.name for field in dataclasses.fields(Picture)]
    arrays: dict[str, Any] = {name: np.stack([getattr(picture, name) for picture in ordered]) for name in fields}
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, **arrays)


def read_pictures(path: Path) -> list[Picture]:
    """The inverse of `write_pictures`; none where there is no such file. Raises ValueError for any other file."""
    if not path.exists():
        return []
    try:
        with np.load(path, allow_pickle=False) as archive:
            columns = [archive[field.name] for field in dataclasses.fields(Picture)]
        return [Picture(int(index), *pixels) for index, *pixels in zip(*columns, strict=True)]
    except Exception as error:  # NumPy and its decompressors raise many kinds on a damaged file
        raise ValueError(f"{path} cannot be read as pictures of an audit: {error}") from error


def _distance(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """From the nearer of the two thresholds: the logarithm of the ratio."""
    with np.errstate(divide="ignore"):  # equal images
        logarithms = np.log(errors)
    accurate, approximate = (np.abs(logarithms - np.log(limit)) for limit in (ACCURATE_MSE, APPROXIMATE_MSE))
    nearer: NDArray[np.float64] = np.minimum(accurate, approximate)
    return nearer


def _to_bytes(image: Tensor) -> NDArray[np.uint8]:
    pixels = torch.nan_to_num(image.float(), nan=0.0).clamp(0, 1)
    height, width = pixels.shape[1:]
    if max(height, width) > LARGEST_SIDE:
        scale = LARGEST_SIDE / max(height, width)
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        pixels = torch.nn.functional.adaptive_avg_pool2d(pixels, size)
    return (pixels * 255).round().byte().numpy()
