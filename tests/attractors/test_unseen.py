"""What is said of the unseen share, against simulations in which it is known."""

from __future__ import annotations

import math

import numpy as np

from memrecon_fast.attractors.unseen import BLOCK, DOUBT, unseen_bound, unseen_share

MASSES = np.arange(1, 61.0) ** -1.5
MASSES /= MASSES.sum()
"""Of 60 attractors, the rarest 1/460 as frequent as the most frequent: a few of them are unseen for long."""


def simulate(starts: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.random.Generator(np.random.Philox(seed)).choice(len(MASSES), starts, p=MASSES)


def test_good_turing_has_no_bias_to_speak_of() -> None:
    """Its mean is the unseen share after one start less: by at most 1/n higher."""
    starts, estimates, truths = 300, [], []
    for seed in range(400):
        ends = simulate(starts, seed)
        counts = np.bincount(ends, minlength=len(MASSES))
        estimates.append(unseen_share(counts[counts > 0].tolist(), starts))
        truths.append(MASSES[counts == 0].sum())
    differences = np.array(estimates) - truths
    error = differences.std() / math.sqrt(len(differences))
    assert -3 * error < differences.mean() < 1 / starts + 3 * error
    assert 0.01 < np.mean(truths) < 0.1


def test_the_bound_holds_at_all_looks() -> None:
    """It may fail in 5 % of 300 simulations of 30 looks; as Chernoff's inequality is no exact one, it does in fewer."""
    failed, last = 0, []
    for seed in range(300):
        ends = simulate(30 * BLOCK, seed)
        _, news = np.unique(ends, return_index=True)
        news = np.sort(news)
        unseen = 1 - np.cumsum(np.bincount(news, MASSES[ends[news]], len(ends)))
        looks = range(BLOCK, len(ends) + 1, BLOCK)
        bounds = [unseen_bound(news[news < look].tolist(), look) for look in looks]
        failed += any(bound < unseen[look - 1] for bound, look in zip(bounds, looks, strict=True))
        last.append(bounds[-1])
    assert failed <= DOUBT * 300
    assert np.median(last) < 0.03  # it says something


def test_values() -> None:
    assert unseen_share([], 0) == 1
    assert unseen_share([5, 1, 1, 3], 20) == 0.1
    # nothing new in the later half of 64: (1 − p)³² = 0.05/2
    assert math.isclose(unseen_bound([0, 3, 31], 64), 1 - (DOUBT / 2) ** (1 / 32), rel_tol=1e-9)
    # ten looks, one that was new among the later 320
    p = unseen_bound([0, 9, 500], 10 * BLOCK)
    q = 1 / 320
    divergence = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
    assert math.isclose(320 * divergence, math.log(10 * 11 / DOUBT), rel_tol=1e-9)
    assert unseen_bound(range(640), 640) == 1
    assert unseen_bound([], 63) == 1


def test_what_comes_after_a_look_is_left_out() -> None:
    assert unseen_bound([0, 70, 100], 127) == unseen_bound([0], 64) < 1
