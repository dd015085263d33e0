"""One fully connected layer with a nonlinearity, f(x) = φ(Wx), without a bias: Section 2 of the paper.

Images are the rows of a matrix (n, d) here; the paper's X has them as its columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from memrecon_fast.common.checks import check_choice, check_integer, check_number


@dataclasses.dataclass(frozen=True)
class Activation:
    """φ, which acts on each entry, its derivative by its argument, and its inverse on the open interval (low, high)."""

    apply: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]
    low: float
    high: float


ACTIVATIONS = {
    "identity": Activation(lambda z: z, torch.ones_like, lambda x: x, -torch.inf, torch.inf),
    "sigmoid": Activation(torch.sigmoid, lambda z: z.sigmoid() * (1 - z.sigmoid()), torch.logit, 0.0, 1.0),
    "tanh": Activation(torch.tanh, lambda z: 1 - z.tanh().square(), torch.atanh, -1.0, 1.0),
}


@dataclasses.dataclass(frozen=True)
class Descent:
    """Where gradient descent ended."""

    weights: Tensor
    """float64 (d, d)."""
    loss: float
    """½ Σ ‖φ(Wx) − x‖² over the images."""
    steps: int
    converged: bool
    """Whether the loss fell below the tolerance."""


def closed_form(images: Tensor, activation: str = "sigmoid", start: Tensor | None = None) -> Tensor:
    """Theorem 1: the weights (d, d), float64, that gradient descent from `start` reaches.

        W = φ⁻¹(X) X⁺ + W₀ (I − X X⁺)

    From W₀ = 0 it is the solution of minimum norm. What W₀ does across the span of the images stays.

    images: (n, d), n ≤ d and linearly independent, or φ(Wx) = x has no exact solution in general; entries inside the
    range of φ. start: (d, d).

    Raises ValueError otherwise.
    """
    x, phi = _checked(images, activation)
    weights: Tensor = phi.inverse(x).T @ torch.linalg.pinv(x.T)
    if start is None:
        return weights
    across = torch.eye(x.shape[1], dtype=torch.float64) - x.T @ torch.linalg.pinv(x.T)
    weights += _checked_start(start, x.shape[1]) @ across
    return weights


def descend(
    images: Tensor,
    activation: str = "sigmoid",
    start: Tensor | None = None,
    *,
    rate: float = 0.3,
    max_steps: int = 10_000,
    tolerance: float = 1e-26,
    adaptive: bool = False,
) -> Descent:
    """Gradient descent on ½ Σ ‖φ(Wx) − x‖² from `start` (by default 0), until it is below the tolerance.

    adaptive: with the rate of the paper's proof, which is `rate` / φ′(Wx) for each image and entry: the gradient
    without its factor φ′. Theorem 1 is proved for that; the paper supposes, and `attractors-single-layer` shows, that a
    constant rate comes to the same end. A rate that is too large converges to nothing.
    """
    x, phi = _checked(images, activation)
    check_number("rate", rate, low=0, low_is_allowed=False)
    check_integer("max_steps", max_steps, low=1)
    size = x.shape[1]
    weights = torch.zeros(size, size, dtype=torch.float64) if start is None else _checked_start(start, size).clone()
    for steps in range(max_steps + 1):
        z = x @ weights.T
        error = phi.apply(z) - x
        loss = 0.5 * error.square().sum().item()
        if not loss >= tolerance or steps == max_steps:  # NaN ends it, too
            break
        slope = error if adaptive else error * phi.derivative(z)
        weights -= rate * (slope.T @ x)
    return Descent(weights, loss, steps, loss < tolerance)


def apply(weights: Tensor, images: Tensor, activation: str = "sigmoid") -> Tensor:
    """f(x) = φ(Wx) of images (n, d), float64."""
    return _activation(activation).apply(images.double() @ weights.T)


def distance_from_span(images: Tensor, points: Tensor, activation: str = "sigmoid") -> Tensor:
    """How far points (m, d) are from the φ-span of the images (n, d): float64 (m,), 0 in it and 1 across it.

    y is in the φ-span where φ⁻¹(y) is in the span of φ⁻¹(x₁), …, φ⁻¹(xₙ): ‖P⊥ φ⁻¹(y)‖ / ‖φ⁻¹(y)‖ is given. By the
    corollary of Theorem 1, f takes every input to the φ-span.
    """
    x, phi = _checked(images, activation)
    y = phi.inverse(_inside(points, phi, "points"))
    spanning = phi.inverse(x).T
    across = y.T - spanning @ (torch.linalg.pinv(spanning) @ y.T)
    share: Tensor = across.norm(dim=0) / y.norm(dim=1)
    return share


def eigenvalue(weights: Tensor, vector: Tensor, activation: str = "sigmoid") -> tuple[float, float]:
    """φ(Wx) = λx, a φ-eigenvector: the λ that fits best, and ‖φ(Wx) − λx‖ / ‖x‖.

    The images that f was trained on are φ-eigenvectors with λ = 1. That makes them fixed points, not attractors: see
    `jacobian`.
    """
    x = vector.double()
    image = apply(weights, x[None], activation)[0]
    value = (image @ x / (x @ x)).item()
    return value, ((image - value * x).norm() / x.norm()).item()


def jacobian(weights: Tensor, image: Tensor, activation: str = "sigmoid") -> Tensor:
    """diag(φ′(Wx)) W, the Jacobian of f at x (d,): float64 (d, d)."""
    z = weights @ image.double()
    found: Tensor = _activation(activation).derivative(z)[:, None] * weights
    return found


def _activation(name: str) -> Activation:
    check_choice("activation", name, tuple(ACTIVATIONS))
    return ACTIVATIONS[name]


def _checked(images: Tensor, activation: str) -> tuple[Tensor, Activation]:
    phi = _activation(activation)
    return _inside(images, phi, "images"), phi


def _inside(points: Tensor, phi: Activation, name: str) -> Tensor:
    """The points in float64. Raises ValueError where φ takes no value such as theirs."""
    if points.ndim != 2 or 0 in points.shape:
        raise ValueError(f"{name} must be rows (n, d), not of shape {tuple(points.shape)}")
    x = points.double()
    if not ((x > phi.low) & (x < phi.high) & x.isfinite()).all():
        raise ValueError(
            f"{name} must have entries between {phi.low:g} and {phi.high:g}, which are the values of φ; they have "
            f"[{x.min():g}, {x.max():g}]"
        )
    return x


def _checked_start(start: Tensor, size: int) -> Tensor:
    if start.shape != (size, size):
        raise ValueError(f"start must have the shape {(size, size)}, not {tuple(start.shape)}")
    return start.double()
