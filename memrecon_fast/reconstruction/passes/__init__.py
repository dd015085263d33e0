"""What the solver of ReLU models spends its time on: passes over V, each of which reads it once.

The model is θ_k = Σ_q c_q f(g_k·w_q), with a kink f(t) = |t| or relu(t) in every column, but perhaps the last. Only the
side f'(t) on which each product lies is kept for the Jacobian, c_q f'(g_k·w_q) g_k.

`plain` says what each pass does, `cpp` (CPUs) is fast; `triton` (GPUs) is not called yet, for the rest of the solver
works on the CPU.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from typing import Protocol

import torch
from torch import Tensor

from memrecon_fast import ops
from memrecon_fast.reconstruction.rows import Rows


@dataclasses.dataclass(frozen=True, eq=False)
class Kinked:
    """The model at a point."""

    columns: Tensor
    """w, float64 (d, m), contiguous."""
    factors: Tensor
    """c, float64 (m,)."""
    rectified: bool
    """f is relu, f' 1 or 0; else f(t) = |t| and f' is 1, −1, or 0 at 0."""
    last_is_linear: bool
    """In the last column f(t) = t, and f' is 1."""


class Passes(Protocol):
    """What an implementation has."""

    def linearise(self, rows: Rows, model: Kinked) -> tuple[Tensor, Tensor, Tensor]:
        """residual, r = θ − model, float64 (p,); sides, f', int8 (p, m or more); gradient, Jᵀr, float64 (d, m)."""

    def product(self, rows: Rows, factors: Tensor, sides: Tensor, step: Tensor) -> Tensor:
        """JᵀJ·step, step (d, m); sides as from `linearise`."""

    def product_of_slopes(self, rows: Rows, slopes: Tensor, step: Tensor) -> Tensor:
        """The same for any slopes in place of c f', float64 (p, m), contiguous."""


@functools.cache
def choose() -> Passes:
    """The fastest for CPUs; warns (RuntimeWarning) where that is torch, as the compiled kernels are missing."""
    name = {"cpp": "cpp", "torch": "plain"}[ops.choose("auto", torch.device("cpu")).backend]
    found: Passes = importlib.import_module(f"{__name__}.{name}")
    return found
