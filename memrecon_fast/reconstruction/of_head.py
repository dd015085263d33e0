"""Inputs from the head of a net: by variable projection from random starts alone, as nothing is known of its body."""

from __future__ import annotations

import functools
import math

from torch import Generator, Tensor

from memrecon_fast.reconstruction import projected_fit
from memrecon_fast.reconstruction.answer import answer
from memrecon_fast.reconstruction.domain import Inside
from memrecon_fast.reconstruction.effort import Effort
from memrecon_fast.reconstruction.head import Head
from memrecon_fast.reconstruction.projected import Anywhere, Counted, OnSphere
from memrecon_fast.reconstruction.projected_fit import fit_projected
from memrecon_fast.reconstruction.results import FEWEST, Reconstruction, independent, most_inputs


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
    if images is None and math.sqrt(here.loss) <= tolerance * norm:  # there may be fewer
        here = projected_fit.without_superfluous(counted, rows, here, tolerance)
    return answer(model, theta, here, domain, effort, tolerance)
