"""The ReLU model itself, once the signs are known: θ_k = Σ_i s_i relu(g_k·v_i), v_i = |a_i| u_i.

It has no offset of its own, as the even model has: d unknowns fewer, which matters where θ is noisy.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import torch
from torch import Tensor, nn

from memrecon_fast.reconstruction.even import between
from memrecon_fast.reconstruction.gauss_newton import Damping, improve
from memrecon_fast.reconstruction.rows import Rows

_LEAST_PROGRESS = 1e-4
"""Of ‖r‖²: with less in a step, what is left is noise."""


@dataclasses.dataclass(frozen=True, eq=False)
class Signed:
    """Where the solver is."""

    images: Tensor
    """v, float64 (n, d): in the direction of the image, as long as its coefficient is large."""
    signs: Tensor
    """s, float64 (n,): of the coefficients, ±1."""

    def moved(self, step: Tensor) -> Signed:
        """By a step (d, n)."""
        return Signed(self.images + step.T, self.signs)


@dataclasses.dataclass(frozen=True, eq=False)
class LinearisedSigned:
    """The model at a point, with what Gauss–Newton steps need; see `gauss_newton.Linear`."""

    rows: Rows
    at: Signed
    loss: float
    """‖r‖²."""
    on: Tensor
    """bool (n, p): where g_k·v_i > 0."""
    gradient: Tensor
    """Jᵀr (d, n): the direction of steepest descent."""

    def product(self, step: Tensor) -> Tensor:
        """JᵀJ·step, (d, n): one read of V for all images."""
        self.rows.passed(2)
        left = step.T.contiguous()
        found = torch.zeros_like(left)
        for block in self.rows.blocks():
            jacobian = self.on[:, block.where] * self.at.signs[:, None]
            along = block.times(left).mul_(jacobian).sum(dim=0)
            block.add_to(found, jacobian.mul_(along))
        return found.T

    def metric(self, step: Tensor) -> Tensor:
        """What JᵀJ is on average over Gaussian rows, roughly, times a step."""
        return self.rows.count * (step @ self._between)

    def solve_metric(self, right: Tensor) -> Tensor:
        """The inverse of `metric`."""
        solved: Tensor = torch.cholesky_solve(right.T, self._factor).T / self.rows.count
        return solved

    @functools.cached_property
    def _between(self) -> Tensor:
        """(n, n): E[s_i s_j 1(g·v_i > 0) 1(g·v_j > 0) g gᵀ] is (½ − angle/2π) s_i s_j I, but for a part."""
        return between(nn.functional.normalize(self.at.images, dim=1), self.at.signs, 0.5)

    @functools.cached_property
    def _factor(self) -> Tensor:
        factor: Tensor = torch.linalg.cholesky(self._between)
        return factor


def linearise_signed(rows: Rows, at: Signed) -> LinearisedSigned:
    """The model at a point: one read of V for all images."""
    rows.passed(2)
    loss = 0.0
    on = torch.empty(len(at.signs), rows.count, dtype=torch.bool)
    gradient = torch.zeros_like(at.images)
    for block in rows.blocks():
        products, here = block.times(at.images), on[:, block.where]
        here.copy_(products > 0)
        residual = rows.theta[block.where] - at.signs @ products.clamp_min_(0)
        loss += float(residual @ residual)
        block.add_to(gradient, (here * at.signs[:, None]).mul_(residual))
    return LinearisedSigned(rows, at, loss, on, gradient.T)


def descend_signed(rows: Rows, at: Signed, steps: int, end: float) -> LinearisedSigned:
    """At most so many Gauss–Newton steps, until ‖r‖/‖θ‖ is below `end` or hardly falls."""
    here, damping, norm = linearise_signed(rows, at), Damping(), float(rows.theta.norm())
    for _ in range(steps):
        if math.sqrt(here.loss) <= end * norm or damping.is_hopeless:
            break
        before = here.loss
        here = improve(here, functools.partial(linearise_signed, rows), damping)
        rows.effort.step(len(at.signs), math.sqrt(here.loss) / norm)
        if 0 < before - here.loss < _LEAST_PROGRESS * before:
            break
    return here
