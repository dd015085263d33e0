from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from memrecon_fast.attractors.theory import single_layer


@pytest.fixture
def images() -> Tensor:
    """4 of 40 entries, in [0.1, 0.9]."""
    return 0.1 + 0.8 * torch.rand(4, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_one_image_of_two_pixels() -> None:
    weights = single_layer.closed_form(torch.tensor([[0.25, 0.75]]))
    expected = 1.6 * math.log(3) * torch.tensor([[-0.25, -0.75], [0.25, 0.75]], dtype=torch.float64)
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-14)
    assert weights.trace().item() == pytest.approx(0.87888983, abs=1e-8)
    values = torch.linalg.eigvals(single_layer.jacobian(weights, torch.tensor([0.25, 0.75])))
    assert values.abs().max().item() == pytest.approx(0.1647918433, abs=1e-10)


@pytest.mark.parametrize("adaptive", [False, True])
def test_gradient_descent_comes_to_the_closed_form(images: Tensor, adaptive: bool) -> None:
    """Constant rate: 2.6e-13 was seen. The loss stops at 1e-26, so that weights are known to about its root."""
    found = single_layer.descend(images, rate=0.05 if adaptive else 0.3, adaptive=adaptive, max_steps=20_000)
    expected = single_layer.closed_form(images)
    assert found.converged
    assert (found.weights - expected).abs().max() < 1e-11
    assert torch.linalg.matrix_rank(found.weights, rtol=1e-10) == 4


def test_a_start_stays_across_the_span_of_the_images(images: Tensor) -> None:
    start = 0.05 * torch.randn(40, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = single_layer.descend(images, start=start, max_steps=20_000)
    assert found.converged
    assert (found.weights - single_layer.closed_form(images, start=start)).abs().max() < 1e-11
    assert torch.linalg.matrix_rank(found.weights, rtol=1e-10) == 40


def test_too_large_a_rate_does_not_converge(images: Tensor) -> None:
    assert not single_layer.descend(images, rate=1.0, max_steps=6000).converged


def test_training_images_are_eigenvectors_and_need_not_be_attractors(images: Tensor) -> None:
    weights = single_layer.closed_form(images)
    for image in images:
        value, residual = single_layer.eigenvalue(weights, image)
        assert value == pytest.approx(1, abs=1e-12)
        assert residual < 1e-12
    other = torch.rand(40, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert single_layer.eigenvalue(weights, other)[1] > 0.1
    radii = [torch.linalg.eigvals(single_layer.jacobian(weights, image)).abs().max().item() for image in images]
    assert min(radii) < 1 < max(radii)


@pytest.mark.parametrize("activation", ["identity", "sigmoid", "tanh"])
def test_every_input_goes_to_the_span(images: Tensor, activation: str) -> None:
    others = torch.randn(5, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    weights = single_layer.closed_form(images, activation)
    outputs = single_layer.apply(weights, others, activation)
    assert (single_layer.distance_from_span(images, outputs, activation) < 1e-9).all()
    elsewhere = 0.1 + 0.8 * torch.rand(5, 40, generator=torch.Generator().manual_seed(4))
    assert (single_layer.distance_from_span(images, elsewhere, activation) > 0.1).all()


def test_the_linear_layer_is_the_projection(images: Tensor) -> None:
    weights = single_layer.closed_form(images, "identity")
    torch.testing.assert_close(weights @ weights, weights, rtol=0, atol=1e-12)
    torch.testing.assert_close(weights, weights.T, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.tensor([[0.0, 0.5]]), "between 0 and 1"),
        (torch.tensor([[0.5, torch.nan]]), "between 0 and 1"),
        (torch.tensor([0.5, 0.5]), "must be rows"),
    ],
)
def test_images_outside_the_values_of_the_activation_are_refused(wrong: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        single_layer.closed_form(wrong)


def test_other_wrong_arguments(images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"start must have the shape \(40, 40\)"):
        single_layer.closed_form(images, start=torch.zeros(4, 4))
    with pytest.raises(ValueError, match="did you mean 'sigmoid'"):
        single_layer.closed_form(images, "sigmoyd")
