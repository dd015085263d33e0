"""V by blocks of rows: whatever it is stored as, only a block of it at a time is there in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

_BLOCK_BYTES = 2**20
"""Of a block of V as float64: with what is made of it, it lies in the caches."""


def blocks(weights: Tensor, count: int | None = None) -> Iterator[tuple[slice, Tensor]]:
    """Which rows, and these as float64: of the first so many, or of all."""
    total, width = weights.shape
    count = total if count is None else count
    size = max(64, _BLOCK_BYTES // (8 * width))
    for first in range(0, count, size):
        where = slice(first, min(first + size, count))
        yield where, weights[where].double()


def root_mean_square(weights: Tensor) -> float:
    """Of all entries."""
    total = sum(float(block.square().sum()) for _, block in blocks(weights))
    return math.sqrt(total / weights.numel())


def is_finite(weights: Tensor) -> bool:
    """All entries are."""
    return all(bool(torch.isfinite(block).all()) for _, block in blocks(weights))
