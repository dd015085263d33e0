"""Iteration of the autoencoder alone, x ← f(x), the method of earlier papers; a block is one iteration."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from memrecon_fast.ops import Ops
from memrecon_fast.prox import Prox
from memrecon_fast.solvers.samples import Sample
from memrecon_fast.solvers.slots import Slots, clear, common_buffers, judge


@dataclasses.dataclass(frozen=True)
class IterationSolver:
    """Advances slots by one application of f; an image stops once the successive MSE is below `tolerance`."""

    prox: Prox
    ops: Ops
    backend: str
    """The name of `ops`."""
    max_iterations: int
    tolerance: float

    def allocate(self, slots: int) -> Slots:
        """Empty slots."""
        return Slots(**common_buffers(slots, self.prox.pixels, self.prox.device))

    def load(self, slots: Slots, samples: Sequence[Sample]) -> None:
        """Begin with these samples, one for each of the slots: x⁰ = y."""
        clear(slots)
        slots.x.copy_(self.prox.to_rows(torch.stack([sample.degraded for sample in samples])))

    def advance(self, slots: Slots) -> None:
        """One iteration."""
        self.ops.advance(slots.x, self.prox(slots.x), slots.residual)
        judge(slots, tolerance=self.tolerance, patience=1, limit=self.max_iterations, first_comparison=1)

    def estimate(self, slots: Slots, slot: int) -> Tensor:
        """The image in this slot, [d]."""
        return slots.x[slot]

    def mask(self, slots: Slots, slot: int) -> Tensor:
        """All True, [d]: the degraded image is taken as it is."""
        return torch.ones_like(slots.x[slot], dtype=torch.bool)

    def evaluations(self, iterations: int) -> int:
        """Applications of f for one image that made this many iterations."""
        return iterations
