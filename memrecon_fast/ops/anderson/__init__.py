"""The operations of the accelerated solver: `plain` (torch, any device), C++ (`ops/cpp.py`) and `triton`.

What the slots hold beside ADMM's own is described here.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from memrecon_fast.ops.admm import SplitState
from memrecon_fast.ops.state import Order, per_row, pixels, place


@dataclasses.dataclass(frozen=True, eq=False)
class AndersonState(SplitState):
    """18 + 8q bytes per pixel. The last q = memory + 1 evaluations are kept in a ring."""

    not_read_at_first: ClassVar[frozenset[str]] = frozenset({"steps", "residuals"})
    steps: Tensor = per_row(torch.float32, "q", "d")
    """G(s_i), where ADMM would go on from evaluation i."""
    residuals: Tensor = per_row(torch.float32, "q", "d")
    """r_i = G(s_i) − s_i."""
    gram: Tensor = per_row(torch.float64, "q", "q")
    """The dot products of the residuals."""
    weights: Tensor = per_row(torch.float32, "q")
    """Of the differences of the steps to that at `base`."""
    head: Tensor = place()
    """Of the newest evaluation, or of the next one."""
    filled: Tensor = per_row(torch.int32)
    """How many evaluations before that one the extrapolation may use, in [0, q)."""
    base: Tensor = place()
    """Of the evaluation whose step is the next s, but for the weights."""
    extrapolated: Tensor = per_row(torch.bool)
    """s is no plain step."""
    accepted: Tensor = per_row(torch.int32)
    """Accepted extrapolations: the residual did not grow."""
    rejected: Tensor = per_row(torch.int32)
    """Rejected extrapolations."""
    best: Tensor = pixels()
    """The estimate with the lowest score so far."""
    best_mask: Tensor = pixels(torch.bool)
    """The mask that was estimated from it."""
    best_score: Tensor = per_row()
    """Its score."""
    score: Tensor = per_row()
    """Of the last estimate: ‖v − x‖²/d, which is the primal residual of ADMM, and the misfit to the degraded image."""
    milestone: Tensor = per_row()
    """The score of the last estimate that was progress, infinite before."""
    stalled: Tensor = per_row(torch.int32)
    """Estimates running that were no progress, those that had settled several times."""
    changed: Tensor = per_row(torch.bool)
    """The last estimate of the mask differs from the one before."""
    held: Tensor = per_row(torch.int32)
    """Estimates of the mask running that changed nothing."""
    mask_changes: Tensor = per_row(torch.int32)
    """Estimates of the mask that changed it."""


MEASURE = Order("s v y mask steps! residuals! gram! head filled status coefficients")
ESTIMATE = Order("s v y mask! x! best! best_mask! residual! score! best_score! changed! status coefficients")
STOP = Order(
    "residual! score milestone! changed gram head filled! extrapolated! "
    "held! stalled! mask_changes! iterations! below! status!"
)
WEIGH = Order("gram head! filled! extrapolated! base! weights! held accepted! rejected! status")
MIX = Order("s! steps base weights status")


class Anderson(Protocol):
    """What every implementation offers; `plain` says what each function does."""

    def measure(self, state: AndersonState, v: Tensor) -> None:
        """One more evaluation into the ring."""

    def estimate(self, state: AndersonState, v: Tensor, *, estimate_mask: bool) -> None:
        """Estimates of the image and the mask."""

    def stop(
        self, state: AndersonState, *, tolerance: float, patience: int, stall: int, settled_counts: int, limit: int
    ) -> None:
        """Count one more estimate, and say which images are done."""

    def weigh(self, state: AndersonState, *, settle: int) -> None:
        """Decide how the image goes on."""

    def mix(self, state: AndersonState) -> None:
        """The next input of f."""
