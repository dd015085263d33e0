"""The paper's loss: values that are known, and its gradient against differences."""

from __future__ import annotations

import math

import pytest
import torch

from memrecon_fast.reconstruction import RandomFeatures, reference
from tests.helpers.features import Fitted, fitted


@pytest.mark.parametrize("activation", ["relu", "relu+tanh"])
def test_the_inputs_explain_theta_with_the_coefficients_of_the_fit(activation: str) -> None:
    one = fitted(n=5, d=30, p=600, activation=activation)
    assert float(reference.loss(one.model, one.inputs, one.theta)) < 1e-27
    features = one.model.features(one.inputs)
    torch.testing.assert_close(features @ one.theta, one.labels)
    expected = torch.linalg.solve(features @ features.T, one.labels)
    torch.testing.assert_close(reference.coefficients(one.model, one.inputs, one.theta), expected)


@pytest.mark.parametrize(("activation", "tolerance"), [("relu", 1e-8), ("relu+tanh", 1e-8)])
def test_the_gradient_is_that_of_the_loss(activation: str, tolerance: float) -> None:
    """By central differences of 1e-7: so near that hardly a kink of ReLU lies between."""
    one = fitted(n=3, d=10, p=200, activation=activation)
    elsewhere = one.inputs + 0.3 * torch.randn(3, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found, step = reference.gradient(one.model, elsewhere, one.theta), 1e-7
    for i, j in ((0, 0), (1, 7), (2, 4)):
        moved = [elsewhere.clone() for _ in range(2)]
        moved[0][i, j] += step
        moved[1][i, j] -= step
        ahead, behind = (reference.loss(one.model, at, one.theta) for at in moved)
        assert float(found[i, j]) == pytest.approx(float(ahead - behind) / (2 * step), abs=tolerance)


def test_one_flipped_input_is_noticed_by_relu() -> None:
    one = fitted(n=5, d=30, p=600)
    flipped = one.inputs.clone()
    flipped[2] *= -1
    assert float(reference.loss(one.model, flipped, one.theta)) > 1e-3


def test_theta_is_the_least_solution() -> None:
    one = fitted(n=4, d=12, p=100)
    features = one.model.features(one.inputs)
    least = torch.linalg.lstsq(features, one.labels[:, None], driver="gelsd").solution[:, 0]
    torch.testing.assert_close(one.theta, least)


def test_weights_are_those_that_anyone_draws_from_the_seed() -> None:
    torch.manual_seed(3)
    expected = torch.randn(50, 7, dtype=torch.float64) / math.sqrt(7)
    assert torch.equal(RandomFeatures.from_seed(50, 7, seed=3).weights[:], expected)
    assert float(RandomFeatures.from_seed(3000, 40).weights[:].std()) == pytest.approx(1 / math.sqrt(40), rel=0.02)


def test_what_cannot_be_fitted_is_said() -> None:
    one: Fitted = fitted(n=4, d=12, p=100)
    with pytest.raises(ValueError, match="depend on each other"):
        one.model.fit(one.inputs[[0, 1, 1]], one.labels[:3])
    with pytest.raises(ValueError, match="depend on each other"):
        RandomFeatures.from_seed(3, 12).fit(one.inputs, one.labels)
    with pytest.raises(ValueError, match=r"inputs must be \(n, 12\)"):
        one.model.fit(one.inputs[:, :5], one.labels)
    with pytest.raises(ValueError, match="NaN or infinite"):
        RandomFeatures(torch.tensor([[1.0, torch.nan]]))
    with pytest.raises(TypeError, match=r"float32 or float64, not torch\.float16"):
        RandomFeatures(torch.ones(2, 2, dtype=torch.float16))
    with pytest.raises(ValueError, match=r"on the CPU, not on meta"):
        RandomFeatures(torch.ones(2, 2, device="meta"))
    with pytest.raises(ValueError, match="relu"):
        RandomFeatures(torch.ones(2, 2), activation="rellu")
