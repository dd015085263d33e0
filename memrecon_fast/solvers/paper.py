"""The paper's solver, (6)-(7) with Algorithm 1, in its single-state form; a block is one outer iteration."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from memrecon_fast.ops import Ops
from memrecon_fast.prox import Prox
from memrecon_fast.settings import Settings
from memrecon_fast.solvers.samples import Sample
from memrecon_fast.solvers.slots import Slots, clear, common_buffers, judge


@dataclasses.dataclass(frozen=True)
class PaperSlots(Slots):
    """The state of Algorithm 1 beside the estimate; v = f(s) lives within one block only."""

    s: Tensor
    """float32 [S, d]: ξ + u, what enters the autoencoder next."""
    y: Tensor
    """float32 [S, d]: the degraded image."""
    mask: Tensor
    """bool [S, d]: Θ, True = kept."""


@dataclasses.dataclass(frozen=True)
class FirstIteration:
    """The end of the first outer iteration from an all-zeros mask, the same for every image: s and v, each [d]."""

    s: Tensor
    v: Tensor


@dataclasses.dataclass(frozen=True)
class PaperSolver:
    """Advances slots by outer iterations of inner_iterations − 1 applications of f each: the last one's is not used."""

    prox: Prox
    ops: Ops
    backend: str
    """The name of `ops`."""
    settings: Settings
    known_masks: bool
    first_iteration: FirstIteration | None
    """Given where the mask is unknown and starts from zeros."""

    def allocate(self, slots: int) -> PaperSlots:
        """Empty slots."""
        pixels, device = self.prox.pixels, self.prox.device
        return PaperSlots(
            **common_buffers(slots, pixels, device),
            s=torch.zeros(slots, pixels, dtype=torch.float32, device=device),
            y=torch.zeros(slots, pixels, dtype=torch.float32, device=device),
            mask=torch.zeros(slots, pixels, dtype=torch.bool, device=device),
        )

    def load(self, slots: PaperSlots, samples: Sequence[Sample]) -> None:
        """Begin with these samples, one for each of the slots."""
        clear(slots)
        slots.y.copy_(self.prox.to_rows(torch.stack([sample.degraded for sample in samples])))
        slots.mask.copy_(self.prox.to_rows(torch.stack([self._initial_mask(sample) for sample in samples])))
        if self.first_iteration is None:
            self.ops.start(slots.s, slots.y, slots.mask, self.settings.gamma)
        else:
            slots.s.copy_(self.first_iteration.s.expand_as(slots.s))
            self._close(slots, self.first_iteration.v.expand_as(slots.s).contiguous())

    def advance(self, slots: PaperSlots) -> None:
        """One outer iteration."""
        for _ in range(self.settings.inner_iterations - 2):
            v = self.prox(slots.s)
            self.ops.step(slots.s, v, slots.y, slots.mask, self.settings.gamma)
        self._close(slots, self.prox(slots.s))

    def estimate(self, slots: PaperSlots, slot: int) -> Tensor:
        """The image in this slot, [d]; with a known mask after (31)."""
        if self.known_masks and self.settings.restore_known_pixels:
            return torch.where(slots.mask[slot], slots.y[slot], slots.x[slot])
        return slots.x[slot]

    def mask(self, slots: PaperSlots, slot: int) -> Tensor:
        """The mask in this slot, [d]."""
        return slots.mask[slot]

    def evaluations(self, outer_iterations: int) -> int:
        """Applications of f for one image that made this many outer iterations."""
        shared = 0 if self.first_iteration is None else 1
        return (outer_iterations - shared) * (self.settings.inner_iterations - 1)

    def _close(self, slots: PaperSlots, v: Tensor) -> None:
        settings = self.settings
        estimate_mask = not self.known_masks
        self.ops.close(slots.s, v, slots.y, slots.mask, slots.x, slots.residual, settings.gamma, estimate_mask)
        judge(
            slots,
            tolerance=settings.tolerance,
            patience=settings.patience,
            limit=1 if self.known_masks else settings.max_outer_iterations,
            first_comparison=2,
        )

    def _initial_mask(self, sample: Sample) -> Tensor:
        if self.known_masks:
            if sample.mask is None:
                raise ValueError(f"image {sample.index} comes without its mask")
            return sample.mask
        return self.settings.draw_initial_mask(sample.index, self.prox.image_shape)


def make_paper_solver(prox: Prox, ops: Ops, backend: str, settings: Settings, known_masks: bool) -> PaperSolver:
    """The solver for this autoencoder; computes the shared first iteration where there is one."""
    shared = None
    if settings.initial_mask == "zeros" and not known_masks:
        with torch.inference_mode():
            s = torch.zeros(prox.row_multiple, prox.pixels, dtype=torch.float32, device=prox.device)
            for _ in range(settings.inner_iterations - 2):
                s.copy_(prox(s))  # the step with Θ = 0
            shared = FirstIteration(s[0].clone(), prox(s)[0].clone())  # f may answer in memory that it uses again
    return PaperSolver(prox, ops, backend, settings, known_masks, shared)
