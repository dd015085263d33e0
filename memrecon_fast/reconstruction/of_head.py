"""Inputs from the head of a net: by variable projection from random starts alone, as nothing is known of its body."""

from __future__ import annotations

import functools
import math

import torch
from torch import Generator, Tensor

from memrecon_fast.reconstruction import projected_fit
from memrecon_fast.reconstruction.domain import Inside
from memrecon_fast.reconstruction.effort import Effort
from memrecon_fast.reconstruction.head import Head
from memrecon_fast.reconstruction.projected import Anywhere, Counted, Features, OnSphere, project
from memrecon_fast.reconstruction.projected_fit import fit_projected
from memrecon_fast.reconstruction.results import FEWEST, Reconstruction, independent, most_inputs
from memrecon_fast.results import Status


def reconstruct_from_head(
    model: Head, theta: Tensor, images: int | None, tolerance: float, generator: Generator, effort: Effort
) -> Reconstruction:
    """See `reconstructing.reconstruct`; theta: float64 (p,) or (outputs, p)."""
    rows = theta if theta.dim() == 2 else theta[None]
    domain, place = model.where, OnSphere if model.where.on_sphere else Anywhere
    outputs = independent(rows)
    norm, most = float(rows.norm()), most_inputs(model.p, functools.partial(model.unknowns, outputs=outputs), outputs)
    counted = Counted(Inside(model, domain), effort)
    told = images or (model.span.count if model.span else None)
    count = told or min(FEWEST, most)
    while True:
        start = place.random(count, domain.width, generator)
        here = fit_projected(counted, rows, start, count, tolerance, generator, place)
        if told or count == most or math.sqrt(here.loss) <= tolerance * norm:
            break
        count = min(2 * count, most)
    residual = math.sqrt(here.loss) / norm
    if images is None and residual <= tolerance:  # there may be fewer
        here = projected_fit.without_superfluous(counted, rows, here, tolerance)
        residual = math.sqrt(here.loss) / norm
    known = _signs_known(model, rows, domain.inputs(here.at.inputs), residual, tolerance)
    gains = projected_fit.gains(here) / norm**2
    order = gains.argsort(descending=True)
    return Reconstruction(
        inputs=domain.inputs(here.at.inputs)[order],
        coefficients=(here.coefficients if theta.dim() == 2 else here.coefficients[:, 0])[order],
        signs_known=known[order],
        gains=gains[order],
        residual=residual,
        iterations=effort.steps,
        passes=effort.passes,
        status=Status.CONVERGED if residual <= tolerance else Status.MAX_ITERATIONS,
    )


def _signs_known(model: Features, theta: Tensor, inputs: Tensor, residual: float, tolerance: float) -> Tensor:
    """bool (n,): −x_i would not explain θ as well; for odd or even features it does."""
    known = torch.zeros(len(inputs), dtype=torch.bool)
    if residual > tolerance:
        return known
    for row in range(len(known)):
        flipped = inputs.clone()
        flipped[row] *= -1
        known[row] = math.sqrt(project(model, theta, Anywhere(flipped)).loss) > tolerance * float(theta.norm())
    return known
