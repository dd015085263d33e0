"""The functions of the accelerated solver: `plain` (torch, any device), `cpu` (C++) and `triton` (GPUs)."""

from __future__ import annotations

import importlib
from typing import Protocol, cast

from torch import Tensor

_MODULES = {
    "torch": "memrecon_fast.ops.anderson.plain",
    "cpp": "memrecon_fast.ops.anderson.cpp",
    "triton": "memrecon_fast.ops.anderson.triton",
}


class Anderson(Protocol):
    """What every implementation offers; `plain` says what each function does, and what the buffers are."""

    def measure(
        self,
        s: Tensor,
        v: Tensor,
        y: Tensor,
        mask: Tensor,
        steps: Tensor,
        residuals: Tensor,
        gram: Tensor,
        head: Tensor,
        filled: Tensor,
        status: Tensor,
        coefficients: Tensor,
    ) -> None:
        """One more evaluation into the ring."""

    def estimate(
        self,
        s: Tensor,
        v: Tensor,
        y: Tensor,
        mask: Tensor,
        x: Tensor,
        best: Tensor,
        best_mask: Tensor,
        residual: Tensor,
        score: Tensor,
        best_score: Tensor,
        changed: Tensor,
        status: Tensor,
        coefficients: Tensor,
        estimate_mask: bool,
    ) -> None:
        """Estimates of the image and the mask."""

    def assess(
        self,
        residual: Tensor,
        score: Tensor,
        milestone: Tensor,
        changed: Tensor,
        gram: Tensor,
        head: Tensor,
        filled: Tensor,
        extrapolated: Tensor,
        held: Tensor,
        stalled: Tensor,
        mask_changes: Tensor,
        iterations: Tensor,
        below: Tensor,
        status: Tensor,
        tolerance: float,
        patience: int,
        stall: int,
        limit: int,
        size: int,
    ) -> None:
        """Count one more estimate, and say which images are done."""

    def weigh(
        self,
        gram: Tensor,
        head: Tensor,
        filled: Tensor,
        extrapolated: Tensor,
        base: Tensor,
        weights: Tensor,
        held: Tensor,
        accepted: Tensor,
        rejected: Tensor,
        status: Tensor,
        settle: int,
    ) -> None:
        """Decide how the image goes on."""

    def mix(self, s: Tensor, steps: Tensor, base: Tensor, weights: Tensor, status: Tensor) -> None:
        """The next input of f."""


def load(backend: str) -> Anderson:
    """The functions of a backend that `ops.choose` found to be available."""
    return cast(Anderson, importlib.import_module(_MODULES[backend]))
