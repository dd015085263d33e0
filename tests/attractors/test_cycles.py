"""Limit cycles of maps whose cycles are known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import memrecon_fast as mf
from memrecon_fast.attractors import Motion
from tests.helpers.memorised import Memorised

CENTRES = torch.tensor([[0.2, 0.2, 0.5], [0.8, 0.3, 0.1], [0.5, 0.9, 0.9]])
STEPS = torch.stack(
    [
        torch.tensor([[0.5, 0.4, 0.0], [-0.4, 0.5, 0.1], [0.0, 0.2, 0.3]]),
        torch.tensor([[0.7, 0.0, 0.2], [0.1, 0.6, 0.0], [0.0, 0.0, 0.8]]),
        torch.tensor([[0.4, 0.3, 0.0], [0.0, 0.9, 0.1], [0.2, 0.0, 0.5]]),
    ]
)


def triangle(x: Tensor) -> Tensor:
    """Near centre k: to centre k + 1, and what is away from it through matrix k. Smooth in three pieces."""
    piece = (x[:, None] - CENTRES).square().sum(dim=2).argmin(dim=1)
    away = torch.einsum("nij,nj->ni", STEPS[piece], x - CENTRES[piece])
    return CENTRES[(piece + 1) % 3] + away


def turning(angle: float, factor: float = 1.0, start: float = 0.2) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """About ½, in the plane, and a start."""
    turn = factor * torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return (lambda x: 0.5 + (x - 0.5) @ turn.T), torch.tensor([[0.5 + start, 0.5]])


def test_a_reflection_has_period_two_and_is_marginal() -> None:
    starts = torch.tensor([[0.3], [0.5], [-40.0]])  # ½ is where it rests
    found = mf.attractors.cycles(lambda x: 1 - x, starts)
    assert found.motion.tolist() == [Motion.CYCLE, Motion.SETTLED, Motion.CYCLE]
    assert found.period.tolist() == [2, 0, 2]
    torch.testing.assert_close(found.radius, torch.tensor([1.0, math.nan, 1.0]), equal_nan=True, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.apart_mse, torch.tensor([0.16, math.nan, 81.0**2]), equal_nan=True)
    assert found.marginal.tolist() == [True, False, True]
    assert not found.stable.any()


@pytest.mark.parametrize(("turns", "period"), [(1, 5), (2, 5), (3, 10)])
def test_rotations_by_a_fraction_of_a_turn(turns: int, period: int) -> None:
    model, start = turning(2 * math.pi * turns / period)
    found = mf.attractors.cycles(model, start)
    assert (found.motion.item(), found.period.item()) == (Motion.CYCLE, period)
    assert found.radius.item() == pytest.approx(1, abs=1e-4)
    nearest = min(math.sin(math.pi * turns * k / period) ** 2 for k in range(1, period))
    assert found.apart_mse.item() == pytest.approx(2 * 0.2**2 * nearest, rel=1e-4)  # of chords: 2r sin(φ/2), d = 2


def test_a_cycle_that_contracts_and_its_multiplier() -> None:
    generator = torch.Generator().manual_seed(4)
    starts = CENTRES[[0, 1, 2, 0, 1]] + 0.05 * torch.randn(5, 3, generator=generator)
    found = mf.attractors.cycles(triangle, starts)
    assert (found.motion == int(Motion.CYCLE)).all()
    assert (found.period == 3).all()
    dense = torch.linalg.eigvals((STEPS[2] @ STEPS[1] @ STEPS[0]).double()).abs().max()
    torch.testing.assert_close(found.radius.double(), dense.expand(5), atol=1e-4, rtol=0)
    assert found.stable.all()
    assert (found.residual_mse < 1e-12).all()  # rounding
    for image in found.images:
        assert (CENTRES - image).square().mean(dim=1).min() < 1e-12
    assert "5 (5 of period 3); stable: 5" in repr(found)


def test_the_logistic_map_has_the_period_that_books_say() -> None:
    """r = 3.5: period 4, x = 0.38282, 0.82694, 0.50088, 0.87500; r = 3.83: period 3. Its multiplier is Π r(1 − 2x)."""
    for r, period in ((3.2, 2), (3.5, 4), (3.55, 8), (3.83, 3)):

        def model(x: Tensor, r: float = r) -> Tensor:
            return r * x * (1 - x)

        found = mf.attractors.cycles(model, torch.tensor([[0.21], [0.34]]), max_iterations=300)
        assert found.period.tolist() == [period, period]
        x, multiplier = 0.4, 1.0
        for _ in range(10000):
            x = r * x * (1 - x)
        for _ in range(period):
            multiplier *= r * (1 - 2 * x)
            x = r * x * (1 - x)
        assert found.radius.tolist() == pytest.approx([abs(multiplier)] * 2, abs=1e-3)
        assert found.stable.all()


def test_what_spirals_drifts_or_is_chaotic_is_no_cycle() -> None:
    for factor in (0.9, 0.999, 0.9999, 1.0005):  # 0.9 comes to rest
        model, start = turning(2 * math.pi / 5, factor)
        found = mf.attractors.cycles(model, start, max_iterations=200)
        assert found.motion.item() == (Motion.SETTLED if factor == 0.9 else Motion.MOVING)
        assert found.period.item() == 0
        assert found.radius.isnan().all()
    model, start = turning(1.0)  # no fraction of a turn: it never comes back
    assert mf.attractors.cycles(model, start).motion.item() == Motion.MOVING
    assert mf.attractors.cycles(lambda x: 4 * x * (1 - x), torch.tensor([[0.21]])).motion.item() == Motion.MOVING
    assert mf.attractors.cycles(lambda x: x + 1e-3, torch.tensor([[0.21]])).motion.item() == Motion.MOVING


def test_a_small_spiral_does_not_pass_either() -> None:
    """After 1000 steps of 0.997 it turns with steps of 1e-3 at a radius of 1e-3: they come back within a hundredth."""
    model, start = turning(2 * math.pi / 5, 0.9985, start=0.1)
    found = mf.attractors.cycles(model, start, max_iterations=500)
    assert found.motion.item() == Motion.MOVING


def test_a_period_beyond_the_longest_is_not_seen() -> None:
    model, start = turning(2 * math.pi / 12)
    assert mf.attractors.cycles(model, start, longest=11).motion.item() == Motion.MOVING
    assert mf.attractors.cycles(model, start, longest=12).period.item() == 12


def test_what_grows_diverges() -> None:
    found = mf.attractors.cycles(lambda x: 1 - 1.5 * x, torch.tensor([[0.1], [0.4]]))
    assert found.motion.tolist() == [Motion.DIVERGED, Motion.SETTLED]
    slow = mf.attractors.cycles(lambda x: 1 - 1.05 * x, torch.tensor([[30.0]]), max_iterations=100)
    assert slow.motion.item() == Motion.MOVING  # still finite
    late = mf.attractors.cycles(lambda x: 1 - 2.5 * x, torch.tensor([[30.0]]), max_iterations=40)
    assert late.motion.item() == Motion.DIVERGED  # while it was looked for cycles


def test_nothing_depends_on_blocks(memorised: Memorised) -> None:
    class Flipped(nn.Module):
        """The net, and then black for white: what it memorised comes back after two steps."""

        def forward(self, x: Tensor) -> Tensor:
            flip = x.flatten(1).mean(dim=1) > 0.5
            flip = flip.view(-1, 1, 1, 1)
            answer: Tensor = memorised.autoencoder(torch.where(flip, 1 - x, x))
            return torch.where(flip, answer, 1 - answer)

    dark = memorised.members[memorised.members.flatten(1).mean(dim=1) < 0.48]
    starts = dark + 1e-3 * torch.randn(dark.shape, generator=torch.Generator().manual_seed(1))
    whole = mf.attractors.cycles(Flipped().eval(), starts, max_iterations=200)
    some = mf.attractors.cycles(Flipped().eval(), starts, max_iterations=200, rows=3)
    for name in ("motion", "period", "images", "residual_mse", "apart_mse"):
        assert torch.equal(getattr(whole, name).nan_to_num(9), getattr(some, name).nan_to_num(9)), name
    torch.testing.assert_close(whole.radius, some.radius, equal_nan=True, atol=1e-3, rtol=0)
    assert (whole.period == 2).sum() >= 3
    assert (whole.period[whole.motion == int(Motion.CYCLE)] == 2).all()


def test_what_is_wrong_is_said() -> None:
    def model(x: Tensor) -> Tensor:
        return 1 - x

    for starts, error, message in (
        (torch.zeros(2, 3, dtype=torch.uint8), TypeError, "starts must be float32"),
        (torch.full((2, 3), math.nan), ValueError, "first in image 0"),
        (torch.zeros(0, 3), ValueError, "at least one"),
        ([0.3], TypeError, "torch tensor"),
    ):
        with pytest.raises(error, match=message):
            mf.attractors.cycles(model, starts)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="longest must be at least 2"):
        mf.attractors.cycles(model, torch.zeros(1, 1), longest=1)
    with pytest.raises(ValueError, match="gradients are not those"):
        mf.attractors.cycles(lambda x: 0.5 * x.detach(), torch.zeros(1, 4))
