"""The even model: what remains of the features when each image's sign is left open.

relu(t) = (|t| + t)/2, and so, with w_i = |a_i| u_i and s_i = sign a_i, of rows g and images in the directions u_i,

    θ_k = ½ Σ_i s_i |g_k·w_i| + g_k·b,        b = ½ Σ_i a_i u_i.

With b left free, no image's sign matters: the local minima that wrong signs make are gone, for d more unknowns.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import torch
from torch import Tensor, nn

from memrecon_fast.reconstruction.rows import Rows

_JITTER = 1e-4
"""Of the preconditioner's diagonal: images in nearly the same direction would make it singular."""


@dataclasses.dataclass(frozen=True, eq=False)
class Even:
    """Where the solver is: n images of d numbers, without their signs."""

    images: Tensor
    """w, float64 (n, d): in the direction of the image, as long as its coefficient is large."""
    signs: Tensor
    """s, float64 (n,): of the coefficients, ±1."""
    offset: Tensor
    """b, float64 (d,)."""

    @property
    def unknowns(self) -> Tensor:
        """(d, n + 1): w and b, side by side."""
        return torch.cat([self.images.T, self.offset[:, None]], dim=1)

    @property
    def directions(self) -> Tensor:
        """(n, d), of length 1."""
        return nn.functional.normalize(self.images, dim=1)

    def moved(self, step: Tensor) -> Even:
        """By a step (d, n + 1)."""
        return Even(self.images + step[:, :-1].T, self.signs, self.offset + step[:, -1])


@dataclasses.dataclass(frozen=True, eq=False)
class Linearised:
    """The model at a point, with what Gauss–Newton steps need."""

    rows: Rows
    at: Even
    residual: Tensor
    """r = θ − model, float64 (p,)."""
    sides: Tensor
    """sign of g_k·w_i, int8 (n, p): all that the Jacobian needs of it."""
    gradient: Tensor
    """Jᵀr (d, n + 1): the direction of steepest descent."""

    @property
    def loss(self) -> float:
        """‖r‖²."""
        return float(self.residual @ self.residual)

    def product(self, step: Tensor) -> Tensor:
        """JᵀJ·step, (d, n + 1): one read of V for all images."""
        self.rows.passed(2)
        left = step.T.contiguous()
        found = torch.zeros_like(left)
        for block in self.rows.blocks():
            jacobian = _jacobian_factor(self.sides[:, block.where], self.at.signs)
            along = block.times(left).mul_(jacobian).sum(dim=0)
            block.add_to(found, jacobian.mul_(along))
        return found.T

    def metric(self, step: Tensor) -> Tensor:
        """What JᵀJ is on average over Gaussian rows, times a step."""
        return self.rows.count * torch.cat([step[:, :-1] @ self._between, step[:, -1:]], dim=1)

    def solve_metric(self, right: Tensor) -> Tensor:
        """The inverse of `metric`."""
        images = torch.cholesky_solve(right[:, :-1].T, self._factor).T
        return torch.cat([images, right[:, -1:]], dim=1) / self.rows.count

    @functools.cached_property
    def _between(self) -> Tensor:
        """(n, n): E[¼ s_i s_j sgn(g·w_i) sgn(g·w_j) g gᵀ] is (¼ − angle/2π) s_i s_j I, and a part that is left out."""
        return between(self.at.directions, self.at.signs, 0.25)

    @functools.cached_property
    def _factor(self) -> Tensor:
        factor: Tensor = torch.linalg.cholesky(self._between)
        return factor


def between(directions: Tensor, signs: Tensor, same: float) -> Tensor:
    """(n, n), positive definite: (same − angle/2π) s_i s_j of images in these directions (n, d), `same` for an image
    with itself."""
    angles = torch.arccos((directions @ directions.T).clamp(-1, 1)).fill_diagonal_(0)
    found: Tensor = signs[:, None] * signs * (same - angles / (2 * math.pi))
    found.diagonal().mul_(1 + _JITTER)
    return found


def linearise(rows: Rows, at: Even) -> Linearised:
    """The model at a point: one read of V for all images."""
    rows.passed(2)
    unknowns = at.unknowns.T.contiguous()
    residual = torch.empty_like(rows.theta)
    sides = torch.empty(len(at.signs), rows.count, dtype=torch.int8)
    gradient = torch.zeros_like(unknowns)
    for block in rows.blocks():
        products, here = block.times(unknowns), sides[:, block.where]
        here.copy_(torch.sign(products[:-1]))
        left = rows.theta[block.where] - 0.5 * (at.signs @ products[:-1].abs_()) - products[-1]
        residual[block.where] = left
        block.add_to(gradient, _jacobian_factor(here, at.signs).mul_(left))
    return Linearised(rows, at, residual, sides, gradient.T)


def _jacobian_factor(sides: Tensor, signs: Tensor) -> Tensor:
    """∂model_k/∂(w_i, b) = factor_ki·g_k: ½ s_i sgn(g_k·w_i), and 1 for b; (n + 1, p)."""
    factor = torch.empty(len(signs) + 1, sides.shape[1], dtype=torch.float64)
    torch.mul(sides, 0.5 * signs[:, None], out=factor[:-1])
    factor[-1] = 1
    return factor
