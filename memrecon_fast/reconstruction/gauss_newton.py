"""Gauss–Newton steps by conjugate gradients, damped after Levenberg and Marquardt."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

INNER_STEPS = 8
INNER_TOLERANCE = 0.1
FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-2, 1e-6, 1e4
_HALVINGS = 5


class Linear(Protocol):
    """A model of θ at a point, linearised."""

    @property
    def at(self) -> Any:
        """The point; it has `moved(step)`."""

    @property
    def gradient(self) -> Tensor:
        """Jᵀr."""

    @property
    def loss(self) -> float:
        """‖r‖²."""

    def product(self, step: Tensor) -> Tensor:
        """JᵀJ·step."""

    def metric(self, step: Tensor) -> Tensor:
        """Something like `product`, cheap."""

    def solve_metric(self, right: Tensor) -> Tensor:
        """Its inverse."""


L = TypeVar("L", bound=Linear)


@dataclasses.dataclass
class Damping:
    """λ of (JᵀJ + λ·metric)·step = Jᵀr: little where steps succeed."""

    value: float = FIRST_DAMPING

    def after(self, length: float) -> None:
        """A step was taken, this much of it; 0: none."""
        if length == 1:
            self.value = max(LEAST_DAMPING, 0.3 * self.value)
        else:
            self.value *= 2 if length else 10

    @property
    def is_hopeless(self) -> bool:
        """No step makes the loss smaller."""
        return self.value > MOST_DAMPING


def improve(here: L, linearise: Callable[[Any], L], damping: Damping) -> L:
    """One step, or `here` where none was found that makes the loss smaller."""
    step, length = _step(here, damping.value), 1.0
    for _ in range(_HALVINGS):
        there = linearise(here.at.moved(length * step))
        if there.loss < here.loss:
            damping.after(length)
            return there
        length /= 2
    damping.after(0)
    return here


def _step(here: Linear, damping: float) -> Tensor:
    """The solution of the damped normal equations, roughly, by preconditioned conjugate gradients from 0."""
    left = here.gradient.clone()
    step, along = torch.zeros_like(left), here.solve_metric(left) / (1 + damping)
    size = first = float((left * along).sum())
    for _ in range(INNER_STEPS):
        product = here.product(along) + damping * here.metric(along)
        length = size / float((along * product).sum())
        if not math.isfinite(length):  # nothing is left
            break
        step += length * along
        left -= length * product
        preconditioned = here.solve_metric(left) / (1 + damping)
        before, size = size, float((left * preconditioned).sum())
        if size < INNER_TOLERANCE**2 * first:
            break
        along = preconditioned + (size / before) * along
    return step
