"""Iteration of the autoencoder alone, x ← f(x), the method of earlier papers; a block is one iteration or a few."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.prox import Prox, make_prox
from memrecon_fast.engine.samples import Batch, Sample, Staged
from memrecon_fast.engine.transfer import upload
from memrecon_fast.ops import Operations, load
from memrecon_fast.ops.admm import IterationState

ITERATIONS_PER_BLOCK_ON_GPU = 16
"""The host looks at the images only after so many, or a GPU would wait for it most of the time."""


@dataclasses.dataclass(frozen=True)
class IterationSolver:
    """Advances slots by applications of f; an image stops once the successive MSE is below `tolerance`."""

    prox: Prox
    ops: Operations
    max_iterations: int
    tolerance: float
    iterations_per_block: int = 1
    """An image that is done earlier waits for the end of the block, as it is."""

    attempts = 1
    recognized_below = 0.0
    early = None
    finishes_at_admission = False

    def allocate(self, slots: int) -> IterationState:
        """Empty slots."""
        return IterationState.allocate(slots, self.prox.pixels, self.prox.device)

    def stage(self, sample: Sample) -> Staged:
        """What `admit` needs of a sample."""
        return Staged(sample, {"y": sample.degraded})

    def admit(self, slots: IterationState, staged: Sequence[Staged]) -> None:
        """Begin with these samples, one for each of the slots: x⁰ = y."""
        slots.begin()
        upload([one.images["y"] for one in staged], self.prox.as_images(slots.y))
        slots.x.copy_(slots.y)

    def advance(self, slots: IterationState) -> None:
        """One block."""
        for _ in range(self.iterations_per_block):
            self.ops.admm.advance(slots, self.prox(slots.x))
            self.ops.admm.stop(
                slots, tolerance=self.tolerance, patience=1, limit=self.max_iterations, first_comparison=1
            )

    def results(self, slots: IterationState, indices: Tensor, samples: Sequence[Sample]) -> Batch:
        """The images, and masks that are all True: the degraded images are taken as they are."""
        rows = slots.at(indices)
        images = rows("x")
        return Batch(
            samples=samples,
            images=images,
            masks=torch.ones_like(images, dtype=torch.bool),
            observed=rows("y"),
            outer_iterations=rows("iterations"),
            evaluations=rows("blocks"),
            status=rows("status"),
            residual=rows("residual"),
        )


def prepare(
    autoencoder: Autoencoder,
    image_shape: Sequence[int],
    max_iterations: int,
    tolerance: float,
    *,
    backend: str,
    device: torch.device,
) -> IterationSolver:
    """The solver, before any work; raises as `recover`. `backend` is one that is available on the device."""
    prox = make_prox(autoencoder, image_shape, device)
    per_block = ITERATIONS_PER_BLOCK_ON_GPU if device.type == "cuda" else 1
    return IterationSolver(prox, load(backend), max_iterations, tolerance, per_block)
