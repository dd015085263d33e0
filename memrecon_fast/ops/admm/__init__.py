"""The operations of ADMM and of the iteration of f alone: `plain` (torch, any device), C++ (`ops/cpp.py`) and `triton`.

What the slots hold is described here: every buffer once, with its meaning.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import torch
from torch import Tensor

from memrecon_fast.ops.state import Order, State, per_row, pixels
from memrecon_fast.results import RUNNING


@dataclasses.dataclass(frozen=True, eq=False)
class Estimates(State):
    """What every solver has of an image."""

    x: Tensor = pixels()
    """The estimate of the image."""
    y: Tensor = pixels()
    """The degraded image."""
    residual: Tensor = per_row()
    """The MSE between the last two estimates, NaN where there was only one."""
    iterations: Tensor = per_row(torch.int32)
    """Estimates counted: those made, and those known to equal one that was."""
    below: Tensor = per_row(torch.int32)
    """Comparisons running that were below the tolerance."""
    status: Tensor = per_row(torch.int8)
    """RUNNING, or a `Status`: such a slot changes no more until it is loaded again."""

    def begin(self) -> None:
        """Make these the slots of images that are loaded: with an estimate of zero, and all counters at zero."""
        self.x.zero_()
        self.zero()
        self.status.fill_(RUNNING)


@dataclasses.dataclass(frozen=True, eq=False)
class IterationState(Estimates):
    """With what `stop` needs to know that estimates repeat: the state of the iteration of f alone."""

    settled: Tensor = per_row(torch.bool)
    """The mask was estimated as it was before: all estimates to come are known to equal this one."""
    recurs: Tensor = per_row(torch.bool)
    """The mask was estimated as the anchor is: what follows is what followed that one."""
    renew: Tensor = per_row(torch.bool)
    """The anchor is to become the present mask before that is estimated again."""
    blocks: Tensor = per_row(torch.int32)
    """Estimates computed."""
    anchored: Tensor = per_row(torch.int32)
    """The number of the estimate that the anchor was made by; 0: none yet."""
    period: Tensor = per_row(torch.int32)
    """After how many estimates the anchor last recurred; 0: never."""


@dataclasses.dataclass(frozen=True, eq=False)
class SplitState(Estimates):
    """With what ADMM has of an image, in its form with a single state; v = f(s) is not kept."""

    s: Tensor = pixels()
    """ξ + u, what enters the autoencoder next."""
    mask: Tensor = pixels(torch.bool)
    """Θ, True = kept."""
    coefficients: Tensor = per_row(torch.float32, 3)
    """g, g − 1 and 1/(1+g), see `plain.coefficients`: γ may differ from row to row."""
    gamma: Tensor = per_row(torch.float64)
    """γ = 2g."""


@dataclasses.dataclass(frozen=True, eq=False)
class AdmmState(SplitState, IterationState):
    """The state of the paper's solver."""

    anchor: Tensor = pixels(torch.bool)
    """The mask as it was estimated some time ago."""


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs(State):
    """Two batches of images that are compared."""

    a: Tensor = pixels()
    b: Tensor = pixels()
    out: Tensor = per_row()
    """Of each pair one number."""

    may_share = frozenset("ab")


START = Order("s! y mask coefficients")
STEP = Order("s! v y mask coefficients")
CLOSE = Order("s! v y mask! anchor! x! residual! settled! recurs! renew status coefficients")
ADVANCE = Order("x! v residual! status")
MEAN_SQUARES = Order("a b out!")
STOP = Order("residual! settled recurs renew! iterations! blocks! below! anchored! period! status!")


class Admm(Protocol):
    """What every implementation offers; `plain` says what each function does."""

    def start(self, state: SplitState) -> None:
        """Begin an inner loop."""

    def step(self, state: SplitState, v: Tensor) -> None:
        """One ADMM iteration."""

    def close(self, state: AdmmState, v: Tensor, *, estimate_mask: bool) -> None:
        """End an outer iteration and begin the next one."""

    def advance(self, state: IterationState, v: Tensor) -> None:
        """One iteration of the autoencoder alone."""

    def mean_squares(self, a: Tensor, b: Tensor, out: Tensor) -> None:
        """How far images are from others."""

    def stop(
        self, state: IterationState, *, tolerance: float, patience: int, limit: int, first_comparison: int
    ) -> None:
        """Count one more estimate, and say which images are done."""
