"""Statistics of the records of a cell: errors, rates with confidence intervals, the ROC, the images worth a look."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from memrecon_fast.audit.store.records import Columns
from memrecon_fast.metrics import ACCURATE_MSE, APPROXIMATE_MSE

CONFIDENCE = 0.95
FALSE_POSITIVE_RATES = (0.0, 0.001, 0.01)
"""At which the true-positive rate is stated."""
GROUPS = BEST, BORDERLINE, WORST = ("best", "borderline", "worst")
"""Of the images that a gallery shows, by rank; how they are called there, `groups` says."""
IN_EACH_GROUP = 4


def rate_interval(successes: int, total: int) -> tuple[float, float]:
    """The interval that holds the rate behind `successes` of `total` ≥ 1 with 95 % confidence (Wilson)."""
    from scipy.stats import binomtest  # a second of imports, which workers need not spend

    interval = binomtest(successes, total).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def errors(columns: Columns) -> NDArray[np.float64]:
    """The MSE of each image, or its score where its original is unknown; infinite where it diverged."""
    found = np.where(columns["diverged"].astype(bool), np.inf, columns["mse"]).astype(np.float64)
    unknown = np.isnan(found)
    return np.where(unknown, scores(columns), found) if unknown.any() else found


def scores(columns: Columns) -> NDArray[np.float64]:
    """`results.score_of` each estimate, see `recognition`; infinite where it diverged, or is NaN."""
    found = np.where(columns["diverged"].astype(bool), np.inf, columns["score"]).astype(np.float64)
    return np.where(np.isnan(found), np.inf, found)


def something_erased(columns: Columns) -> NDArray[np.bool_]:
    """Which images the mask erased something of, so that they count, see `Record.erased_mse`; True where that is not
    known."""
    return ~(columns["erased_mse"] < APPROXIMATE_MSE)


def extremes(errors: NDArray[np.float64], count: int) -> set[int]:
    """The positions of the `count` lowest and the `count` highest errors; of equal ones the first, or the last.

    They are also the extremes of any part of the errors that contains them.
    """
    ascending = np.argsort(errors, kind="stable").tolist()
    return {*ascending[:count], *ascending[max(0, len(ascending) - count) :]}


def choose(errors: NDArray[np.float64]) -> dict[int, str]:
    """Which images a gallery shows: position → its group of `GROUPS`, in the order of the groups.

    errors: the MSE of each, in the order of their indices, infinite where it diverged. The lowest errors, those nearest
    to a threshold of recovery (as ratios) and the highest, no image twice; of equal ones the first.
    """
    ascending = np.argsort(errors, kind="stable")
    best = ascending[:IN_EACH_GROUP]
    worst = ascending[IN_EACH_GROUP:][-IN_EACH_GROUP:]
    between = np.sort(ascending[IN_EACH_GROUP : len(ascending) - len(worst)])
    borderline = between[np.argsort(_distance(errors[between]), kind="stable")[:IN_EACH_GROUP]]
    groups = zip(GROUPS, (best, borderline[np.argsort(errors[borderline], kind="stable")], worst), strict=True)
    return {int(position): group for group, positions in groups for position in positions}


def candidates(errors: NDArray[np.float64]) -> set[int]:
    """Positions that include all that `choose` could choose, whatever other images are added."""
    ascending = np.argsort(errors, kind="stable")
    borderline = np.argsort(_distance(errors), kind="stable")[: 3 * IN_EACH_GROUP]
    return {*ascending[:IN_EACH_GROUP].tolist(), *ascending[-2 * IN_EACH_GROUP :].tolist(), *borderline.tolist()}


def choose_shown(columns: Columns) -> dict[int, str]:
    """The images of a cell that the gallery shows, of those that count: index → group."""
    counted = something_erased(columns)
    indices = columns["index"][counted]
    return {int(indices[at]): group for at, group in choose(errors(columns)[counted]).items()}


def roc(members: NDArray[np.float64], controls: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False- and true-positive rates, ascending, where an image whose MSE is below a threshold counts as a member.

    One point for each threshold that tells two images apart. members, controls: MSEs, at least one each.
    """
    thresholds = np.append(np.unique(np.concatenate([members, controls])), np.inf)
    return tuple(np.searchsorted(np.sort(mse), thresholds) / len(mse) for mse in (controls, members))  # type: ignore[return-value]


def true_positives_at(
    false_positive_rate: float, members: NDArray[np.float64], controls: NDArray[np.float64]
) -> dict[str, Any]:
    """The largest true-positive rate with at most this rate of false positives, and the threshold that gives it.

    threshold: images with an MSE below it count as members; None where that is all that did not diverge. told: whether
    there are controls enough to tell this rate from 0, for which n of them must be at least 1/n.
    """
    allowed = int(false_positive_rate * len(controls) + 1e-9)
    ordered = np.sort(controls)
    threshold = ordered[allowed] if allowed < len(ordered) else np.inf
    found = int((members < threshold).sum())
    low, high = rate_interval(found, len(members))
    return {
        "false_positive_rate": false_positive_rate,
        "threshold": float(threshold) if np.isfinite(threshold) else None,
        "true_positive_rate": found / len(members),
        "interval": [low, high],
        "told": allowed > 0 or false_positive_rate == 0,
    }


def _distance(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """From the nearer of the two thresholds: the logarithm of the ratio."""
    with np.errstate(divide="ignore"):  # equal images
        logarithms = np.log(errors)
    accurate, approximate = (np.abs(logarithms - np.log(limit)) for limit in (ACCURATE_MSE, APPROXIMATE_MSE))
    nearer: NDArray[np.float64] = np.minimum(accurate, approximate)
    return nearer
