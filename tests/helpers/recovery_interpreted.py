"""Whole recoveries on the Triton kernels, by Triton's interpreter: run by test_recovery.py, in a process of its own."""

from __future__ import annotations

import pytest
import torch

import memrecon_fast as mf
from memrecon_fast import Settings, degradation, metrics
from tests.helpers.memorised import Memorised

PAPER = Settings(solver="paper")
SHAPE = (3, 8, 8)


@pytest.mark.parametrize(
    "settings",
    [
        Settings(solver="paper", max_outer_iterations=6),
        Settings(solver="paper", gamma=0.1, initial_mask="zeros", max_outer_iterations=4),
        Settings(solver="paper", precision="progressive", max_outer_iterations=24),
    ],
)
def test_all_backends_give_the_same_images_and_verdicts(memorised: Memorised, settings: Settings) -> None:
    images = torch.cat([memorised.members[:3], memorised.controls[:3]])
    degraded = degradation.erase(images, degradation.make_mask("center", SHAPE), noise_std=0.01)
    backends = ["torch", "triton"] + (["cpp"] if mf.backends()["cpp"] == "available" else [])
    results = {name: mf.recover(memorised.autoencoder, degraded, settings=settings, backend=name) for name in backends}
    expected = results["torch"]
    assert (metrics.mse(expected.images, images) < metrics.APPROXIMATE_MSE).any()
    for name, got in results.items():
        assert got.backend == name
        for field in ("images", "masks", "outer_iterations", "evaluations", "status"):
            assert torch.equal(getattr(got, field), getattr(expected, field)), (name, field)


@pytest.mark.parametrize(("known", "estimates"), [(False, 5), (True, 9)])
def test_the_accelerated_solver_recovers_the_same_images(memorised: Memorised, known: bool, estimates: int) -> None:
    """Sums over pixels differ in the last place, which so few extrapolations do not carry beyond 1e-4 per pixel."""
    images = memorised.members[: 2 if known else 4]
    degraded = degradation.erase(images, mask := degradation.make_mask("center", SHAPE))
    settings = Settings(solver="accelerated", gamma=0.5, settle=1, max_outer_iterations=estimates)
    expected, got = (
        mf.recover(memorised.autoencoder, degraded, mask if known else None, settings, backend=name)
        for name in ("torch", "triton")
    )
    assert got.backend == "triton"
    torch.testing.assert_close(got.images, expected.images, rtol=0, atol=1e-4)
    assert (got.masks == expected.masks).float().mean() > 0.99
    assert ((got.evaluations - expected.evaluations).abs() <= settings.mask_period).all()
    assert (got.accepted > 0).any()
    if known:
        assert (metrics.mse(got.images, images) < metrics.ACCURATE_MSE).any()


def test_known_masks_and_iterate(memorised: Memorised) -> None:
    degraded = degradation.erase(memorised.members[:5], mask := degradation.make_mask("half", SHAPE))
    for recovered in (
        [mf.recover(memorised.autoencoder, degraded, mask, PAPER, backend=name) for name in ("torch", "triton")],
        [mf.iterate(memorised.autoencoder, degraded, 20, backend=name) for name in ("torch", "triton")],
    ):
        assert torch.equal(recovered[0].images, recovered[1].images)
        assert torch.equal(recovered[0].status, recovered[1].status)
