"""Iteration of the autoencoder alone, x ← f(x), the method of earlier papers; a block is one iteration or a few."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from memrecon_fast.ops import Ops
from memrecon_fast.prox import Prox
from memrecon_fast.solvers.samples import Sample, Staged
from memrecon_fast.solvers.slots import Slots, clear, common_buffers, counters, upload


@dataclasses.dataclass(frozen=True)
class IterationSolver:
    """Advances slots by applications of f; an image stops once the successive MSE is below `tolerance`."""

    prox: Prox
    ops: Ops
    backend: str
    """The name of `ops`."""
    max_iterations: int
    tolerance: float
    iterations_per_block: int = 1
    """An image that is done earlier waits for the end of the block, as it is."""

    early = None
    finishes_at_load = False

    def allocate(self, slots: int) -> Slots:
        """Empty slots."""
        return Slots(**common_buffers(slots, self.prox.pixels, self.prox.device))

    def stage(self, sample: Sample) -> Staged:
        """What `load` needs of a sample."""
        return Staged(sample, {"x": self.prox.to_rows(sample.degraded.cpu()[None])[0]})

    def load(self, slots: Slots, staged: Sequence[Staged]) -> None:
        """Begin with these samples, one for each of the slots: x⁰ = y."""
        clear(slots)
        upload([one.rows["x"] for one in staged], slots.x)

    def advance(self, slots: Slots) -> None:
        """One block."""
        for _ in range(self.iterations_per_block):
            self.ops.advance(slots.x, self.prox(slots.x), slots.residual, slots.status)
            self.ops.judge(
                **counters(slots),
                tolerance=self.tolerance,
                patience=1,
                limit=self.max_iterations,
                first_comparison=1,
            )

    def results(self, slots: Slots) -> tuple[Tensor, Tensor]:
        """The images, and masks that are all True: the degraded images are taken as they are; each [S, d]."""
        return slots.x, torch.ones_like(slots.x, dtype=torch.bool)

    def evaluations(self, blocks: int) -> int:
        """Applications of f for one image of which this many estimates were made."""
        return blocks
