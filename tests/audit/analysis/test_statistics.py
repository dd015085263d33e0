from __future__ import annotations

import math

import numpy as np
import pytest

from memrecon_fast.audit.analysis.statistics import errors, extremes, rate_interval, roc, true_positives_at

MEMBERS = np.array([1e-9, 1e-8, 1e-3, np.inf])
CONTROLS = np.array([1e-4, 1e-2])


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
