from __future__ import annotations

import math

import torch
from torch import Tensor

from memrecon_fast.reconstruction.linearised import linearise
from memrecon_fast.reconstruction.rows import Rows
from memrecon_fast.reconstruction.signed import Signed, descend_signed
from tests.helpers.features import fitted


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem(p: int = 300, n: int = 3, d: int = 5) -> tuple[Rows, Signed]:
    """Rows of more than one block would be large: the size of blocks is not looked at here."""
    return Rows(random(p, d, seed=1), random(p, seed=2)), Signed(
        random(n, d, seed=3), torch.tensor([1.0, -1, 1]).double()
    )


def model(rows: Rows, images: Tensor, signs: Tensor) -> Tensor:
    return torch.relu(rows.weights[:] @ images.T) @ signs


def test_loss_and_gradient_are_those_of_automatic_differentiation() -> None:
    rows, at = problem()
    images = at.images.clone().requires_grad_()
    loss = (rows.theta - model(rows, images, at.signs)).square().sum()
    (gradient,) = torch.autograd.grad(loss, images)
    here = linearise(rows, at)
    assert math.isclose(here.loss, loss.item(), rel_tol=1e-12)
    torch.testing.assert_close(here.gradient, -gradient.T / 2)


def test_product_is_that_of_the_jacobian() -> None:
    rows, at = problem()
    step = random(5, 3, seed=4)
    jacobian = torch.autograd.functional.jacobian(lambda images: model(rows, images, at.signs), at.images)
    flat = jacobian.reshape(300, 15)
    expected = (flat.T @ flat @ step.T.reshape(15)).reshape(3, 5).T
    torch.testing.assert_close(linearise(rows, at).product(step), expected)


def test_the_metric_is_what_the_product_is_on_average_for_orthogonal_images() -> None:
    rows = Rows(random(200_000, 3, seed=11), torch.zeros(200_000).double())
    here = linearise(rows, Signed(torch.eye(3).double()[:2], torch.tensor([1.0, -1.0]).double()))
    step = torch.tensor([[0.0, 0], [0, 0], [1, 2]]).double()  # away from both images
    torch.testing.assert_close(here.product(step), here.metric(step), rtol=0.02, atol=0.01 * 200_000)
    torch.testing.assert_close(here.solve_metric(here.metric(step)), step)


def test_it_comes_back_from_beside_the_truth() -> None:
    one = fitted(3, 12, 400)
    scale = math.sqrt(12)
    rows = Rows(one.model.weights, one.theta, scale)
    coefficients = torch.linalg.lstsq(one.model.features(one.inputs).T, one.theta[:, None]).solution[:, 0]
    truth = coefficients.abs()[:, None] * one.inputs / scale
    beside = Signed(truth * (1 + 0.1 * random(3, 12, seed=5)), torch.sign(coefficients))
    found = descend_signed(rows, beside, 30, 1e-10)
    assert math.sqrt(found.loss) <= 1e-10 * float(one.theta.norm())
    torch.testing.assert_close(found.at.images, truth, rtol=1e-6, atol=1e-9)
