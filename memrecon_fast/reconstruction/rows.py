"""Products with the rows of V, block by block: what the solver spends its time on.

Everything is computed in float64, whatever V is stored as: only a block of it is converted at a time, so that memory
beyond V and a few numbers for each row is bounded by the block.

`scale` makes the entries of V of variance 1, so that nothing depends on how V was scaled: g = scale·v.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from memrecon_fast.reconstruction.effort import Effort

_BLOCK_BYTES = 2**21
"""Of a block of V as float64: with what is made of it, it lies in the caches."""


@dataclasses.dataclass
class Rows:
    """The rows of V with their entries of θ."""

    weights: Tensor
    """V, float32 or float64 (p, d)."""
    theta: Tensor
    """float64 (p,)."""
    scale: float = 1.0
    effort: Effort = dataclasses.field(default_factory=Effort)
    cost: float = 1.0
    """Of a pass over these, in passes over all of V."""

    def passed(self, times: int) -> None:
        """All were multiplied so often with all images."""
        self.effort.passes += times * self.cost

    @property
    def count(self) -> int:
        """p."""
        return len(self.theta)

    @property
    def width(self) -> int:
        """d."""
        return self.weights.shape[1]

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Which rows, and these: g, float64."""
        size = max(64, _BLOCK_BYTES // (8 * self.width))
        for first in range(0, self.count, size):
            where = slice(first, min(first + size, self.count))
            block = self.weights[where].double()
            yield where, block if self.scale == 1 else block * self.scale

    def times(self, right: Tensor) -> Tensor:
        """G·right: right (d, m); (p, m)."""
        self.passed(1)
        found = right.new_empty(self.count, right.shape[1])
        for where, block in self.blocks():
            torch.mm(block, right, out=found[where])
        return found

    def transposed_times(self, right: Tensor) -> Tensor:
        """Gᵀ·right: right (p, m); (d, m)."""
        self.passed(1)
        found = right.new_zeros(self.width, right.shape[1])
        for where, block in self.blocks():
            found.addmm_(block.T, right[where])
        return found

    def gram(self) -> Tensor:
        """GᵀG (d, d)."""
        self.passed(1)
        found = self.theta.new_zeros(self.width, self.width)
        for _, block in self.blocks():
            found.addmm_(block.T, block)
        return found

    def first(self, count: int) -> Rows:
        """The first so many rows alone."""
        cost = self.cost * count / self.count
        return Rows(self.weights[:count], self.theta[:count], self.scale, self.effort, cost)

    def of(self, basis: Tensor) -> Rows:
        """Rows of the products with the columns of a basis (d, m) in place of V."""
        cost = self.cost * basis.shape[1] / self.width
        return Rows(self.times(basis), self.theta, effort=self.effort, cost=cost)
