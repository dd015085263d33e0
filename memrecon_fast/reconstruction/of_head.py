"""Inputs from the head of a net.

Where its first layer is linear with ReLU and was trained, from what the units of that learned (`units`); else, as
nothing is known of its body, by variable projection from random starts alone.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import torch
from torch import Generator, Tensor

from memrecon_fast.reconstruction import projected_fit
from memrecon_fast.reconstruction.answer import answer
from memrecon_fast.reconstruction.domain import Domain, Inside
from memrecon_fast.reconstruction.effort import Effort
from memrecon_fast.reconstruction.head import Head
from memrecon_fast.reconstruction.projected import Anywhere, Counted, OnSphere, Projected, project
from memrecon_fast.reconstruction.projected_fit import fit_projected
from memrecon_fast.reconstruction.results import FEWEST, Reconstruction, independent, most_inputs
from memrecon_fast.reconstruction.units import Units, inputs_by_units
from memrecon_fast.results import Status


def reconstruct_from_head(
    model: Head, theta: Tensor, images: int | None, tolerance: float, generator: Generator, effort: Effort
) -> Reconstruction:
    """See `reconstructing.reconstruct`; theta: float64 (p,) or (outputs, p)."""
    rows = theta if theta.dim() == 2 else theta[None]
    certain = _certain_inputs(model, generator)
    if certain is None:
        here = _by_projection(model, rows, images, tolerance, generator, effort)
        found = answer(model, theta, here, model.where, effort, tolerance)
    else:
        here = project(Counted(model, effort), rows, Anywhere(certain))
        found = answer(model, theta, here, Domain(model.d, model.where.on_sphere), effort, tolerance)
        known = torch.ones(len(certain), dtype=torch.bool)
        found = dataclasses.replace(found, certain=True, signs_known=known, status=Status.CONVERGED)
    return dataclasses.replace(found, moved=model.moved(found.inputs))


def _certain_inputs(model: Head, generator: Generator) -> Tensor | None:
    """All inputs, from the first layer alone, where it tells them."""
    first = model.first
    if not by_units(model) or first is None or first.span is None:
        return None
    return inputs_by_units(Units.of(first, first.span), generator)


def by_units(model: Head) -> bool:
    """Whether inputs are looked for in what the units of the first layer learned: however many were asked for, as it
    tells their number. With biases that were not trained, it does not tell lengths, on which it rests, too."""
    first = model.first
    if first is None or not first.cuts_off or first.span is None:
        return False
    return first.bias is None or first.bias_learned


def _by_projection(
    model: Head, theta: Tensor, images: int | None, tolerance: float, generator: Generator, effort: Effort
) -> Projected:
    domain, place = model.where, OnSphere if model.where.on_sphere else Anywhere
    counted, norm, outputs = Counted(Inside(model, domain), effort), float(theta.norm()), independent(theta)
    most = most_inputs(model.p, functools.partial(model.unknowns, outputs=outputs), outputs)
    if images is None and model.first is not None and model.first.span is not None:
        images = model.first.span.count
    if images is not None and images > most:
        raise ValueError(
            f"the first layer learned of {images} inputs, but its units do not tell them from one another, which takes "
            f"some 10 units and more for each; and there are too few features, {model.p}, to find as many by the last "
            f"layer: enough for {most}"
        )
    count = images or min(FEWEST, most)
    while True:
        start = place.random(count, domain.width, generator)
        here = fit_projected(counted, theta, start, count, tolerance, generator, place)
        explained = math.sqrt(here.loss) <= tolerance * norm
        if images is not None or count == most or explained:
            break
        count = min(2 * count, most)
    if images is None and explained:  # there may be fewer
        here = projected_fit.without_superfluous(counted, theta, here, tolerance)
    return here
