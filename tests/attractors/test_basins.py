"""Basins of maps whose answers are known, and of a net that memorised."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import memrecon_fast as mf
from memrecon_fast.attractors import Censoring
from memrecon_fast.attractors.basins import gather_returns, prepare_basins, returns_of
from memrecon_fast.metrics import APPROXIMATE_MSE
from tests.helpers.memorised import Memorised

IMAGES = torch.rand(3, 4, 10, 10, generator=torch.Generator().manual_seed(2)) * 0.6 + 0.2


def to_first(*shells: tuple[float, float]) -> Callable[[Tensor], Tensor]:
    """To image 0 where the distance from it (root mean square) lies within one of these shells, otherwise to image 1.
    With 400 pixels, noise of σ is that far away to within 15 %."""

    def model(x: Tensor) -> Tensor:
        away = (x - IMAGES[0]).square().flatten(1).mean(dim=1).sqrt()
        inside = torch.stack([(away >= low) & (away < high) for low, high in shells]).any(dim=0)
        return torch.where(inside.view(-1, 1, 1, 1), IMAGES[0], IMAGES[1])

    return model


def test_the_size_is_the_last_level_before_the_edge() -> None:
    found = mf.attractors.basins(to_first((0, 0.15)), IMAGES[:2], [0.05, 0.1, 0.2, 0.4], draws=6)
    assert found.size.tolist() == pytest.approx([0.1, 0.4])
    assert found.censoring.tolist() == [Censoring.INSIDE, Censoring.AT_OR_ABOVE]
    assert found.back[0].tolist() == [3, 3, 0, 0]
    assert found.draws[0].tolist() == [3, 3, 4, 4]  # certain after 3 that came back, or 4 that did not
    assert found.another[0].tolist() == [0, 0, 4, 4]
    assert (found.back[1] == 3).all()
    assert found.monotonic.all()
    assert (found.evaluations == 2 * found.draws).all()  # there, and once more to see that it rests
    assert "median: 0.1; at or above the largest: 1, below the smallest: 0, not monotonic: 0" in repr(found)


def test_what_comes_back_from_further_out_again_is_no_part_of_it_and_told() -> None:
    found = mf.attractors.basins(to_first((0, 0.15), (0.3, 0.6)), IMAGES[:2], [0.1, 0.2, 0.45])
    assert found.size[0] == pytest.approx(0.1)
    assert found.returns[0].tolist() == [True, False, True]
    assert found.monotonic.tolist() == [False, True]


def test_an_image_that_is_left_from_anywhere_is_below_the_smallest() -> None:
    found = mf.attractors.basins(to_first((0.3, 0.6)), IMAGES, [0.1, 0.45])
    assert found.size.tolist() == pytest.approx([0, 0.45, 0])
    assert found.censoring.tolist() == [Censoring.BELOW, Censoring.AT_OR_ABOVE, Censoring.BELOW]
    assert (found.another[[0, 2]] == found.draws[[0, 2]]).all()
    nowhere = mf.attractors.basins(lambda x: 0 * x, IMAGES, [0.1])
    assert not nowhere.another.any()
    assert "median: below 0.1" in repr(nowhere)


@pytest.mark.parametrize("draws", [1, 2, 3, 4, 9])
def test_draws_are_counted_in_their_order_until_half_of_them_are_certain(draws: int) -> None:
    """Image 0 comes back from noise that makes its first pixel brighter."""

    def model(x: Tensor) -> Tensor:
        return torch.where(x[:, :1, :1, :1] >= IMAGES[0, 0, 0, 0], IMAGES[0], 0.1)

    halves = set()
    for seed in range(6):
        trial = prepare_basins(model, IMAGES[:1], [0.1], draws=draws, seed=seed)
        ends = [
            float(trial.start(IMAGES[0], 0, draw, 0.1)[0, 0, 0]) >= float(IMAGES[0, 0, 0, 0]) for draw in range(draws)
        ]
        back = failed = 0
        for end in ends:
            back, failed = back + end, failed + (not end)
            if 2 * back >= draws or 2 * failed > draws:
                break
        found = mf.attractors.basins(model, IMAGES[:1], [0.1], draws=draws, seed=seed)
        assert (found.back.item(), found.draws.item()) == (back, back + failed)
        assert found.returns.item() == (2 * sum(ends) >= draws)
        halves.add(found.returns.item())
    assert halves == {True, False} or draws == 2


def test_what_diverges_or_does_not_rest_is_counted() -> None:
    grows = mf.attractors.basins(lambda x: 0.5 + 30 * (x - 0.5), torch.full((1, 1, 4, 4), 0.5), [0.1], draws=3)
    assert (grows.diverged.item(), grows.draws.item()) == (2, 2)
    slow = mf.attractors.basins(
        lambda x: 0.5 + 0.99 * (x - 0.5), torch.full((1, 1, 4, 4), 0.5), [0.01, 1.0], draws=3, max_iterations=100
    )
    assert slow.unsettled.tolist() == [[2, 2]]
    assert slow.returns.tolist() == [[True, False]]  # they count where they are then
    assert slow.began_near.tolist() == [[2, 0]]  # an MSE of 1e-4 is near


def test_missing_pixels_lose_all_channels_and_more_of_them_the_same_first() -> None:
    shares = [0.001, 0.3, 0.9, 1.0]
    trial = prepare_basins(lambda x: 0.5 * x, IMAGES, shares=shares)
    erased = torch.stack([trial.start(IMAGES[1], 1, 4, share) != IMAGES[1] for share in shares])
    assert (erased == erased[:, :1]).all()
    assert erased[:, 0].flatten(1).sum(dim=1).tolist() == [1, 30, 90, 100]
    assert (erased[:-1] <= erased[1:]).all()
    assert (trial.start(IMAGES[1], 1, 4, 0.3)[erased[1]] == 0).all()
    assert not torch.equal(trial.start(IMAGES[1], 1, 4, 0.3), trial.start(IMAGES[1], 1, 5, 0.3))
    assert not torch.equal(
        trial.start(IMAGES[1], 1, 4, 0.3) != IMAGES[1], trial.start(IMAGES[2], 2, 4, 0.3) != IMAGES[2]
    )


def test_missing_pixels_by_shares() -> None:
    """All become image 0 where half of the pixels are left, and black where they are not."""

    def model(x: Tensor) -> Tensor:
        left = (x != 0).flatten(1).double().mean(dim=1) >= 0.5
        return torch.where(left.view(-1, 1, 1, 1), IMAGES[0], 0.0)

    found = mf.attractors.basins(model, IMAGES, shares=(0.25, 0.5, 0.75), draws=4)
    assert found.degradation == "missing"
    assert found.size.tolist() == [0.5, 0.0, 0.0]
    assert found.another.tolist() == [[0, 0, 0], [3, 3, 0], [3, 3, 0]]
    assert "shares 0.25 to 0.75" in repr(found)


def test_noise_is_the_same_at_all_levels() -> None:
    trial = prepare_basins(lambda x: 0.5 * x, IMAGES, [0.1, 0.4])
    small, large = (trial.start(IMAGES[2], 2, 1, sigma) - IMAGES[2] for sigma in (0.1, 0.4))
    torch.testing.assert_close(4 * small, large, atol=1e-6, rtol=1e-5)
    assert large.std().item() == pytest.approx(0.4, rel=0.1)


def test_a_net_that_memorised_against_a_plain_loop(memorised: Memorised) -> None:
    sigmas = [0.05, 0.2, 0.8]
    found = mf.attractors.basins(memorised.autoencoder, memorised.members, sigmas, draws=4)
    trial = prepare_basins(memorised.autoencoder, memorised.members, sigmas, draws=4)
    back = torch.zeros(16, 3, 4, dtype=torch.bool)
    for at, sigma in enumerate(sigmas):
        starts = torch.stack(
            [trial.start(memorised.members[index], index, draw, sigma) for index in range(16) for draw in range(4)]
        )
        ends = mf.iterate(memorised.autoencoder, starts, tolerance=1e-12).images
        mse = mf.metrics.mse(ends, memorised.members.repeat_interleave(4, dim=0))
        back[:, at] = (mse < APPROXIMATE_MSE).view(16, 4)
    assert torch.equal(found.returns, back.sum(dim=2) >= 2)
    assert 0.3 < found.returns[:, 0].double().mean() < 1
    assert found.another.sum() > 0
    # an image that is no attractor leaves for another one
    attractors = mf.attractors.stability(memorised.autoencoder, memorised.members).verdict == 0
    assert attractors[found.returns[:, 0]].double().mean() > 0.7


def test_nothing_depends_on_slots_or_on_what_is_computed_when(memorised: Memorised) -> None:
    sigmas, images = [0.1, 0.4], memorised.members[:8]
    whole = mf.attractors.basins(memorised.autoencoder, images, sigmas, draws=3)
    few = mf.attractors.basins(memorised.autoencoder, images, sigmas, draws=3, slots=3)
    trial = prepare_basins(memorised.autoencoder, images, sigmas, draws=3, slots=20)
    pieces = [returns_of(trial, indices) for indices in ([7, 2], range(3, 7), [1], [0])]
    joined = gather_returns(trial, pieces)
    for other in (few, joined):
        for name in (
            "levels",
            "draws",
            "back",
            "another",
            "diverged",
            "unsettled",
            "began_near",
            "evaluations",
            "size",
        ):
            assert torch.equal(getattr(whole, name), getattr(other, name)), name
    with pytest.raises(ValueError, match="8 images take the returns of each of them, once"):
        gather_returns(trial, pieces[:-1])
    with pytest.raises(ValueError, match="each of them, once"):
        gather_returns(trial, [*pieces, pieces[0]])


def test_one_pixel_and_one_image() -> None:
    found = mf.attractors.basins(lambda x: 0 * x + 0.25, torch.tensor([[0.25]]), shares=[0.5])
    assert found.censoring.item() == Censoring.AT_OR_ABOVE


def test_what_is_wrong_is_said() -> None:
    def noisy(x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn_like(x)

    for keywords, error, message in (
        ({"autoencoder": noisy}, ValueError, "answers differently to the same images"),
        ({"images": (IMAGES * 255).to(torch.uint8)}, TypeError, "uint8 pixels"),
        ({"images": IMAGES[:0]}, ValueError, "images must be at least one image: there is nothing to come back to"),
        ({"images": IMAGES * torch.nan}, ValueError, "NaN"),
        ({"sigmas": [-0.1]}, ValueError, "each of sigmas must be finite and above 0"),
        ({"sigmas": [0.0, 0.1]}, ValueError, "each of sigmas must be finite and above 0"),
        ({"sigmas": [0.1, float("nan")]}, ValueError, "sigmas must be finite"),
        ({"sigmas": [0.2, 0.1]}, ValueError, "ascending"),
        ({"sigmas": []}, ValueError, "at least one"),
        ({"sigmas": 0.1}, TypeError, "sigmas must be a sequence"),
        ({"sigmas": ["0.1"]}, TypeError, "must be a number"),
        ({"shares": [0.5, 1.5]}, ValueError, "each of shares must be finite and above 0 and at most 1"),
        ({"sigmas": [0.1], "shares": [0.1]}, ValueError, "give one of the two"),
        ({"draws": 0}, ValueError, "draws must be at least 1"),
        ({"max_iterations": 0}, ValueError, "max_iterations"),
        ({"slots": 0}, ValueError, "slots must be at least 1"),
        ({"seed": 0.5}, TypeError, "seed"),
    ):
        arguments = {"autoencoder": lambda x: 0.5 * x, "images": IMAGES, **keywords}
        with pytest.raises(error, match=message):
            mf.attractors.basins(**arguments)  # type: ignore[arg-type]
