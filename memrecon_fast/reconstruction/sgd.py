"""The paper's optimiser: gradient descent with momentum on the loss, back to the sphere after each step.

It is kept as the baseline that all else is compared with: it takes 10⁵ to 10⁶ steps.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from memrecon_fast.reconstruction.answer import answer
from memrecon_fast.reconstruction.domain import Domain, Inside
from memrecon_fast.reconstruction.effort import Effort
from memrecon_fast.reconstruction.head import Head
from memrecon_fast.reconstruction.projected import Anywhere, Counted, Features, OnSphere, Place, Projected, project
from memrecon_fast.reconstruction.random_features import RandomFeatures
from memrecon_fast.reconstruction.results import LEARNING_RATE, Reconstruction, ReconstructionSettings
from memrecon_fast.results import Status

MOMENTUM = 0.9
"""Of the paper."""
PASSES_A_STEP = 2
"""Products of V: the features, and the gradient."""


def reconstruct_by_sgd(
    model: RandomFeatures | Head,
    theta: Tensor,
    images: int,
    settings: ReconstructionSettings,
    generator: Generator,
    effort: Effort,
) -> Reconstruction:
    """See `reconstructing.reconstruct`; theta: float64 (p,) or (outputs, p). From a random start, until θ is explained,
    all steps were taken, or there is no way on: the status says which."""
    if isinstance(model, Head):
        features: Features = model
        domain = model.where
    else:
        features, domain = model, Domain(model.d, on_sphere=True)
    place: type[Place] = OnSphere if domain.on_sphere else Anywhere
    rows = theta if theta.dim() == 2 else theta[None]
    norm, counted = float(rows.norm()), Counted(Inside(features, domain), effort)
    start = place(place.random(images, domain.width, generator))
    path = sgd(counted, rows, start, settings.learning_rate)
    here, diverged = next(path), False
    while effort.steps < settings.steps and math.sqrt(here.loss) > settings.tolerance * norm:
        try:
            there = next(path)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # features not finite, or of two inputs the same
            there = None
        diverged = there is None or not math.isfinite(there.loss)
        if there is None or diverged:
            break
        here = there
        effort.step(images, math.sqrt(here.loss) / norm)
    found = answer(features, theta, here, domain, effort, settings.tolerance)
    if isinstance(model, Head):
        found = dataclasses.replace(found, moved=model.moved(found.inputs))
    return dataclasses.replace(found, status=Status.DIVERGED) if diverged else found


def sgd(
    model: Features,
    theta: Tensor,
    start: Place,
    learning_rate: float = LEARNING_RATE,
    momentum: float = MOMENTUM,
) -> Iterator[Projected]:
    """The loss at the start (n, d), and after each step, without end. theta: (outputs, p)."""
    here = project(model, theta, start)
    velocity, norm = torch.zeros_like(start.inputs), float(theta.square().sum())
    while True:
        yield here
        velocity = momentum * velocity + 2 / norm * here.gradient  # of −L
        here = project(model, theta, here.at.moved(learning_rate * velocity))
