"""The accelerated solver: ADMM keeps its state while the mask is re-estimated, and extrapolates once that holds still.

A block is `mask_period` applications of f, and ends with an estimate of the image and the mask. See `ops/anderson`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.prox import Prox, make_prox
from memrecon_fast.engine.samples import Batch, Sample, Staged
from memrecon_fast.engine.transfer import to_device, upload
from memrecon_fast.ops import Operations, load
from memrecon_fast.ops.anderson import AndersonState
from memrecon_fast.results import Status
from memrecon_fast.settings import Settings, SolverRecord
from memrecon_fast.solvers.attempts import admit_staged, count_attempts, stage

EARLY_ESTIMATES = 6
"""Progressive precision: so many estimates in bfloat16, before those that are allowed."""


@dataclasses.dataclass(frozen=True)
class AcceleratedSolver:
    """Advances slots by `mask_period` applications of f, and an estimate of the image and the mask."""

    prox: Prox
    ops: Operations
    settings: Settings
    known_masks: bool
    hands_over: bool = False
    """Whether what comes of the images is the last input of f, for another solver to go on from, instead of the
    estimates."""
    early: AcceleratedSolver | None = None
    """The solver that the images begin with: progressive precision."""

    finishes_at_admission = False

    @property
    def attempts(self) -> int:
        """Pairs of γ and initial mask; the first one twice, where it begins with another solver."""
        return count_attempts(self.settings, self.known_masks, first_twice=self.early is not None)

    @property
    def recognized_below(self) -> float:
        """See `Settings`."""
        return self.settings.recognized_below

    def allocate(self, slots: int) -> AndersonState:
        """Empty slots."""
        return AndersonState.allocate(slots, self.prox.pixels, self.prox.device, places=self.settings.memory + 1)

    def stage(self, sample: Sample) -> Staged:
        """What `admit` needs of a sample."""
        return stage(sample, self.settings, self.prox, self.known_masks, first_twice=self.early is not None)

    def admit(self, slots: AndersonState, staged: Sequence[Staged]) -> None:
        """Begin with these samples, one for each of the slots."""
        slots.begin()
        slots.best.zero_()
        for score in (slots.best_score, slots.milestone):
            score.fill_(torch.inf)
        if self.known_masks:
            slots.held.fill_(self.settings.settle)
        admit_staged(staged, self.prox, slots)
        slots.best_mask.copy_(slots.mask)
        self.ops.admm.start(slots)
        begun = [row for row, one in enumerate(staged) if "s" in one.images]
        if begun:
            states = torch.empty_like(slots.s[: len(begun)])
            upload([staged[row].images["s"] for row in begun], self.prox.as_images(states))
            slots.s.index_copy_(0, to_device(torch.tensor(begun, device="cpu"), slots.s.device), states)

    def advance(self, slots: AndersonState) -> None:
        """One block."""
        anderson = self.ops.anderson
        for evaluation in range(1, self.settings.mask_period + 1):
            v = self.prox(slots.s)
            anderson.measure(slots, v)
            if evaluation == self.settings.mask_period:
                anderson.estimate(slots, v, estimate_mask=not self.known_masks)
                anderson.stop(
                    slots,
                    tolerance=self.settings.stop_below,
                    patience=self.settings.comparisons,
                    stall=self.settings.stall,
                    settled_counts=self.settings.settled_counts,
                    limit=self.settings.max_outer_iterations,
                )
            anderson.weigh(slots, settle=self.settings.settle)
            anderson.mix(slots)

    def results(self, slots: AndersonState, indices: Tensor, samples: Sequence[Sample]) -> Batch:
        """The estimates: the last one where the image converged, otherwise the one with the lowest score."""
        rows = slots.at(indices)
        status, iterations, y, mask = rows("status"), rows("iterations"), rows("y"), rows("mask")
        observed = y.masked_fill(~mask, 0.0) if self.known_masks else y
        if self.hands_over:
            images, masks = rows("s"), mask
        else:
            converged = (status == int(Status.CONVERGED))[:, None]
            images, masks = rows("x"), rows("best_mask")
            torch.where(converged, images, rows("best"), out=images)
            torch.where(converged, mask, masks, out=masks)
            if self.settings.restore_known_pixels:
                torch.where(masks, y, images, out=images)
        return Batch(
            samples=samples,
            images=images,
            masks=masks,
            observed=observed,
            outer_iterations=iterations,
            evaluations=iterations * self.settings.mask_period,
            status=status,
            residual=rows("residual"),
            gamma=rows("gamma"),
            accepted=rows("accepted"),
            rejected=rows("rejected"),
            mask_changes=rows("mask_changes"),
        )


def prepare(
    autoencoder: Autoencoder,
    image_shape: Sequence[int],
    settings: Settings,
    *,
    known_masks: bool,
    backend: str,
    device: torch.device,
) -> AcceleratedSolver:
    """See `SolverRecord.prepare`."""
    ops = load(backend)
    early = None
    if settings.precision == "progressive":
        prox = make_prox(autoencoder, image_shape, device, "bfloat16")
        first = dataclasses.replace(
            settings, max_outer_iterations=EARLY_ESTIMATES, tolerance=0.0, stall=EARLY_ESTIMATES, settled_counts=1
        )
        early = AcceleratedSolver(prox, ops, first, known_masks, hands_over=True)
    number_format = "float32" if settings.precision == "progressive" else settings.precision
    prox = make_prox(autoencoder, image_shape, device, number_format)
    return AcceleratedSolver(prox, ops, settings, known_masks, early=early)


RECORD = SolverRecord(
    "accelerated",
    # Together they recover more than each alone; which one is best differs from net to net, see
    # benchmarks/results/accelerated.md. With 1 first a member takes a tenth fewer evaluations, but at train losses of
    # 1e-6 to 5e-8 estimates are less accurate: up to a third of a mask's accurate ones are then approximate.
    gammas=(0.2, 0.5, 1.0),
    reads=frozenset({"mask_period", "memory", "settle", "stall", "settled_counts"}),
    prepare=prepare,
    tolerance=1e-8,
    patience=1,
)
