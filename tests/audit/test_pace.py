"""The time that is left of an audit."""

from __future__ import annotations

import pytest

from memrecon_fast.audit.pace import Left, Pace
from memrecon_fast.audit.store.records import Cell

OURS, THEIRS = Cell("members", "half", "paper"), Cell("controls", "half", "paper")
FAST, FAST_CONTROLS = Cell("members", "half", "accelerated"), Cell("controls", "half", "accelerated")
OF_EVALUATION = 1e-3
"""Seconds."""


def work(pace: Pace, cell: Cell, evaluations: int, count: int) -> None:
    for _ in range(count):
        pace.add(cell, evaluations, evaluations * OF_EVALUATION)


def assert_left(pace: Pace, seconds: float, unknown: tuple[str, ...]) -> None:
    assert pace.left().seconds == pytest.approx(seconds)
    assert pace.left().unknown == unknown


def test_members_and_controls_are_counted_at_their_own_costs() -> None:
    pace = Pace({OURS: 10, THEIRS: 10}, {})
    work(pace, OURS, 130, 8)
    work(pace, THEIRS, 3301, 2)
    assert_left(pace, (2 * 130 + 8 * 3301) * OF_EVALUATION, ())
    work(pace, THEIRS, 3301, 8)
    work(pace, OURS, 130, 2)
    assert pace.left() == Left(0.0, ())


def test_what_nothing_is_known_of_is_named_and_not_guessed() -> None:
    pace = Pace({FAST: 20, FAST_CONTROLS: 10, OURS: 10, THEIRS: 10}, {})
    assert pace.left() == Left(0.0, ("accelerated", "paper"))
    work(pace, FAST, 100, 15)
    assert_left(pace, 5 * 100 * OF_EVALUATION, ("controls", "paper"))
    work(pace, FAST_CONTROLS, 120, 5)
    assert_left(pace, 5 * 220 * OF_EVALUATION, ("paper",))


def test_nothing_is_said_before_enough_of_what_is_in_the_works_is_done() -> None:
    """64 images at a time, each of 100 evaluations: the first to be done took as long as all 64."""
    pace = Pace({FAST: 1000}, {})
    pace.add(FAST, 100, 64 * 100 * OF_EVALUATION)
    assert pace.left() == Left(0.0, ("accelerated",))
    for _ in range(255):
        pace.add(FAST, 100, 0.0)
        assert (pace.left().unknown == ()) == (pace.left().seconds > 0)
    assert_left(pace, 744 * 64 * 100 / 256 * OF_EVALUATION, ())
    few = Pace({FAST: 4, OURS: 4}, {OURS: (1, 100)})
    work(few, FAST, 100, 1)
    assert few.left() == Left(0.0, ("accelerated", "paper"))
    work(few, FAST, 100, 1)
    assert_left(few, (2 + 4) * 100 * OF_EVALUATION, ())


def test_of_a_run_that_goes_on_the_costs_are_known_and_the_speed_is_that_of_now() -> None:
    before = {FAST: (10, 1000), OURS: (5, 500), THEIRS: (5, 15000)}
    pace = Pace({FAST: 0, FAST_CONTROLS: 2, OURS: 5, THEIRS: 5}, before)
    assert pace.left() == Left(0.0, ("accelerated", "paper"))
    work(pace, FAST_CONTROLS, 200, 1)
    assert pace.left().seconds == pytest.approx((200 + 5 * 100 + 5 * 3000) * OF_EVALUATION)
    assert pace.left().unknown == ()


def test_a_method_without_the_model_has_a_pace_of_its_own() -> None:
    painted = Cell("members", "half", "inpaint")
    pace = Pace({FAST: 2, painted: 4}, {painted: (2, 0)})
    work(pace, FAST, 100, 1)
    assert_left(pace, 100 * OF_EVALUATION, ("inpaint",))
    work(pace, FAST, 100, 1)
    for _ in range(2):
        pace.add(painted, 0, 7.0)
    assert pace.left() == Left(14.0, ())
