"""Iteration of the autoencoder alone, x ← f(x), the method of earlier papers; a block is one iteration or a few."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from memrecon_fast.ops import Ops
from memrecon_fast.prox import Prox
from memrecon_fast.solvers.samples import Results, Sample, Staged
from memrecon_fast.solvers.slots import JudgedSlots, clear, judged, judged_buffers, upload


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

    attempts = 1
    recognized_below = 0.0
    early = None
    finishes_at_load = False

    def allocate(self, slots: int) -> JudgedSlots:
        """Empty slots."""
        return JudgedSlots(**judged_buffers(slots, self.prox.pixels, self.prox.device))

    def stage(self, sample: Sample) -> Staged:
        """What `load` needs of a sample."""
        return Staged(sample, {"x": self.prox.to_rows(sample.degraded.cpu()[None])[0]})

    def load(self, slots: JudgedSlots, staged: Sequence[Staged]) -> None:
        """Begin with these samples, one for each of the slots: x⁰ = y."""
        clear(slots)
        upload([one.rows["x"] for one in staged], slots.x)

    def advance(self, slots: JudgedSlots) -> None:
        """One block."""
        for _ in range(self.iterations_per_block):
            self.ops.advance(slots.x, self.prox(slots.x), slots.residual, slots.status)
            self.ops.judge(
                **judged(slots),
                tolerance=self.tolerance,
                patience=1,
                limit=self.max_iterations,
                first_comparison=1,
            )

    def results(self, slots: JudgedSlots) -> Results:
        """The images, and masks that are all True: the degraded images are taken as they are."""
        return Results(
            images=slots.x,
            masks=torch.ones_like(slots.x, dtype=torch.bool),
            outer_iterations=slots.iterations,
            evaluations=slots.blocks,
            status=slots.status,
            residual=slots.residual,
        )
