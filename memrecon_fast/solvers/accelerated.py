"""The accelerated solver: ADMM keeps its state while the mask is re-estimated, and extrapolates once that holds still.

A block is `mask_period` applications of f, and ends with an estimate of the image and the mask. See `ops/anderson`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from memrecon_fast import ops as operations
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.prox import Prox, make_prox
from memrecon_fast.engine.samples import Batch, Sample, Staged
from memrecon_fast.engine.slots import Slots, rows_at
from memrecon_fast.engine.transfer import to_device, upload
from memrecon_fast.ops import Ops, anderson
from memrecon_fast.ops.anderson import Anderson
from memrecon_fast.results import RUNNING, Status
from memrecon_fast.settings import Settings, SolverRecord
from memrecon_fast.solvers.attempts import count_attempts, load_staged, stage

EARLY_ESTIMATES = 6
"""Progressive precision: so many estimates in bfloat16, before those that are allowed."""
_VECTORS = {
    **dict.fromkeys(("residual", "score", "best_score", "milestone"), torch.float32),
    "gamma": torch.float64,
    **dict.fromkeys(("changed", "extrapolated"), torch.bool),
    **dict.fromkeys(("head", "filled", "base", "held", "stalled", "below", "iterations"), torch.int32),
    **dict.fromkeys(("accepted", "rejected", "mask_changes"), torch.int32),
    "status": torch.int8,
}
"""One entry for every slot."""


@dataclasses.dataclass(frozen=True)
class AcceleratedSlots(Slots):
    """18 + 8q bytes per pixel, with q = memory + 1; `ops/anderson/plain.py` says what the tensors are."""

    s: Tensor
    y: Tensor
    mask: Tensor
    best: Tensor
    best_mask: Tensor
    steps: Tensor
    residuals: Tensor
    gram: Tensor
    weights: Tensor
    coefficients: Tensor
    gamma: Tensor
    score: Tensor
    best_score: Tensor
    milestone: Tensor
    changed: Tensor
    extrapolated: Tensor
    head: Tensor
    filled: Tensor
    base: Tensor
    held: Tensor
    stalled: Tensor
    accepted: Tensor
    rejected: Tensor
    mask_changes: Tensor


@dataclasses.dataclass(frozen=True)
class AcceleratedSolver:
    """Advances slots by `mask_period` applications of f, and an estimate of the image and the mask."""

    prox: Prox
    ops: Ops
    anderson: Anderson
    backend: str
    """The name of `ops` and `anderson`."""
    settings: Settings
    known_masks: bool
    hands_over: bool = False
    """Whether what comes of the images is the last input of f, for another solver to go on from, instead of the
    estimates."""
    early: AcceleratedSolver | None = None
    """The solver that the images begin with: progressive precision."""

    finishes_at_load = False

    @property
    def attempts(self) -> int:
        """Pairs of γ and initial mask; the first one twice, where it begins with another solver."""
        return count_attempts(self.settings, self.known_masks, first_twice=self.early is not None)

    @property
    def recognized_below(self) -> float:
        """See `Settings`."""
        return self.settings.recognized_below

    def allocate(self, slots: int) -> AcceleratedSlots:
        """Empty slots."""
        pixels, device, places = self.prox.pixels, self.prox.device, self.settings.memory + 1

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(slots, *shape, dtype=dtype, device=device)

        return AcceleratedSlots(
            **{name: zeros(dtype=dtype) for name, dtype in _VECTORS.items()},
            **{name: zeros(pixels) for name in ("x", "s", "y", "best")},
            **{name: zeros(pixels, dtype=torch.bool) for name in ("mask", "best_mask")},
            **{name: zeros(places, pixels) for name in ("steps", "residuals")},
            gram=zeros(places, places, dtype=torch.float64),
            weights=zeros(places),
            coefficients=zeros(3),
        )

    def stage(self, sample: Sample) -> Staged:
        """What `load` needs of a sample."""
        return stage(sample, self.settings, self.prox, self.known_masks, first_twice=self.early is not None)

    def load(self, slots: AcceleratedSlots, staged: Sequence[Staged]) -> None:
        """Begin with these samples, one for each of the slots."""
        for name in (*_VECTORS, "x", "best"):
            getattr(slots, name).zero_()
        for score in (slots.best_score, slots.milestone):
            score.fill_(torch.inf)
        slots.status.fill_(RUNNING)
        if self.known_masks:
            slots.held.fill_(self.settings.settle)
        load_staged(staged, self.prox, slots.y, slots.mask, slots.gamma, slots.coefficients)
        slots.best_mask.copy_(slots.mask)
        self.ops.start(slots.s, slots.y, slots.mask, slots.coefficients)
        begun = [row for row, one in enumerate(staged) if "s" in one.images]
        if begun:
            states = torch.empty_like(slots.s[: len(begun)])
            upload([staged[row].images["s"] for row in begun], self.prox.as_images(states))
            slots.s.index_copy_(0, to_device(torch.tensor(begun, device="cpu"), slots.s.device), states)

    def advance(self, slots: AcceleratedSlots) -> None:
        """One block."""
        for evaluation in range(1, self.settings.mask_period + 1):
            v = self.prox(slots.s)
            self._measure(slots, v)
            if evaluation == self.settings.mask_period:
                self._estimate(slots, v)
            self._go_on(slots)

    def results(self, slots: AcceleratedSlots, indices: Tensor, samples: Sequence[Sample]) -> Batch:
        """The estimates: the last one where the image converged, otherwise the one with the lowest score."""
        of = rows_at(indices)
        status, iterations, y, mask = of(slots.status), of(slots.iterations), of(slots.y), of(slots.mask)
        observed = y.masked_fill(~mask, 0.0) if self.known_masks else y
        if self.hands_over:
            images, masks = of(slots.s), mask
        else:
            converged = (status == int(Status.CONVERGED))[:, None]
            images = torch.where(converged, of(slots.x), of(slots.best))
            masks = torch.where(converged, mask, of(slots.best_mask))
            if self.settings.restore_known_pixels:
                images = torch.where(masks, y, images)
        return Batch(
            samples=samples,
            images=images,
            masks=masks,
            observed=observed,
            outer_iterations=iterations,
            evaluations=iterations * self.settings.mask_period,
            status=status,
            residual=of(slots.residual),
            gamma=of(slots.gamma),
            accepted=of(slots.accepted),
            rejected=of(slots.rejected),
            mask_changes=of(slots.mask_changes),
        )

    def _measure(self, slots: AcceleratedSlots, v: Tensor) -> None:
        self.anderson.measure(
            slots.s,
            v,
            slots.y,
            slots.mask,
            slots.steps,
            slots.residuals,
            slots.gram,
            slots.head,
            slots.filled,
            slots.status,
            slots.coefficients,
        )

    def _estimate(self, slots: AcceleratedSlots, v: Tensor) -> None:
        self.anderson.estimate(
            slots.s,
            v,
            slots.y,
            slots.mask,
            slots.x,
            slots.best,
            slots.best_mask,
            slots.residual,
            slots.score,
            slots.best_score,
            slots.changed,
            slots.status,
            slots.coefficients,
            estimate_mask=not self.known_masks,
        )
        self.anderson.assess(
            slots.residual,
            slots.score,
            slots.milestone,
            slots.changed,
            slots.gram,
            slots.head,
            slots.filled,
            slots.extrapolated,
            slots.held,
            slots.stalled,
            slots.mask_changes,
            slots.iterations,
            slots.below,
            slots.status,
            tolerance=self.settings.tolerance,
            patience=self.settings.patience,
            stall=self.settings.stall,
            limit=self.settings.max_outer_iterations,
            size=self.prox.pixels,
        )

    def _go_on(self, slots: AcceleratedSlots) -> None:
        self.anderson.weigh(
            slots.gram,
            slots.head,
            slots.filled,
            slots.extrapolated,
            slots.base,
            slots.weights,
            slots.held,
            slots.accepted,
            slots.rejected,
            slots.status,
            settle=self.settings.settle,
        )
        self.anderson.mix(slots.s, slots.steps, slots.base, slots.weights, slots.status)


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
    functions = operations.load(backend), anderson.load(backend)
    early = None
    if settings.precision == "progressive":
        prox = make_prox(autoencoder, image_shape, device, "bfloat16")
        first = dataclasses.replace(
            settings, max_outer_iterations=EARLY_ESTIMATES, tolerance=0.0, stall=EARLY_ESTIMATES
        )
        early = AcceleratedSolver(prox, *functions, backend, first, known_masks, hands_over=True)
    number_format = "float32" if settings.precision == "progressive" else settings.precision
    prox = make_prox(autoencoder, image_shape, device, number_format)
    return AcceleratedSolver(prox, *functions, backend, settings, known_masks, early=early)


RECORD = SolverRecord(
    "accelerated",
    # Together they recover more than each alone; which one is best differs from net to net, see
    # benchmarks/results/accelerated.md.
    gammas=(0.2, 0.5, 1.0),
    reads=frozenset({"mask_period", "memory", "settle", "stall"}),
    prepare=prepare,
)
