"""The paper's optimiser: gradient descent with momentum on the loss, back to the sphere after each step.

It is kept as the baseline that all else is compared with: it takes 10⁵ to 10⁶ steps.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from memrecon_fast.reconstruction.projected import Features, OnSphere, Projected, onto_sphere, project

LEARNING_RATE, MOMENTUM = 20.0, 0.9
"""Of the paper, for synthetic inputs (2000 for CIFAR-10)."""
PASSES_A_STEP = 2
"""Products of V: the features, and the gradient."""


def sgd(
    model: Features,
    theta: Tensor,
    start: Tensor,
    learning_rate: float = LEARNING_RATE,
    momentum: float = MOMENTUM,
) -> Iterator[Projected]:
    """The loss at the start (n, d), and after each step, without end. theta: (outputs, p)."""
    here = project(model, theta, OnSphere(onto_sphere(start)))
    velocity, norm = torch.zeros_like(start), float(theta.square().sum())
    while True:
        yield here
        velocity = momentum * velocity + 2 / norm * here.gradient  # of −L
        here = project(model, theta, here.at.moved(learning_rate * velocity))
