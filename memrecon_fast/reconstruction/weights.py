"""V by blocks of rows: stored, or made again from its seed; only a block of it at a time is there in float64."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from memrecon_fast.common.philox import normal_rows

_BLOCK_BYTES = 2**20
"""Of a block of V as float64: with what is made of it, it lies in the caches."""


_NUMBERS_AT_ONCE = 2**15
"""That are drawn: what they are made of takes ten times their memory, and should lie in the caches."""


@dataclasses.dataclass(frozen=True)
class Drawn:
    """V (p, d) that is nowhere stored: entries N(0, 1/d), float32, the same wherever they are made; see
    `common/philox.py`."""

    p: int
    d: int
    seed: int

    @property
    def shape(self) -> tuple[int, int]:
        """(p, d)."""
        return self.p, self.d

    def __getitem__(self, where: slice) -> Tensor:
        """Some rows, float32."""
        begin, end, _ = where.indices(self.p)
        found = torch.empty(max(end - begin, 0), self.d)
        size = max(1, _NUMBERS_AT_ONCE // self.d)
        for place, part in enumerate(found.split(size)):
            first = begin + place * size
            part.copy_(torch.from_numpy(normal_rows(first, first + len(part), self.d, self.seed)))
        return found.mul_(self.root_mean_square)

    @property
    def root_mean_square(self) -> float:
        """1/√d, as float32."""
        return float(np.float32(1 / math.sqrt(self.d)))


Weights = Tensor | Drawn


def blocks(weights: Weights, count: int | None = None) -> Iterator[tuple[slice, Tensor]]:
    """Which rows, and these as float64: of the first so many, or of all."""
    total, width = weights.shape
    count = total if count is None else count
    size = max(64, _BLOCK_BYTES // (8 * width))
    for begin in range(0, count, size):
        where = slice(begin, min(begin + size, count))
        yield where, weights[where].double()


def first(weights: Weights, count: int) -> Weights:
    """The first so many rows."""
    return dataclasses.replace(weights, p=count) if isinstance(weights, Drawn) else weights[:count]


def root_mean_square(weights: Weights) -> float:
    """Of all entries."""
    if isinstance(weights, Drawn):
        return weights.root_mean_square
    total = sum(float(block.square().sum()) for _, block in blocks(weights))
    return math.sqrt(total / weights.numel())


def is_finite(weights: Weights) -> bool:
    """All entries are."""
    return isinstance(weights, Drawn) or all(bool(torch.isfinite(block).all()) for _, block in blocks(weights))
