from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from memrecon_fast.audit.analysis.statistics import (
    GROUPS,
    IN_EACH_GROUP,
    candidates,
    choose,
    errors,
    extremes,
    rate_interval,
    roc,
    true_positives_at,
)
from memrecon_fast.metrics import ACCURATE_MSE, APPROXIMATE_MSE

MEMBERS = np.array([1e-9, 1e-8, 1e-3, np.inf])
CONTROLS = np.array([1e-4, 1e-2])
RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("successes", "total"), [(0, 30), (30, 30), (3, 10), (1, 1), (50, 25_000)])
def test_the_interval_is_wilsons(successes: int, total: int) -> None:
    z, p = 1.959963984540054, successes / total  # the normal distribution's 97.5 % point
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    expected = (max(0.0, centre - half), min(1.0, centre + half))
    assert rate_interval(successes, total) == pytest.approx(expected, abs=1e-12)


def test_what_diverged_is_never_a_positive() -> None:
    columns = {"mse": np.array([1e-9, np.nan, 1e-9]), "diverged": np.array([False, True, True])}
    assert errors(columns).tolist() == [1e-9, np.inf, np.inf]
    false, true = roc(MEMBERS, CONTROLS)
    assert true[-1] == 0.75
    assert false[-1] == 1.0


def test_the_roc_counts_at_every_threshold() -> None:
    random = np.random.default_rng(0)
    members, controls = random.random(40).round(1), random.random(30).round(1)  # with ties
    false, true = roc(members, controls)
    points = set(zip(false.tolist(), true.tolist(), strict=True))
    for threshold in np.linspace(0, 1.1, 111):
        assert ((controls < threshold).mean(), (members < threshold).mean()) in points
    assert (np.diff(false) >= 0).all()
    assert (np.diff(true) >= 0).all()


def test_true_positives_where_no_control_is_found() -> None:
    at = true_positives_at(0.0, MEMBERS, CONTROLS)
    assert (at["true_positive_rate"], at["threshold"]) == (0.5, 1e-4)
    assert at["interval"] == pytest.approx(rate_interval(2, 4))


@pytest.mark.parametrize("rate", [0.0, 0.001, 0.01, 0.5, 1.0])
def test_no_larger_threshold_would_do(rate: float) -> None:
    random = np.random.default_rng(1)
    members, controls = random.random(500).round(2), random.random(2000).round(3)
    at = true_positives_at(rate, members, controls)
    threshold = math.inf if at["threshold"] is None else at["threshold"]
    assert (controls < threshold).mean() <= rate
    assert at["true_positive_rate"] == (members < threshold).mean()
    better = [t for t in np.unique(np.append(controls, np.inf)) if t > threshold and (controls < t).mean() <= rate]
    assert not better


def test_few_controls_do_not_make_a_thousandth() -> None:
    assert true_positives_at(0.001, MEMBERS, CONTROLS)["threshold"] == 1e-4
    many = np.append(np.full(999, 1.0), 1e-6)
    assert true_positives_at(0.001, MEMBERS, many)["threshold"] == 1.0


def test_the_extremes_are_the_lowest_and_the_highest() -> None:
    mse = np.array([3.0, 1.0, np.inf, 1.0, 2.0, np.inf])
    assert extremes(mse, 0) == set()
    assert extremes(mse, 1) == {1, 5}  # of equal ones the first, or the last
    assert extremes(mse, 2) == {1, 3, 2, 5}
    assert extremes(mse, 100) == set(range(6))


def test_the_extremes_of_a_part_that_holds_them_are_the_same() -> None:
    random = np.random.default_rng(0)
    mse = random.random(200).round(2)
    kept = extremes(mse, 5)
    part = np.sort(np.array([*kept, *set(range(0, 200, 7)) - kept]))
    assert {int(part[position]) for position in extremes(mse[part], 5)} == kept


def random_errors(count: int) -> NDArray[np.float64]:
    """Over all orders of magnitude, or between the thresholds; with equal ones, with 0, and with infinite ones."""
    lowest, highest = (-14, 0) if RNG.random() < 0.5 else np.log10([ACCURATE_MSE, APPROXIMATE_MSE])
    errors = 10.0 ** RNG.uniform(lowest, highest, count)
    errors = errors[RNG.integers(0, count, count)] if RNG.random() < 0.5 else errors
    for value in (0.0, np.inf, ACCURATE_MSE, APPROXIMATE_MSE):
        errors[RNG.random(count) < RNG.choice([0, 0.1, 0.5])] = value
    return errors


def test_the_lowest_the_highest_and_those_near_a_threshold_are_chosen() -> None:
    errors = np.array([0.3, 1e-11, 6e-4, 1e-3, 0.4, 2e-7, 1e-12, 1e-9, 0.1, 4e-4, 1e-10, 0.2, 3e-9, 0.05, 1e-5])
    chosen = choose(errors)
    groups = {group: [at for at, name in chosen.items() if name == group] for group in GROUPS}
    assert groups["best"] == [6, 1, 10, 7]  # in the order of their errors
    assert groups["borderline"] == [5, 9, 2, 3]
    assert groups["worst"] == [8, 11, 0, 4]
    assert list(chosen) == groups["best"] + groups["borderline"] + groups["worst"]


def test_of_equal_errors_the_first_are_chosen_and_no_image_twice() -> None:
    chosen = choose(np.full(20, 0.01))
    assert list(chosen) == [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19]
    assert list(chosen.values()) == [group for group in GROUPS for _ in range(IN_EACH_GROUP)]


@pytest.mark.parametrize("count", range(14))
def test_few_images_are_all_chosen(count: int) -> None:
    for some in (RNG.random(count), np.zeros(count), np.full(count, np.inf)):
        chosen = choose(some)
        assert len(chosen) == min(count, 3 * IN_EACH_GROUP)
        if count <= 3 * IN_EACH_GROUP:
            assert sorted(chosen) == list(range(count))
        for number, group in enumerate(("best", "worst", "borderline")):  # in this order they are filled
            assert list(chosen.values()).count(group) == min(max(count - number * IN_EACH_GROUP, 0), IN_EACH_GROUP)


def test_the_groups_are_what_they_are_called() -> None:
    for _ in range(300):
        errors = random_errors(int(RNG.integers(12, 60)))
        chosen = choose(errors)
        best, borderline, worst = ([at for at, name in chosen.items() if name == group] for group in GROUPS)
        assert len({*best, *borderline, *worst}) == 3 * IN_EACH_GROUP
        others = sorted(set(range(len(errors))) - {*best, *worst})
        assert errors[best].max() <= errors[others].min() if others else True
        assert errors[worst].min() >= errors[others].max() if others else True
        with np.errstate(divide="ignore"):
            ratios = np.abs(np.log(errors[:, None]) - np.log([ACCURATE_MSE, APPROXIMATE_MSE])).min(axis=1)
        left = sorted(set(others) - set(borderline))
        assert not left or ratios[borderline].max() <= ratios[left].min()


def test_what_may_be_chosen_of_the_whole_is_a_candidate_of_every_part() -> None:
    for _ in range(500):
        count = int(RNG.integers(1, 120))
        errors = random_errors(count)
        parts = RNG.integers(0, RNG.integers(1, 6), count)
        kept: set[int] = set()
        for part in range(parts.max() + 1):
            indices = np.flatnonzero(parts == part)
            kept |= {int(indices[position]) for position in candidates(errors[indices])}
        assert set(choose(errors)) <= kept


def test_candidates_of_candidates_and_more_are_enough() -> None:
    """As a part grows, what was dropped of it once does not come back."""
    for _ in range(200):
        count = int(RNG.integers(20, 200))
        errors = random_errors(count)
        kept = np.empty(0, np.int64)
        for arriving in np.array_split(RNG.permutation(count), 5):
            together = np.sort(np.concatenate([kept, arriving]))
            kept = together[sorted(candidates(errors[together]))]
        assert set(choose(errors)) <= set(kept.tolist())


def test_candidates_are_few() -> None:
    assert max(len(candidates(random_errors(1000))) for _ in range(20)) <= 6 * IN_EACH_GROUP
