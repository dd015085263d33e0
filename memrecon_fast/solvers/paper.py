"""The paper's solver, (6)-(7) with Algorithm 1, in its single-state form; a block is one outer iteration."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.prox import Prox, make_prox
from memrecon_fast.engine.samples import Batch, Sample, Staged
from memrecon_fast.engine.transfer import working_on
from memrecon_fast.ops import Operations, load
from memrecon_fast.ops.admm import AdmmState
from memrecon_fast.settings import Settings, SolverRecord
from memrecon_fast.solvers.attempts import admit_staged, count_attempts, stage

EARLY_OUTER_ITERATIONS = 8
"""Progressive precision: at most this many outer iterations in bfloat16 ..."""
MIN_OUTER_ITERATIONS = 3 * EARLY_OUTER_ITERATIONS
"""... and none where fewer than this are allowed in all."""


@dataclasses.dataclass(frozen=True)
class FirstIteration:
    """The end of the first outer iteration from an all-zeros mask, the same for every image: s and v, each [d]."""

    s: Tensor
    v: Tensor


@dataclasses.dataclass(frozen=True)
class PaperSolver:
    """Advances slots by outer iterations of inner_iterations − 1 applications of f each: the last one's is not used.

    An outer iteration restarts from zero, so its result depends on the mask alone. Once a mask has been estimated
    twice, all further outer iterations repeat what came in between: they are counted, not computed (`stop`). That
    takes f to be a function: the same image in, the same image out.
    """

    prox: Prox
    ops: Operations
    settings: Settings
    known_masks: bool
    first_iteration: FirstIteration | None
    """Given where the mask is unknown and all images start from zeros."""
    early: PaperSolver | None = None
    """The solver whose estimates of the masks the images begin with: progressive precision."""

    @property
    def attempts(self) -> int:
        """Pairs of γ and initial mask."""
        return count_attempts(self.settings, self.known_masks)

    @property
    def recognized_below(self) -> float:
        """See `Settings`."""
        return self.settings.recognized_below

    @property
    def finishes_at_admission(self) -> bool:
        """Whether an image may be done once it is admitted."""
        return self.first_iteration is not None

    def allocate(self, slots: int) -> AdmmState:
        """Empty slots."""
        return AdmmState.allocate(slots, self.prox.pixels, self.prox.device)

    def stage(self, sample: Sample) -> Staged:
        """What `admit` needs of a sample."""
        return stage(sample, self.settings, self.prox, self.known_masks)

    def admit(self, slots: AdmmState, staged: Sequence[Staged]) -> None:
        """Begin with these samples, one for each of the slots."""
        slots.begin()
        admit_staged(staged, self.prox, slots)
        if self.first_iteration is None:
            self.ops.admm.start(slots)
        else:
            slots.s.copy_(self.first_iteration.s.expand_as(slots.s))
            self._close(slots, self.first_iteration.v.expand_as(slots.s).contiguous())

    def advance(self, slots: AdmmState) -> None:
        """One outer iteration."""
        for _ in range(self.settings.inner_iterations - 2):
            self.ops.admm.step(slots, self.prox(slots.s))
        self._close(slots, self.prox(slots.s))

    def results(self, slots: AdmmState, indices: Tensor, samples: Sequence[Sample]) -> Batch:
        """The estimates, with known masks after (31)."""
        rows = slots.at(indices)
        x, y, mask = rows("x"), rows("y"), rows("mask")
        restores = self.known_masks and self.settings.restore_known_pixels
        shared = 0 if self.first_iteration is None else 1
        return Batch(
            samples=samples,
            images=torch.where(mask, y, x) if restores else x,
            masks=mask,
            observed=y.masked_fill(~mask, 0.0) if self.known_masks else y,
            outer_iterations=rows("iterations"),
            evaluations=(rows("blocks") - shared) * (self.settings.inner_iterations - 1),
            status=rows("status"),
            residual=rows("residual"),
            gamma=rows("gamma"),
        )

    def _close(self, slots: AdmmState, v: Tensor) -> None:
        self.ops.admm.close(slots, v, estimate_mask=not self.known_masks)
        self.ops.admm.stop(
            slots,
            tolerance=self.settings.stop_below,
            patience=self.settings.comparisons,
            limit=1 if self.known_masks else self.settings.max_outer_iterations,
            first_comparison=2,
        )


def make_paper_solver(prox: Prox, ops: Operations, settings: Settings, known_masks: bool) -> PaperSolver:
    """The solver for this autoencoder; computes the shared first iteration where there is one."""
    shared = None
    if settings.initial_mask == "zeros" and settings.starts == 1 and not known_masks:
        with working_on(prox.device):
            s = torch.zeros(prox.block_sizes(1)[0], prox.pixels, dtype=torch.float32, device=prox.device)
            for _ in range(settings.inner_iterations - 2):
                s.copy_(prox(s))  # the step with Θ = 0
            shared = FirstIteration(s[0].clone(), prox(s)[0].clone())  # f may answer in memory that it uses again
    return PaperSolver(prox, ops, settings, known_masks, shared)


def prepare(
    autoencoder: Autoencoder,
    image_shape: Sequence[int],
    settings: Settings,
    *,
    known_masks: bool,
    backend: str,
    device: torch.device,
) -> PaperSolver:
    """See `SolverRecord.prepare`."""
    ops = load(backend)
    if settings.precision != "progressive":
        prox = make_prox(autoencoder, image_shape, device, settings.precision)
        return make_paper_solver(prox, ops, settings, known_masks)
    prox = make_prox(autoencoder, image_shape, device)
    if known_masks or settings.max_outer_iterations < MIN_OUTER_ITERATIONS:
        return make_paper_solver(prox, ops, settings, known_masks)
    early_prox = make_prox(autoencoder, image_shape, device, "bfloat16")
    early = dataclasses.replace(settings, max_outer_iterations=EARLY_OUTER_ITERATIONS)
    late = dataclasses.replace(settings, max_outer_iterations=settings.max_outer_iterations - EARLY_OUTER_ITERATIONS)
    return PaperSolver(
        prox,
        ops,
        late,
        known_masks=False,
        first_iteration=None,
        early=make_paper_solver(early_prox, ops, early, known_masks=False),
    )


RECORD = SolverRecord("paper", gammas=(0.5,), reads=frozenset({"inner_iterations"}), prepare=prepare)
