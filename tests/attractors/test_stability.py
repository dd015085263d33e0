"""Fixed points near images, and verdicts: maps whose answers are known, and a net that memorised."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import Tensor

import memrecon_fast as mf
from memrecon_fast.attractors import Verdict
from memrecon_fast.attractors.fixed_points import FIXED
from memrecon_fast.attractors.iterating import Reached
from tests.helpers.memorised import Memorised

POINT = torch.rand(1, 2, 3, 3, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.25


def about(slopes: Tensor, start: float = 1e-3) -> tuple[object, Tensor]:
    """A linear map with a fixed point and these slopes along its axes, and an image near the point."""
    slopes = slopes.view(POINT.shape)
    return (lambda x: POINT + slopes * (x - POINT)), POINT + start


@pytest.mark.parametrize(
    ("largest", "verdict"),
    [
        (0.0, Verdict.ATTRACTOR),
        (0.9, Verdict.ATTRACTOR),
        (-0.98, Verdict.ATTRACTOR),
        (0.995, Verdict.MARGINAL),
        (-1.005, Verdict.MARGINAL),
        (1.02, Verdict.REPELLER),
        (-1.5, Verdict.REPELLER),
        (30.0, Verdict.REPELLER),
    ],
)
def test_verdicts_of_linear_maps(largest: float, verdict: Verdict) -> None:
    slopes = torch.linspace(-0.6, 0.6, 18) * min(1.0, abs(largest))
    slopes[7] = largest
    model, image = about(slopes)
    found = mf.attractors.stability(model, image)  # type: ignore[arg-type]
    assert Verdict(int(found.verdict)) == verdict
    assert abs(float(found.spectra.radius) - abs(largest)) < 1e-3
    assert found.fixed_points.near.all()
    assert float(found.fixed_points.residual_mse) < FIXED
    # J − I is at least 0.005 along every axis, so a residual of 1e-9 is a distance of 4e-5 at most
    assert (found.fixed_points.images - POINT).square().mean() < 4e-5
    assert found.returned_mse.isnan().all() == (verdict == Verdict.MARGINAL)


def test_rotations_about_a_point_are_told_by_their_complex_pair() -> None:
    for factor, verdict in ((0.9, Verdict.ATTRACTOR), (1.1, Verdict.REPELLER)):
        turn = factor * torch.tensor([[0.6, -0.8], [0.8, 0.6]])

        def model(x: Tensor, turn: Tensor = turn) -> Tensor:
            return 0.5 + (x - 0.5) @ turn.T

        found = mf.attractors.stability(model, torch.full((2, 2), 0.501))
        assert found.verdict.tolist() == [verdict, verdict]
        torch.testing.assert_close(found.spectra.values.abs()[0, :2], torch.full((2,), factor), atol=1e-5, rtol=0)
        assert found.spectra.values[0, 0].imag != 0


def test_what_has_no_fixed_point_near_has_none() -> None:
    shifted = mf.attractors.stability(lambda x: x + 0.1, POINT)
    far = mf.attractors.stability(lambda x: 0 * x + 0.5, POINT)
    assert shifted.verdict.item() == far.verdict.item() == Verdict.NO_FIXED_POINT
    assert far.fixed_points.status.item() == mf.Status.CONVERGED  # there is one, elsewhere
    assert not far.fixed_points.near.any()
    torch.testing.assert_close(far.fixed_points.images, torch.full_like(POINT, 0.5))
    assert abs(float(shifted.residual_mse) - 0.01) < 1e-6
    assert float(shifted.spectra.radius) == 1.0  # which means nothing there


@pytest.mark.parametrize(
    ("left_out", "finds"),
    [((), True), (("_newton",), True), (("_extrapolated",), True), (("_newton", "_extrapolated"), False)],
)
def test_extrapolation_and_newton_each_find_what_iteration_leaves(
    monkeypatch: pytest.MonkeyPatch, left_out: tuple[str, ...], finds: bool
) -> None:
    """½ + 0.4 sin(±9(x − ½)), another sign in every second pixel: at its fixed point ½ all slopes are ±3.6."""
    module = importlib.import_module("memrecon_fast.attractors.fixed_points")
    signs = torch.where(torch.arange(18).view(POINT.shape) % 2 == 0, 1.0, -1.0)
    image = torch.full_like(POINT, 0.51)

    def model(x: Tensor) -> Tensor:
        return 0.5 + 0.4 * torch.sin(9 * signs * (x - 0.5))

    def stay(_: object, images: Tensor, *__: object) -> Reached:
        nothing = torch.zeros(len(images), dtype=torch.int32)
        return Reached(images.clone(), nothing, nothing.to(torch.int8))

    for name in left_out:
        monkeypatch.setattr(module, name, stay)
    found = mf.attractors.fixed_points(model, image)
    assert bool(found.near.all()) == finds
    if finds:
        torch.testing.assert_close(found.images, torch.full_like(POINT, 0.5), atol=1e-4, rtol=0)
        assert float(mf.attractors.stability(model, image).spectra.radius) == pytest.approx(3.6, 1e-3)


def test_the_identity_is_marginal_everywhere() -> None:
    found = mf.attractors.stability(lambda x: x * 1.0, POINT)
    assert found.verdict.item() == Verdict.MARGINAL
    assert found.fixed_points.distance_mse.item() == 0


def test_a_jacobian_that_is_not_finite_is_unknown() -> None:
    """|x|^½ at its fixed point 0: infinitely steep."""
    found = mf.attractors.stability(lambda x: x.abs().sqrt() * 0.9, torch.zeros(1, 1, 4, 4))
    assert found.fixed_points.near.all()
    assert found.verdict.item() == Verdict.UNKNOWN


def test_iteration_that_contradicts_the_eigenvalue_is_told() -> None:
    """The slope at ½ is 0.9, in the narrowest surroundings; beyond, the map leads away."""

    def model(x: Tensor) -> Tensor:
        away = x - 0.5
        return 0.5 + torch.where(away.abs() < 1e-5, 0.9 * away, 1.5 * away).clamp(-0.4, 0.4)

    found = mf.attractors.stability(model, torch.full((1, 1, 4, 4), 0.5))
    assert float(found.spectra.radius) == pytest.approx(0.9, abs=1e-3)
    assert found.verdict.item() == Verdict.UNKNOWN


def test_a_net_that_memorised(memorised: Memorised) -> None:
    """Verdicts against what they mean: whether iteration comes back to the image from noise of 1e-3."""
    members = mf.attractors.stability(memorised.autoencoder, memorised.members)
    noise = torch.randn(memorised.members.shape, generator=torch.Generator().manual_seed(9))
    ends = mf.iterate(memorised.autoencoder, memorised.members + 1e-3 * noise, tolerance=1e-12).images
    returns = mf.metrics.mse(ends, memorised.members) < mf.metrics.APPROXIMATE_MSE
    attractors = members.verdict == Verdict.ATTRACTOR
    told = attractors | (members.verdict == Verdict.REPELLER)
    assert told.sum() >= 14  # the others are marginal, or have no fixed point
    assert torch.equal(attractors[told], returns[told])
    assert (members.residual_mse < 1e-7).all()
    controls = mf.attractors.stability(memorised.autoencoder, memorised.controls)
    assert (controls.verdict == Verdict.NO_FIXED_POINT).all()
    assert (controls.residual_mse > 1e-3).all()
    assert f"{int(attractors.sum())} ATTRACTOR" in repr(members)


def test_verdicts_do_not_depend_on_batches_and_noise_goes_by_the_index(memorised: Memorised) -> None:
    whole = mf.attractors.stability(memorised.autoencoder, memorised.members)
    few = mf.attractors.stability(memorised.autoencoder, memorised.members, rows=5)
    assert torch.equal(whole.verdict, few.verdict)
    again = mf.attractors.stability(memorised.autoencoder, memorised.members)
    for name in ("verdict", "residual_mse", "returned_mse"):
        assert torch.equal(getattr(whole, name).nan_to_num(9), getattr(again, name).nan_to_num(9))


def test_no_images_and_one_pixel() -> None:
    assert mf.attractors.stability(lambda x: 0.5 * x, torch.zeros(0, 3, 4, 4)).verdict.shape == (0,)
    one = mf.attractors.stability(lambda x: 0.5 + 0.5 * (x - 0.5), torch.full((1, 1), 0.501))
    assert one.verdict.item() == Verdict.ATTRACTOR
