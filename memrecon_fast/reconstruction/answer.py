"""What is answered of inputs that were found by variable projection."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from memrecon_fast.reconstruction import projected_fit
from memrecon_fast.reconstruction.domain import Domain
from memrecon_fast.reconstruction.effort import Effort
from memrecon_fast.reconstruction.projected import Anywhere, Features, Projected, project
from memrecon_fast.reconstruction.results import Reconstruction
from memrecon_fast.results import Status


def answer(
    model: Features, theta: Tensor, here: Projected, domain: Domain, effort: Effort, tolerance: float
) -> Reconstruction:
    """model: the features of inputs. theta: float64 (p,) or (outputs, p). here: at coordinates in the domain."""
    rows = theta if theta.dim() == 2 else theta[None]
    norm = float(rows.norm())
    residual = math.sqrt(here.loss) / norm
    inputs = domain.inputs(here.at.inputs)
    known = _signs_known(model, rows, inputs, residual, tolerance)
    gains = projected_fit.gains(here) / norm**2
    order = gains.argsort(descending=True)
    return Reconstruction(
        inputs=inputs[order],
        coefficients=(here.coefficients if theta.dim() == 2 else here.coefficients[:, 0])[order],
        signs_known=known[order],
        gains=gains[order],
        residual=residual,
        iterations=effort.steps,
        passes=effort.passes,
        status=Status.CONVERGED if residual <= tolerance else Status.MAX_ITERATIONS,
        lengths_known=not domain.on_sphere,
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
