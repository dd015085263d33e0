"""A ReLU model at a point, linearised: what Gauss–Newton steps need of it."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from memrecon_fast.reconstruction import passes
from memrecon_fast.reconstruction.passes import Kinked
from memrecon_fast.reconstruction.rows import Rows

_JITTER = 1e-4
"""Of the preconditioner's diagonal: images in nearly the same direction would make it singular."""


class Point(Protocol):
    """Where the solver is."""

    @property
    def signs(self) -> Tensor:
        """(n,)."""

    @property
    def model(self) -> Kinked:
        """Its first n columns are the images; what comes after them is linear."""

    @property
    def between(self) -> Tensor:
        """(n, n), positive definite: roughly what JᵀJ is between two images, on average over Gaussian rows, times I."""

    def moved(self, step: Tensor) -> Any:
        """By a step (d, columns of the model)."""


P = TypeVar("P", bound=Point)


@dataclasses.dataclass(frozen=True, eq=False)
class Linearised(Generic[P]):
    """See `linearise`."""

    rows: Rows
    at: P
    factors: Tensor
    """c of its model."""
    residual: Tensor
    """r = θ − model, float64 (p,)."""
    kinks: Tensor
    """The sides of all products, see `passes`."""
    gradient: Tensor
    """Jᵀr (d, m): the direction of steepest descent."""

    @functools.cached_property
    def loss(self) -> float:
        """‖r‖²."""
        return float(self.residual @ self.residual)

    @property
    def sides(self) -> Tensor:
        """On which each row's product with each image is, int8 (n, p)."""
        return self.kinks[:, : len(self.at.signs)].T

    def product(self, step: Tensor) -> Tensor:
        """JᵀJ·step, (d, m): one read of V for all images."""
        return passes.choose().product(self.rows, self.factors, self.kinks, step)

    def metric(self, step: Tensor) -> Tensor:
        """What JᵀJ is on average over Gaussian rows, roughly, times a step."""
        count = len(self.at.signs)
        return self.rows.count * torch.cat([step[:, :count] @ self._between, step[:, count:]], dim=1)

    def solve_metric(self, right: Tensor) -> Tensor:
        """The inverse of `metric`."""
        count = len(self.at.signs)
        images = torch.cholesky_solve(right[:, :count].T, self._factor).T
        return torch.cat([images, right[:, count:]], dim=1) / self.rows.count

    @functools.cached_property
    def _between(self) -> Tensor:
        return self.at.between

    @functools.cached_property
    def _factor(self) -> Tensor:
        factor: Tensor = torch.linalg.cholesky(self._between)
        return factor


def linearise(rows: Rows, at: P) -> Linearised[P]:
    """The model at a point: one read of V for all images."""
    model = at.model
    return Linearised(rows, at, model.factors, *passes.choose().linearise(rows, model))


def between(directions: Tensor, signs: Tensor, same: float) -> Tensor:
    """(n, n), positive definite: (same − angle/2π) s_i s_j of images in these directions (n, d), `same` for an image
    with itself."""
    angles = torch.arccos((directions @ directions.T).clamp(-1, 1)).fill_diagonal_(0)
    found: Tensor = signs[:, None] * signs * (same - angles / (2 * math.pi))
    found.diagonal().mul_(1 + _JITTER)
    return found
