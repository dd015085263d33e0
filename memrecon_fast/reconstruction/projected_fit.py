"""Fits inputs by variable projection: with more than there are, of which those go that the model can do without.

As many inputs as there are would get stuck; a few more find their way.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Generator, Tensor

from memrecon_fast.reconstruction.gauss_newton import Damping, improve
from memrecon_fast.reconstruction.projected import Counted, OnSphere, Place, Projected, project

END = 1e-9
"""Of ‖r‖/‖θ‖: where steps end."""
_EXTRA = (2, 3, 4, 5, 6)
"""Random inputs more, in each round."""
_STEPS_WITH_EXTRA, _STEPS = 15, 15


def fit_projected(
    model: Counted,
    theta: Tensor,
    start: Tensor,
    count: int,
    tolerance: float,
    generator: Generator,
    place: type[Place] = OnSphere,
) -> Projected:
    """So many inputs.

    theta: (outputs, p). start: (m, d), any number of inputs to begin with. tolerance: of ‖r‖/‖θ‖: above it, there are
    more rounds. place: where inputs may lie.
    """
    norm, best = float(theta.norm()), None
    for extra in _EXTRA:
        more = place.random(extra, start.shape[1], generator)
        wide = descend(model, theta, torch.cat([start, more]), _STEPS_WITH_EXTRA, place)
        here = descend(model, theta, without_least(wide, count), _STEPS, place)
        best = here if best is None else min(best, here, key=lambda one: one.loss)
        if math.sqrt(best.loss) <= tolerance * norm:
            break
        start = best.at.inputs
    assert best is not None
    return descend(model, theta, best.at.inputs, _STEPS, place)


def descend(model: Counted, theta: Tensor, inputs: Tensor, steps: int, place: type[Place] = OnSphere) -> Projected:
    """At most so many Gauss–Newton steps from inputs (n, d)."""
    here, damping, norm = project(model, theta, place(inputs)), Damping(), float(theta.norm())
    for _ in range(steps):
        if math.sqrt(here.loss) <= END * norm or damping.is_hopeless:
            break
        here = improve(here, functools.partial(project, model, theta), damping)
        model.effort.step(len(inputs), math.sqrt(here.loss) / norm)
    return here


def gains(here: Projected) -> Tensor:
    """(n,): by how much ‖r‖² would rise without each input: |α_i|²/((ΦΦᵀ)⁻¹)_ii."""
    return here.coefficients.square().sum(dim=1) / torch.cholesky_inverse(here.factor).diagonal()


def without_least(here: Projected, count: int) -> Tensor:
    """So many of the inputs (count, d): the one of least gain goes, again and again, the others taking its part."""
    gram = here.factor @ here.factor.T
    right, kept = gram @ here.coefficients, list(range(len(gram)))
    while len(kept) > count:
        inverse = torch.linalg.inv(gram[kept][:, kept])
        lost = (inverse @ right[kept]).square().sum(dim=1) / inverse.diagonal()
        kept.pop(int(lost.argmin()))
    return here.at.inputs[kept]


def without_superfluous(model: Counted, theta: Tensor, here: Projected, tolerance: float) -> Projected:
    """The fewest inputs that explain θ to the tolerance, as these do."""
    while len(here.coefficients) > 1 and float(gains(here).min()) <= (tolerance * float(theta.norm())) ** 2:
        here = descend(model, theta, without_least(here, len(here.coefficients) - 1), _STEPS, type(here.at))
    return here
