"""Small photographs without a download: crops of the pictures that scikit-image ships inside its package."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memrecon_fast.common.checks import check_integer

NAMES = ("astronaut", "chelsea", "coffee", "rocket", "stereo_motorcycle")
MIN_STD = 0.08
"""Crops whose brightness varies less than this (standard deviation, of 1) show nothing: sky, table, wall."""


def make_photographs(members: int, controls: int, size: int = 16, seed: int = 42) -> tuple[Tensor, Tensor]:
    """Members and controls: float32 (members, 3, size, size) and (controls, 3, size, size) in [0, 1], in 256 steps.

    Each is a square crop of a photograph, reduced by averaging; no two overlap. The crops are as large as their number
    allows. Which are members is a function of `seed`.

    Raises ValueError where the photographs do not hold that many crops.
    """
    check_integer("members", members, low=1)
    check_integer("controls", controls, low=0)
    check_integer("size", size, low=4)
    check_integer("seed", seed, low=0)
    wanted = members + controls
    photographs = [_load(name) for name in NAMES]
    for factor in range(min(min(photograph.shape[:2]) for photograph in photographs) // size, 0, -1):
        crops = [crop for photograph in photographs for crop in _crops(photograph, size, factor)]
        if len(crops) >= wanted:
            order = np.random.Generator(np.random.Philox(key=[seed, 0])).permutation(len(crops))[:wanted]
            chosen = torch.from_numpy(np.stack([crops[i] for i in order])).permute(0, 3, 1, 2)
            images = (chosen.float() / 255).contiguous()
            return images[:members], images[members:]
    raise ValueError(f"the photographs do not hold {wanted} distinct crops of {size}×{size} pixels")


def _load(name: str) -> NDArray[np.uint8]:
    from skimage import data

    loaded = getattr(data, name)()
    picture: NDArray[np.uint8] = loaded[0] if isinstance(loaded, tuple) else loaded  # the left one of a stereo pair
    return picture


def _crops(photograph: NDArray[np.uint8], size: int, factor: int) -> list[NDArray[np.uint8]]:
    """All crops of size × factor pixels, side by side, each reduced to size × size × 3."""
    side = size * factor
    rows, columns = photograph.shape[0] // side, photograph.shape[1] // side
    blocks = photograph[: rows * side, : columns * side].reshape(rows, size, factor, columns, size, factor, 3)
    crops = np.rint(blocks.mean(axis=(2, 5))).astype(np.uint8).transpose(0, 2, 1, 3, 4).reshape(-1, size, size, 3)
    return [crop for crop in crops if (crop.mean(axis=2) / 255).std() >= MIN_STD]
