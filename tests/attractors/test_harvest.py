"""Harvests: of a net that memorised, and of maps whose fixed points are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import memrecon_fast as mf
from memrecon_fast.attractors import Harvest, Verdict
from memrecon_fast.attractors.ends import End, Ends, Search, ends_of, prepare_harvest
from memrecon_fast.attractors.harvest import SETTLED_BELOW, Gathering, gather
from memrecon_fast.attractors.unseen import BLOCK
from memrecon_fast.metrics import APPROXIMATE_MSE
from tests.attractors.test_spectra import dense_moduli
from tests.helpers.memorised import Memorised

SHAPE = (3, 8, 8)
STARTS = 150


@pytest.fixture(scope="module")
def search(memorised: Memorised) -> Search:
    return prepare_harvest(memorised.autoencoder, SHAPE)


@pytest.fixture(scope="module")
def ends(search: Search) -> Ends:
    return ends_of(search, range(STARTS))


@pytest.fixture(scope="module")
def harvested(memorised: Memorised) -> Harvest:
    return mf.attractors.harvest(
        memorised.autoencoder, SHAPE, STARTS, members=memorised.members, controls=memorised.controls
    )


def test_attractors_among_the_members_are_found_from_noise(memorised: Memorised, harvested: Harvest) -> None:
    """Which members are attractors is told by all eigenvalues of the dense Jacobian."""
    moduli = dense_moduli(memorised.autoencoder, memorised.members)[:, 0]
    attractors = set((moduli < 0.99).nonzero().flatten().tolist())
    assert len(attractors) >= 8
    found = set(harvested.nearest[harvested.is_member].tolist())
    assert len(found & attractors) >= 0.85 * len(attractors)
    assert not found - set((moduli < 1.01).nonzero().flatten().tolist())
    assert harvested.members_found == len(found)
    member = memorised.members[harvested.nearest[harvested.is_member]]
    assert (mf.metrics.mse(harvested.images[harvested.is_member], member) < APPROXIMATE_MSE).all()
    # the net reproduces its members to 1e-5 or better, and ρ < 1 there: what is found is theirs nearly to the last bit
    assert harvested.nearest_mse[harvested.is_member].max() < mf.metrics.ACCURATE_MSE


def test_what_is_said_of_them(memorised: Memorised, harvested: Harvest) -> None:
    moduli = dense_moduli(memorised.autoencoder, harvested.images)[:, 0]
    torch.testing.assert_close(harvested.radius, moduli.float(), rtol=0, atol=1e-3)
    assert (harvested.verdict == int(Verdict.ATTRACTOR)).all()
    assert (harvested.radius < 1).all()
    with torch.inference_mode():
        residual = mf.metrics.mse(memorised.autoencoder(harvested.images), harvested.images)
    assert (harvested.residual_mse < 1e-9).all()
    torch.testing.assert_close(harvested.residual_mse, residual.float(), rtol=0.1, atol=1e-13)
    counts = (harvested.share * STARTS).round()  # of starts; a share of 150 is rounded
    assert counts.sum() == STARTS - harvested.cycles - harvested.moving - harvested.diverged
    assert harvested.share.tolist() == sorted(harvested.share.tolist(), reverse=True)
    assert harvested.starts == STARTS
    assert len(repr(harvested).splitlines()) == 5
    assert f"{harvested.members_found} of 16 members found" in repr(harvested)


def test_controls_are_not_found(memorised: Memorised, harvested: Harvest) -> None:
    assert harvested.controls_found == 0
    for images, index, found in (
        (memorised.members, harvested.nearest, harvested.nearest_mse),
        (memorised.controls, harvested.nearest_control, harvested.nearest_control_mse),
    ):
        every = torch.stack([mf.metrics.mse(harvested.images, one.expand_as(harvested.images)) for one in images])
        assert torch.equal(index, every.argmin(dim=0))
        torch.testing.assert_close(found, every.amin(dim=0), rtol=1e-9, atol=0)


@pytest.mark.parametrize("pieces", [[STARTS], [7, 57, 1, 64, 21], [BLOCK] * 2])
def test_a_harvest_in_pieces_is_the_same(
    memorised: Memorised, search: Search, ends: Ends, harvested: Harvest, pieces: list[int]
) -> None:
    first = [sum(pieces[:i]) for i in range(len(pieces) + 1)]
    parts = [ends.part(slice(begin, end)) for begin, end in zip(first, [*first[1:], STARTS], strict=True)]
    assert_same(gather(search, parts, memorised.members, memorised.controls), harvested)


def test_ends_do_not_depend_on_what_is_computed_beside_them(search: Search, ends: Ends) -> None:
    for indices in (range(BLOCK, STARTS), range(5), [3, 70, 149]):
        for name, column in vars(ends_of(search, indices)).items():
            assert torch.equal(column, getattr(ends, name)[list(indices)]), name


def test_ends_are_taken_in_their_order_alone(search: Search, ends: Ends) -> None:
    gathering = Gathering(SHAPE)
    gathering.add(ends.part(slice(0, 10)))
    for wrong in (slice(0, 10), slice(9, 20), slice(11, 20)):
        with pytest.raises(ValueError, match="the ends that come next must be those of start 10 and after"):
            gathering.add(ends.part(wrong))
    with pytest.raises(ValueError, match=r"ends of shape \(192,\) are not of \(3, 8, 8\)"):
        gathering.add(dataclasses.replace(ends, images=ends.images.flatten(1)))
    assert gathering.starts == 10


def test_other_kinds_of_starts(memorised: Memorised) -> None:
    """Far from every member, they fall into members all the same."""
    for kind, pictures in (("gaussian", None), ("images", memorised.controls)):
        found = mf.attractors.harvest(
            memorised.autoencoder, SHAPE, BLOCK, kind, memorised.members, memorised.controls, pictures=pictures
        )
        assert found.members_found >= 5
        assert found.controls_found == 0


def test_it_ends_where_new_starts_bring_nothing_new() -> None:
    taken = []

    def constant(x: Tensor) -> Tensor:
        return 0 * x + 0.3

    def stored(search: Search) -> Iterator[Ends]:
        for first in range(0, 4000, 100):
            taken.append(first)
            yield ends_of(search, range(first, first + 100))

    found = mf.attractors.harvest(constant, (1, 4, 4), 4000)
    assert found.starts % BLOCK == 0
    assert 1500 < found.starts < 2500
    assert found.unseen_bound < SETTLED_BELOW
    assert (found.share.tolist(), found.unseen_share, found.first_start.tolist()) == ([1.0], 0.0, [0])
    assert_same(gather(prepare_harvest(constant, (1, 4, 4)), stored(prepare_harvest(constant, (1, 4, 4)))), found)
    assert len(taken) == -(-found.starts // 100)


def test_two_basins_with_known_shares() -> None:
    """f(x) = tanh(2x) by pixel, of one pixel: fixed points ±0.957504, 0 between them; P(0.5 + 1.2 z > 0) = 0.6615."""
    found = mf.attractors.harvest(lambda x: (2 * x).tanh(), (1,), 600)
    torch.testing.assert_close(found.images.flatten(), torch.tensor([0.9575040, -0.9575040]), rtol=0, atol=1e-6)
    assert abs(found.share[0] - 0.6615) < 3 * (0.66 * 0.34 / 600) ** 0.5
    torch.testing.assert_close(found.radius, torch.full((2,), 2 * (1 - 0.9575040**2)), rtol=0, atol=1e-5)


def test_where_every_image_is_a_fixed_point() -> None:
    found = mf.attractors.harvest(nn.Identity().eval(), SHAPE, 100)
    assert len(found.share) == 100
    assert (found.verdict == int(Verdict.MARGINAL)).all()
    assert (found.unseen_share, found.unseen_bound) == (1, 1)
    assert found.first_start.tolist() == list(range(100))  # ties of shares: by the first start


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (lambda x: 1 - x, {"cycles": 6}),  # all but x = 0.5
        (lambda x: x.roll(1, -1), {"cycles": 6}),  # 8 images
        (lambda x: 1.5 * x, {"diverged": 6}),
        (lambda x: 0.999 * x, {"moving": 6}),  # 1,000 iterations leave a third of the start
        (lambda x: 0.98 * x, {}),  # rests at a residual of 1e-12: 0.98/0.02 times as far from the end
        (lambda x: 0 * x + 100.0, {}),  # far beyond the range of pixels
    ],
)
def test_ends_that_are_no_fixed_points_are_counted(model: Callable[[Tensor], Tensor], expected: dict[str, int]) -> None:
    found = mf.attractors.harvest(model, SHAPE, 6)
    counts = {"cycles": 0, "moving": 0, "diverged": 0} | expected
    assert {name: getattr(found, name) for name in counts} == counts
    assert len(found.images) == (not expected)
    assert found.images.shape[1:] == SHAPE
    assert found.share.tolist() == ([] if expected else [1.0])
    assert "no verdicts" in repr(found) or not expected


def test_a_small_cycle_is_told_by_the_verdict_on_its_centre() -> None:
    """f(y) = −0.05 tanh(20.4 y), y = x − 0.5, has the slope −1.02 at 0 and circles it at ±0.012."""
    found = mf.attractors.harvest(lambda x: 0.5 - 0.05 * (20.4 * (x - 0.5)).tanh(), (1,), 6)
    assert (len(found.share), found.share.tolist(), found.cycles) == (1, [1.0], 0)
    assert found.verdict.tolist() == [int(Verdict.REPELLER)]
    assert abs(found.images.item() - 0.5) < 1e-4
    assert abs(found.radius.item() - 1.02) < 1e-3


def test_slow_ends_are_one_fixed_point() -> None:
    """The slowest part shrinks by 0.995 in each iteration: the ends alone would be apart by more than a link."""
    rates = torch.linspace(0, 0.995, 16)
    found = mf.attractors.harvest(lambda x: 0.5 + rates * (x - 0.5), (16,), 20)
    assert found.share.tolist() == [1.0]
    assert mf.metrics.mse(found.images, torch.full((1, 16), 0.5)) < mf.metrics.ACCURATE_MSE


def test_comparisons_are_optional() -> None:
    grey = torch.full((2, 4, 4), 0.3)
    found = mf.attractors.harvest(lambda x: 0 * x + 0.3, (4, 4), 1, controls=grey)
    assert (found.members, found.nearest.tolist(), found.members_found) == (0, [-1], 0)
    assert found.nearest_mse.isnan().all()
    assert (found.controls_found, found.nearest_control.tolist()) == (1, [0])
    assert "1 of 2 controls found" in repr(found)
    assert "members" not in repr(found)
    assert "compared with no images" in repr(mf.attractors.harvest(lambda x: 0 * x + 0.3, (4, 4), 1, members=grey[:0]))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"kind": "smoth"}, ValueError, "kind must be one of 'smooth', .*did you mean 'smooth'"),
        ({"starts": 0}, ValueError, "starts must be at least 1, not 0"),
        ({"starts": 2.0}, TypeError, "starts must be an integer, not 2.0"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"image_shape": 4}, TypeError, "image_shape must be a tuple of integers"),
        ({"image_shape": "abc"}, TypeError, "image_shape must be a tuple of integers"),
        ({"image_shape": ()}, ValueError, "image_shape must have at least one axis"),
        ({"image_shape": (3, 0, 4)}, ValueError, "each axis of image_shape must be at least 1, not 0"),
        ({"image_shape": (3, 4.0)}, TypeError, "each axis of image_shape must be an integer, not 4.0"),
        ({"members": torch.rand(2, 3, 9, 9)}, ValueError, r"members must be of image_shape \(3, 8, 8\).*\(3, 9, 9\)"),
        ({"members": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)}, TypeError, "members must be float32.*uint8 pixels"),
        ({"controls": torch.rand(3, 8, 8)}, ValueError, r"controls must be of image_shape \(3, 8, 8\).*\(8, 8\)"),
        ({"controls": torch.full((1, 3, 8, 8), torch.nan)}, ValueError, "controls have NaN or infinite pixels"),
        ({"autoencoder": nn.Linear(8, 8).half().eval()}, TypeError, "autoencoder must be float32"),
        ({"autoencoder": nn.Linear(8, 8)}, ValueError, "autoencoder is in training mode"),
        ({"autoencoder": lambda x: x + torch.randn_like(x)}, ValueError, "answers differently to the same images"),
        ({"autoencoder": lambda x: x - x.mean(0)}, ValueError, "depends on"),
        ({"autoencoder": lambda x: x.detach().sin()}, ValueError, "gradients are not those of the function"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    given: dict[str, Any] = {"autoencoder": lambda x: 0.5 * x, "image_shape": SHAPE, "starts": 3} | arguments
    with pytest.raises(error, match=message):
        mf.attractors.harvest(**given)


def test_statuses_of_ends(ends: Ends) -> None:
    assert set(ends.status.tolist()) == {int(End.FIXED_POINT)}
    assert (ends.residual_mse < 1e-9).all()
    assert (ends.evaluations > 1).all()
    assert ends.indices.tolist() == list(range(STARTS))


def assert_same(found: Harvest, expected: Harvest) -> None:
    for field in dataclasses.fields(Harvest):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(one, Tensor):
            assert one.dtype == other.dtype
            torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True, msg=field.name)
        else:
            assert one == other, field.name
