"""Many images through the iteration x ← f(x), or its extrapolation by Anderson, in flight."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from memrecon_fast import ops
from memrecon_fast.engine.inflight import InFlight
from memrecon_fast.engine.prox import Prox
from memrecon_fast.engine.samples import Sample
from memrecon_fast.engine.solver import Solver
from memrecon_fast.settings import Settings
from memrecon_fast.solvers.accelerated import AcceleratedSolver
from memrecon_fast.solvers.iteration import ITERATIONS_PER_BLOCK_ON_GPU, IterationSolver

_ANDERSON_PERIOD = 3
"""Applications of f between two looks at whether an image is done."""


@dataclasses.dataclass(frozen=True)
class Reached:
    """Where images came to, on the CPU, in the order of the starts."""

    images: Tensor
    """float32 (B, *image_shape)."""
    evaluations: Tensor
    """int32 (B,): applications of f."""
    status: Tensor
    """int8 (B,) of `Status`."""


def iterate_from(
    prox: Prox, starts: Tensor, max_iterations: int, tolerance: float, slots: int | None = None
) -> Reached:
    """x ← f(x) from each start, until ‖f(x) − x‖²/d is below the tolerance, or so many times.

    starts: float32 (B, *image_shape), of any finite range.
    """
    samples = (Sample(index, start) for index, start in enumerate(starts))
    return _run(iteration_of(prox, max_iterations, tolerance), samples, starts, slots)


def iteration_of(prox: Prox, max_iterations: int, tolerance: float) -> IterationSolver:
    """The solver behind `iterate_from`, for `InFlight`."""
    per_block = ITERATIONS_PER_BLOCK_ON_GPU if prox.device.type == "cuda" else 1
    return IterationSolver(prox, ops.choose("auto", prox.device), max_iterations, tolerance, per_block)


def extrapolate_from(
    prox: Prox, starts: Tensor, max_evaluations: int, tolerance: float, slots: int | None = None
) -> Reached:
    """The same by Anderson acceleration, which also comes to fixed points that iteration leaves.

    It is the accelerated solver with a mask that erases everything: then its step is s ← f(s).
    """
    settings = Settings(
        solver="accelerated",
        gamma=1.0,
        tolerance=tolerance,
        patience=1,
        mask_period=_ANDERSON_PERIOD,
        max_outer_iterations=-(-max_evaluations // _ANDERSON_PERIOD),
        stall=max_evaluations,
        settled_counts=1,
        restore_known_pixels=False,
    )
    solver = AcceleratedSolver(prox, ops.choose("auto", prox.device), settings, known_masks=True)
    nothing = torch.zeros(prox.image_shape, dtype=torch.float32, device="cpu")
    erased = torch.zeros(prox.image_shape, dtype=torch.bool, device="cpu")
    samples = (Sample(index, nothing, erased, initial_state=start) for index, start in enumerate(starts))
    return _run(solver, samples, starts, slots)


def _run(solver: Solver, samples: Iterator[Sample], starts: Tensor, slots: int | None) -> Reached:
    count = len(starts)
    images = torch.empty(starts.shape, dtype=torch.float32, device="cpu")
    evaluations = torch.zeros(count, dtype=torch.int32, device="cpu")
    status = torch.zeros(count, dtype=torch.int8, device="cpu")
    if count:
        for batch in InFlight(solver, slots, reviewed=False).estimates(samples):
            batch.wait()
            at = torch.tensor([sample.index for sample in batch.samples], device="cpu")
            images[at], evaluations[at], status[at] = batch.images, batch.evaluations, batch.status
    return Reached(images, evaluations, status)
