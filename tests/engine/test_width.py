"""How many slots of a CPU are filled."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import memrecon_fast as mf
from memrecon_fast.engine.inflight import InFlight
from memrecon_fast.engine.width import BLOCKS, FEWEST, Width


def widths(most: int, seconds_of_image: Callable[[int], float], blocks: int = 5 * BLOCKS) -> list[int]:
    """What is filled, block by block, by so much for an image among so many."""
    width = Width(most, found=True)
    filled = []
    for _ in range(blocks):
        filled.append(width.now)
        width.note(width.now, width.now * seconds_of_image(width.now))
    return filled


def test_twice_as_many_slots_are_filled_while_that_is_worth_it() -> None:
    assert widths(256, lambda images: 1 / images) == [64] * 3 + [128] * 3 + [256] * 9
    assert widths(256, lambda images: 1.0) == [64] * 3 + [128] * 3 + [64] * 9
    assert widths(256, lambda images: 1.0 if images < 128 else 0.9) == [64] * 3 + [128] * 3 + [256] * 3 + [128] * 6


def test_there_are_no_more_than_fit() -> None:
    assert widths(200, lambda images: 1 / images) == [64] * 3 + [128] * 12
    assert widths(100, lambda images: 1 / images) == [64] * 15
    assert widths(7, lambda images: 1 / images) == [7] * 15


def test_the_shortest_block_counts_and_only_full_ones() -> None:
    width = Width(256, found=True)
    for seconds in (1.0, 9.0, 9.0):
        width.note(64, seconds)
        width.note(63, 1e-9)
    assert width.now == 128
    for seconds in (9.0, 9.0, 1.0):
        assert width.now == 128
        width.note(128, seconds)
    assert width.now == 256


def test_a_number_that_was_asked_for_is_filled_at_once() -> None:
    width = Width(200, found=False)
    assert width.now == 200
    for _ in range(10):
        width.note(200, 1.0)
    assert width.now == 200


def contracting(images: torch.Tensor) -> torch.Tensor:
    return images * 0.5 + 0.2


@pytest.mark.parametrize("faster", [True, False])
def test_the_search_changes_no_bit(monkeypatch: pytest.MonkeyPatch, faster: bool) -> None:
    """700 images, more than there are slots at most, on a clock by which more rows are faster, or slower."""
    degraded = torch.rand(700, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    degraded[:, :, 0] = 0
    settings = mf.Settings(gamma=(0.5, 1.0), max_outer_iterations=12)
    expected = mf.recover(contracting, degraded, slots=16, settings=settings)
    rows: list[int] = []
    ticks = iter(range(10**6))
    clock = [0.0]

    def now() -> float:
        if next(ticks) % 2:  # the end of a block
            clock[0] += 1.0 if faster else float(rows[-1] ** 2)
        return clock[0]

    def watched(images: torch.Tensor) -> torch.Tensor:
        rows.append(len(images))
        return contracting(images)

    monkeypatch.setattr("memrecon_fast.engine.inflight.time.perf_counter", now)
    got = mf.recover(watched, degraded, settings=settings)
    for name in ("images", "masks", "status", "evaluations", "score", "gamma"):
        assert torch.equal(getattr(got, name), getattr(expected, name)), name
    assert max(rows) == (256 if faster else 128)


def test_what_is_found_by_time_is_not_sought_where_it_could_change_a_bit() -> None:
    class Odd(torch.nn.Module):
        batch_sizes = range(257, 258)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return contracting(images)

    with pytest.warns(RuntimeWarning, match=r"takes 257 images at a time, no multiple of"):
        solver = mf.prepare_recover(Odd().eval(), (1, 3, 4))
    assert "256 slots" in InFlight(solver).how
    assert "64 slots" in InFlight(mf.prepare_recover(contracting, (1, 3, 4))).how


@pytest.mark.filterwarnings("default:memory ran out:RuntimeWarning")
def test_after_memory_ran_out_no_more_slots_are_filled_than_before() -> None:
    rows: list[int] = []

    def hungry(images: torch.Tensor) -> torch.Tensor:
        rows.append(len(images))
        if len(images) > 16:
            raise torch.OutOfMemoryError("there is no memory for that many")
        return contracting(images)

    degraded = torch.rand(300, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    degraded[:, :, 0] = 0
    result = mf.recover(hungry, degraded, settings=mf.Settings(gamma=0.5, max_outer_iterations=3))
    assert len(result.images) == 300
    assert max(rows) == FEWEST


def test_slots_are_no_more_than_the_images() -> None:
    solver = mf.prepare_recover(contracting, (1, 3, 4))
    assert InFlight(solver, images=5).slots == 5
    assert InFlight(solver, 3, images=5).slots == 3
    assert InFlight(solver, images=0).slots == 1
    assert f"{FEWEST} slots" in InFlight(solver).how
