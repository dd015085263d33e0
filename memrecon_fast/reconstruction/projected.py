"""Variable projection: the loss of the paper, ‖P⊥ θ‖², by Gauss–Newton steps, for any features.

With the best coefficients α for the inputs x, r = θ − Φᵀα is P⊥ θ; Kaufman's Jacobian of it is −P⊥ Σ α_i Dφ(x_i). A
head with several outputs has a row of θ, and a column of α, for each. Inputs stay on the sphere ‖x‖ = √d (`OnSphere`),
or may have any length (`Anywhere`).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Protocol

import torch
from torch import Generator, Tensor, nn

from memrecon_fast.reconstruction.effort import Effort

_RIDGE = 1e-13
"""Of the mean diagonal of ΦΦᵀ: inputs that are nearly the same would make it singular."""
_LEAST_WEIGHT = 1e-9


class Features(Protocol):
    """φ and its derivatives, for n inputs (n, d) at once; everything float64."""

    def features(self, inputs: Tensor) -> Tensor:
        """φ(x_i) (n, p)."""

    def times(self, inputs: Tensor, steps: Tensor) -> Tensor:
        """Dφ(x_i)·step_i (n, p), steps (n, d)."""

    def transposed_times(self, inputs: Tensor, values: Tensor) -> Tensor:
        """Dφ(x_i)ᵀ·values_i (n, d), values (n, p)."""


@dataclasses.dataclass
class Counted:
    """Features that count passes: one for φ, two for a product with its derivative, which takes φ as well."""

    model: Features
    effort: Effort = dataclasses.field(default_factory=Effort)
    cost: float = 1.0
    """Of a pass, in passes over all features."""

    def features(self, inputs: Tensor) -> Tensor:
        """See `Features`."""
        self.effort.passes += self.cost
        return self.model.features(inputs)

    def times(self, inputs: Tensor, steps: Tensor) -> Tensor:
        """See `Features`."""
        self.effort.passes += 2 * self.cost
        return self.model.times(inputs, steps)

    def transposed_times(self, inputs: Tensor, values: Tensor) -> Tensor:
        """See `Features`."""
        self.effort.passes += 2 * self.cost
        return self.model.transposed_times(inputs, values)


@dataclasses.dataclass(frozen=True, eq=False)
class OnSphere:
    """Inputs (n, d), each of length √d."""

    inputs: Tensor

    def moved(self, step: Tensor) -> OnSphere:
        """By a step (n, d), and back to the sphere."""
        return OnSphere(onto_sphere(self.inputs + step))

    def along(self, steps: Tensor) -> Tensor:
        """Without the part that leaves the sphere."""
        return steps - (steps * self.inputs).sum(dim=1, keepdim=True) / self.inputs.shape[1] * self.inputs

    @classmethod
    def random(cls, count: int, d: int, generator: Generator) -> Tensor:
        """Inputs (count, d) to begin with."""
        return onto_sphere(torch.randn(count, d, generator=generator, dtype=torch.float64))


@dataclasses.dataclass(frozen=True, eq=False)
class Anywhere:
    """Inputs (n, d) of any length."""

    inputs: Tensor

    def moved(self, step: Tensor) -> Anywhere:
        """By a step (n, d)."""
        return Anywhere(self.inputs + step)

    def along(self, steps: Tensor) -> Tensor:
        """All of them."""
        return steps

    @classmethod
    def random(cls, count: int, d: int, generator: Generator) -> Tensor:
        """Inputs (count, d) to begin with, of lengths of about √d."""
        return torch.randn(count, d, generator=generator, dtype=torch.float64)


Place = OnSphere | Anywhere


def onto_sphere(inputs: Tensor) -> Tensor:
    """In the same directions, of length √d."""
    return math.sqrt(inputs.shape[1]) * nn.functional.normalize(inputs, dim=1)


@dataclasses.dataclass(frozen=True, eq=False)
class Projected:
    """The loss at a point, with what Gauss–Newton steps need; see `gauss_newton.Linear`."""

    model: Features
    at: Place
    features: Tensor
    """Φ (n, p)."""
    factor: Tensor
    """Cholesky factor of ΦΦᵀ (n, n)."""
    coefficients: Tensor
    """α (n, outputs)."""
    residual: Tensor
    """r (outputs, p)."""
    gradient: Tensor
    """Jᵀr (n, d), along what `at` allows: the direction of steepest descent."""

    @property
    def loss(self) -> float:
        """‖r‖²."""
        return float(self.residual.square().sum())

    def product(self, step: Tensor) -> Tensor:
        """JᵀJ·step."""
        moved = self.coefficients.T @ self.model.times(self.at.inputs, self.at.along(step))
        explained = torch.cholesky_solve(self.features @ moved.T, self.factor).T @ self.features
        return _transposed(self.model, self.at, self.coefficients, moved - explained)

    def metric(self, step: Tensor) -> Tensor:
        """What JᵀJ would be if inputs and directions were independent, times a step."""
        return self._weights * step

    def solve_metric(self, right: Tensor) -> Tensor:
        """The inverse of `metric`."""
        return right / self._weights

    @functools.cached_property
    def _weights(self) -> Tensor:
        """(n, 1): |α_i|² times about ‖Dφ(x_i) e‖² of a direction e of length 1."""
        inputs = self.at.inputs
        probe = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(0), dtype=inputs.dtype)
        stiffness = self.model.times(inputs, nn.functional.normalize(probe, dim=1)).square().sum(dim=1)
        weights = self.coefficients.square().sum(dim=1) * stiffness
        return weights.clamp_min(_LEAST_WEIGHT * float(weights.max()))[:, None]


def project(model: Features, theta: Tensor, at: Place) -> Projected:
    """The loss at a point. theta: (outputs, p)."""
    features = model.features(at.inputs)
    gram = features @ features.T
    gram.diagonal().add_(_RIDGE * gram.diagonal().mean())
    factor = torch.linalg.cholesky(gram)
    coefficients = torch.cholesky_solve(features @ theta.T, factor)
    residual = theta - coefficients.T @ features
    gradient = _transposed(model, at, coefficients, residual)
    return Projected(model, at, features, factor, coefficients, residual, gradient)


def _transposed(model: Features, at: Place, coefficients: Tensor, values: Tensor) -> Tensor:
    """Σ over outputs of α_i Dφ(x_i)ᵀ·values, along what `at` allows."""
    return at.along(model.transposed_times(at.inputs, coefficients @ values))
