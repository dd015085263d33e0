"""Variable projection against automatic differentiation, and what inputs are pruned."""

from __future__ import annotations

import pytest
import torch

from memrecon_fast.reconstruction import compare, reference
from memrecon_fast.reconstruction.projected import Counted, OnSphere, onto_sphere, project
from memrecon_fast.reconstruction.projected_fit import fit_projected, gains, without_least, without_superfluous
from tests.helpers.features import Fitted, fitted
from tests.reconstruction.test_even import random


def elsewhere(one: Fitted, by: float = 0.3) -> torch.Tensor:
    return onto_sphere(one.inputs + by * random(*one.inputs.shape, seed=5))


@pytest.mark.parametrize("activation", ["relu", "relu+tanh"])
def test_the_gradient_is_that_of_the_papers_loss_along_the_sphere(activation: str) -> None:
    one = fitted(3, 8, 150, activation=activation)
    at = elsewhere(one)
    here = project(one.model, one.theta[None], OnSphere(at))
    norm = one.theta.square().sum()
    assert here.loss / float(norm) == pytest.approx(float(reference.loss(one.model, at, one.theta)), rel=1e-9)
    steepest = -0.5 * norm * reference.gradient(one.model, at, one.theta)
    along = steepest - (steepest * at).sum(dim=1, keepdim=True) / 8 * at
    torch.testing.assert_close(here.gradient, along, rtol=1e-7, atol=1e-9)


def test_the_product_is_that_of_kaufmans_jacobian() -> None:
    one = fitted(3, 6, 80, activation="relu+tanh")
    at = elsewhere(one)
    here = project(one.model, one.theta[None], OnSphere(at))
    phi = here.features
    projector = torch.eye(80, dtype=torch.float64) - phi.T @ torch.linalg.solve(phi @ phi.T, phi)
    jacobian = torch.autograd.functional.jacobian(lambda x: here.coefficients[:, 0] @ one.model.features(x), at)
    tangent = torch.eye(6, dtype=torch.float64) - at[:, :, None] * at[:, None, :] / 6
    dense = projector @ torch.einsum("pid,ide->pie", jacobian, tangent).reshape(80, -1)
    step = random(3, 6, seed=7)
    torch.testing.assert_close(here.product(step).flatten(), dense.T @ (dense @ step.flatten()), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(here.solve_metric(here.metric(step)), step)


def test_superfluous_inputs_go_and_true_ones_stay() -> None:
    one = fitted(4, 12, 400, activation="relu+tanh")
    more = torch.cat([one.inputs, onto_sphere(random(3, 12, seed=8))])
    here = project(one.model, one.theta[None], OnSphere(more))
    assert (gains(here)[4:] < 1e-20).all()
    assert (gains(here)[:4] > 1e-4 * float(one.theta.square().sum())).all()
    assert torch.equal(without_least(here, 4), one.inputs)
    left = without_superfluous(Counted(one.model), one.theta[None], here, 1e-6)
    assert len(left.coefficients) == 4
    assert compare(one.inputs, left.at.inputs).error < 1e-9


def test_relu_features_alone_are_found_from_nothing() -> None:
    """What any other body of a net needs, too: no even part is used."""
    one = fitted(3, 16, 3 * 16 * 10)
    start = onto_sphere(random(3, 16, seed=9))
    model = Counted(one.model)
    found = fit_projected(model, one.theta[None], start, 3, 1e-6, torch.Generator().manual_seed(0))
    assert compare(one.inputs, found.at.inputs).error < 1e-6
    assert model.effort.steps > 0
