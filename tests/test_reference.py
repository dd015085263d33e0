from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from memrecon_fast import Settings, Status, degradation, metrics, reference
from memrecon_fast.common.typing import Autoencoder

PAPER = Settings(solver="paper")


def test_admm_is_algorithm_1_entry_by_entry() -> None:
    """Against a scalar transcription of Algorithm 1 with f(x)ᵢ = 0.9xᵢ² + 0.1, in float64."""
    gamma, iterations = 0.7, 40
    y = torch.rand(2, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    theta = torch.rand(y.shape, generator=torch.Generator().manual_seed(2)) < 0.6

    def one(y: float, kept: bool) -> float:
        v, u, xi = 0.0, 0.0, 0.0
        for _ in range(iterations):
            v_tilde = v - u
            xi = (y + gamma / 2 * v_tilde) / (1 + gamma / 2) if kept else v_tilde
            v = 0.9 * (xi + u) ** 2 + 0.1
            u = u + (xi - v)
        return xi

    expected = [one(a, b) for a, b in zip(y.flatten().tolist(), theta.flatten().tolist(), strict=True)]
    got = reference.admm(lambda x: 0.9 * x**2 + 0.1, y, theta, gamma, iterations)
    assert got.flatten().tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("y", [-0.3, -1e-30, 0.0, 0.2, 1.0])
def test_the_mask_rule_minimises_19(y: float) -> None:
    for x in torch.linspace(-2.5, 2.5, 101, dtype=torch.float64).tolist():
        kept = bool(
            reference.estimate_mask(torch.tensor([x], dtype=torch.float64), torch.tensor([y], dtype=torch.float64))
        )
        cost_kept, cost_erased = (x - y) ** 2, y**2
        if abs(cost_kept - cost_erased) > 1e-12:  # at a tie both are minimisers
            assert kept == (cost_kept < cost_erased), (x, y)


def project(image: Tensor) -> Autoencoder:
    return lambda x: image.expand_as(x)


def test_an_image_that_f_always_returns_is_recovered_and_the_iterations_are_counted() -> None:
    image = torch.rand(1, 1, 6, 6) * 0.8 + 0.1
    mask = degradation.make_mask("half", (1, 6, 6))
    result = reference.recover(project(image), degradation.erase(image, mask), settings=PAPER)
    # kept entries contract by 1/(1+γ/2) = 0.8 an iteration: 0.8⁴⁰ = 1.3e-4 from a start at most 1 away
    assert metrics.mse(result.images, image).item() < 1.3e-4**2
    assert torch.equal(result.masks[0], mask)
    assert result.status.tolist() == [Status.CONVERGED]
    assert result.evaluations.item() == 40 * result.outer_iterations.item()
    assert result.residual.item() < 1e-9


def test_patience_counts_comparisons_from_the_second_estimate_on() -> None:
    """A constant f and a mask that no longer changes make all estimates equal: 1 + patience outer iterations."""
    image = torch.zeros(1, 1, 2, 2)
    for patience in (1, 3):
        result = reference.recover(project(image), image, settings=Settings(solver="paper", patience=patience))
        assert result.outer_iterations.item() == 1 + patience


def test_known_mask_keeps_the_known_pixels_unless_told_otherwise() -> None:
    image = torch.rand(2, 1, 6, 6)
    mask = degradation.make_mask("stripes", (1, 6, 6))
    y = degradation.erase(image, mask, noise_std=0.1)
    restored = reference.recover(project(image * 0), y, mask, PAPER)
    assert torch.equal(restored.images[:, mask], y[:, mask])
    left = reference.recover(project(image * 0), y, mask, Settings(solver="paper", restore_known_pixels=False))
    assert not torch.equal(left.images[:, mask], y[:, mask])
    assert torch.equal(left.images[:, ~mask], restored.images[:, ~mask])
    assert restored.status.tolist() == [Status.MAX_ITERATIONS] * 2
    assert restored.residual.isnan().all()


def test_a_diverging_image_stops_and_touches_no_other() -> None:
    image = torch.rand(1, 1, 4, 4)

    def f(x: Tensor) -> Tensor:
        explode = x.flatten(1)[:, 0].abs() > 5
        return torch.where(explode[:, None, None, None], math.nan, image.expand_as(x))

    y = torch.cat([image, torch.full_like(image, 30.0)])
    result = reference.recover(f, y, settings=PAPER)
    assert result.status.tolist() == [Status.CONVERGED, Status.DIVERGED]
    assert torch.equal(result.images[0], reference.recover(f, image, settings=PAPER).images[0])
