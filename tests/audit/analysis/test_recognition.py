from __future__ import annotations

import math

import numpy as np
import pytest

import memrecon_fast as mf
from memrecon_fast.audit.analysis.recognition import auc, calibrate
from memrecon_fast.audit.analysis.statistics import roc
from memrecon_fast.results import RECOGNIZED_BELOW, noise_floor
from tests.helpers.auditing import SHAPE
from tests.helpers.memorised import Memorised

NONE = np.empty(0)


@pytest.mark.parametrize(
    ("controls", "floor", "threshold"),
    [
        (NONE, 0.0, 1e-4),
        (NONE, 4e-4, 5e-4),
        (np.array([1.0, 0.5]), 0.0, 1e-4),  # few controls that are far away do not raise it
        (np.array([1.0, 1.6e-4]), 0.0, 0.8e-4),
        (np.array([1.0, 4.6e-4]), 4e-4, 4.3e-4),  # in the middle between the floor and the control
        (np.array([1.0, 3e-4]), 4e-4, 0.0),  # below what noise leaves of members
        (np.array([1.0, 0.0]), 0.0, 0.0),
        (np.array([np.inf, np.inf]), 0.0, 1e-4),
    ],
)
def test_the_threshold_keeps_away_from_the_controls(controls: np.ndarray, floor: float, threshold: float) -> None:
    calibration = calibrate(controls, floor)
    assert calibration.threshold == pytest.approx(threshold, rel=1e-12)
    assert calibration.limit == floor + RECOGNIZED_BELOW
    assert not (controls < calibration.threshold).any()


@pytest.mark.parametrize(("count", "bound"), [(1, 0.95), (40, 0.0722), (3000, 0.000998)])
def test_the_bound_of_false_positives_is_about_three_over_n(count: int, bound: float) -> None:
    assert calibrate(np.ones(count)).false_positive_bound == pytest.approx(bound, rel=1e-3)
    assert calibrate(NONE).false_positive_bound is None


def test_the_bound_holds_as_often_as_it_says() -> None:
    """Also where the threshold is as high as the rule allows: twenty controls, whose scores are what they may be."""
    random = np.random.default_rng(0)
    runs = [calibrate(random.random(20) * 1e-4) for _ in range(2000)]
    rates = np.array([2 * run.threshold / 1e-4 for run in runs])  # of such images below the lowest control
    bound = runs[0].false_positive_bound
    assert bound is not None
    assert 0.93 < (rates <= bound).mean() < 0.97


def test_what_noise_leaves_is_scaled_by_the_entries_that_carry_it() -> None:
    assert noise_floor(0.0, 192, 192) == noise_floor(0.02, 0, 192) == 0
    assert noise_floor(0.02, 10**8, 10**8) == pytest.approx(4e-4, rel=1e-3)
    assert noise_floor(0.02, 48, 192) == pytest.approx(1e-4 * (1 + 2 * math.sqrt(2 / 48)))


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("noise_std", [0.0, 0.01, 0.02])
def test_members_are_recognized_and_controls_are_not(memorised: Memorised, noise_std: float, known: bool) -> None:
    """With the real solvers: the verdict without the original is that with it, at every noise."""
    mask = mf.degradation.make_mask("random-50", SHAPE)
    settings = mf.Settings(
        solver="paper" if known else "accelerated", max_outer_iterations=20, restore_known_pixels=noise_std == 0
    )
    found = {}
    for split in ("members", "controls"):
        images = getattr(memorised, split)
        degraded = mf.degradation.erase(images, mask, noise_std)
        recovery = mf.recover(memorised.autoencoder, degraded, mask if known else None, settings, "torch")
        back = mf.metrics.mse(recovery.images, images) < mf.metrics.APPROXIMATE_MSE
        found[split] = recovery.score.double().numpy(), back.numpy()
    pixels = math.prod(SHAPE)
    floor = noise_floor(noise_std, int(mask.sum()) if known else pixels, pixels)
    calibration = calibrate(found["controls"][0], floor)
    assert calibration.threshold == calibration.limit  # no control comes near
    for scores, came_back in found.values():
        np.testing.assert_array_equal(scores < calibration.threshold, came_back)
    assert found["members"][1].sum() >= 15


def test_the_area_is_that_under_the_roc() -> None:
    random = np.random.default_rng(0)
    members, controls = random.random(37).round(1), random.random(23).round(1) + 0.2  # with ties
    area = auc(members, controls)
    assert area == pytest.approx(np.mean([(m < c) + (m == c) / 2 for m in members for c in controls]), rel=1e-12)
    false, true = (np.append(0, rate) for rate in roc(members, controls))
    assert area == pytest.approx(np.diff(false) @ (true[1:] + true[:-1]) / 2, rel=1e-12)
    assert auc(np.array([1.0]), np.array([2.0])) == 1
    assert auc(np.array([np.inf]), np.array([np.inf])) == 0.5


@pytest.mark.parametrize(("members", "controls"), [(1, 1), (1, 7), (8, 8), (25_000, 24_989)])
def test_the_area_is_a_count_of_pairs_to_the_last_bit(members: int, controls: int) -> None:
    """However many there are, and however many are equal or infinite."""
    random = np.random.default_rng(members)
    ours, theirs = 10 ** random.uniform(-12, 0, members), 10 ** random.uniform(-8, 0, controls)
    for found in (ours, theirs):
        found[random.random(len(found)) < 0.3] = np.inf
        found[random.random(len(found)) < 0.3] = 1e-6
    ordered = np.sort(theirs)
    higher = len(ordered) - np.searchsorted(ordered, ours, side="right")
    not_lower = len(ordered) - np.searchsorted(ordered, ours, side="left")
    assert auc(ours, theirs) == (higher + not_lower).mean() / (2 * len(ordered))
