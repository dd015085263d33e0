"""Products with the rows of V, block by block: what the solver spends its time on.

Everything is computed in float64, whatever V is stored as: only a block of it is converted at a time, so that memory
beyond V and a few numbers for each row is bounded by the block.

`scale` makes the entries of V of variance 1, so that nothing depends on how V was scaled: g = scale·v. Not V is
multiplied by it, but its products. These have a row for each image: with many columns and few rows, BLAS is about twice
as fast as with many rows and few columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from memrecon_fast.reconstruction.effort import Effort
from memrecon_fast.reconstruction.weights import Weights, blocks


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """Some rows g."""

    where: slice
    """Which."""
    weights: Tensor
    """Of V, float64 (rows, d)."""
    scale: float

    def times(self, left: Tensor) -> Tensor:
        """left·gᵀ (m, rows): left (m, d)."""
        return torch.addmm(left.new_empty(()), left, self.weights.T, beta=0, alpha=self.scale)

    def add_to(self, found: Tensor, left: Tensor) -> None:
        """left·g is added to found (m, d): left (m, rows)."""
        found.addmm_(left, self.weights, alpha=self.scale)


@dataclasses.dataclass
class Rows:
    """The rows of V with their entries of θ."""

    weights: Weights
    """V, stored or `Drawn`, of at least p rows of d numbers."""
    theta: Tensor
    """float64 (p,): of the first p of them."""
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

    def blocks(self) -> Iterator[Block]:
        """All rows, in order."""
        for where, block in blocks(self.weights, self.count):
            yield Block(where, block, self.scale)

    def times(self, right: Tensor) -> Tensor:
        """G·right: right (d, m); (p, m)."""
        self.passed(1)
        left = right.T.contiguous()
        found = right.new_empty(right.shape[1], self.count)
        for block in self.blocks():
            found[:, block.where] = block.times(left)
        return found.T

    def transposed_times(self, right: Tensor) -> Tensor:
        """Gᵀ·right: right (p, m); (d, m)."""
        self.passed(1)
        found = right.new_zeros(right.shape[1], self.width)
        for block in self.blocks():
            block.add_to(found, right[block.where].T)
        return found.T

    def gram(self) -> Tensor:
        """GᵀG (d, d)."""
        self.passed(1)
        found = self.theta.new_zeros(self.width, self.width)
        for block in self.blocks():
            found.addmm_(block.weights.T, block.weights)
        return found * self.scale**2

    def first(self, count: int) -> Rows:
        """The first so many rows alone."""
        cost = self.cost * count / self.count
        return Rows(self.weights, self.theta[:count], self.scale, self.effort, cost)

    def of(self, basis: Tensor) -> Rows:
        """Rows of the products with the columns of a basis (d, m) in place of V."""
        cost = self.cost * basis.shape[1] / self.width
        return Rows(self.times(basis).contiguous(), self.theta, effort=self.effort, cost=cost)
