"""Images of a gallery are called what they are."""

from __future__ import annotations

import numpy as np
import pytest

from memrecon_fast.audit.analysis.groups import grouped
from memrecon_fast.audit.analysis.statistics import choose

ACCURATE_APPROXIMATE = (1e-7, 5e-4)
BEST, BETWEEN, EXACT = "best", "in between, near no threshold", "least exact, accurate all the same"


@pytest.mark.parametrize(
    ("low", "high", "thresholds", "headings"),
    [
        (1e-12, 1e-10, ACCURATE_APPROXIMATE, [BEST, BETWEEN, EXACT]),
        (1e-9, 9e-8, ACCURATE_APPROXIMATE, [BEST, "borderline", EXACT]),
        (1e-9, 1e-4, ACCURATE_APPROXIMATE, [BEST, "borderline", "least exact of those that came back"]),
        (1e-9, 1e-1, ACCURATE_APPROXIMATE, [BEST, "borderline", "worst"]),
        (1e-2, 1e-1, ACCURATE_APPROXIMATE, [BEST, BETWEEN, "worst"]),
        (1e-9, 1e-1, (1e-5,), [BEST, BETWEEN, "worst"]),  # no original: what is near 1e-7 is near nothing
        (1e-9, 1e-6, (1e-5,), [BEST, BETWEEN, "least exact of those that came back"]),
        (1e-9, 1e-1, (), [BEST, BETWEEN, "worst"]),  # nothing can be recognized
    ],
)
def test_groups_are_called_what_they_are(
    low: float, high: float, thresholds: tuple[float, ...], headings: list[str]
) -> None:
    errors = np.geomspace(low, high, 30)
    found = grouped(choose(errors), dict(enumerate(errors.tolist())), thresholds)
    assert list(found) == headings
    assert sorted(index for indices in found.values() for index in indices) == sorted(choose(errors))
    for name in {"borderline"} & found.keys():
        assert all(min(abs(np.log10(errors[index] / limit)) for limit in thresholds) <= 1 for index in found[name])


def test_of_the_last_ones_those_that_failed_are_the_worst() -> None:
    errors = np.array([1e-9] * 8 + [1e-8, 1e-5, 1e-2, np.inf])
    found = grouped(choose(errors), dict(enumerate(errors.tolist())), ACCURATE_APPROXIMATE)
    assert (found[EXACT], found["least exact of those that came back"], found["worst"]) == ([8], [9], [10, 11])
