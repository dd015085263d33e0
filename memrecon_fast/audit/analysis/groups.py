"""What the images that a gallery shows are called: by what came of them, not by their rank alone.

Where all images came back accurately, the last ones are no failures, and none is near a threshold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from memrecon_fast.audit.analysis.statistics import BEST, BORDERLINE

NEAR = 10.0
"""Borderline is an error within this factor of a threshold: 10 dB."""
IN_BETWEEN = "in between, near no threshold"
LAST = "least exact of those that came back"
LAST_ACCURATE = "least exact, accurate all the same"
WORST = "worst"
HEADINGS = (BEST, BORDERLINE, IN_BETWEEN, LAST_ACCURATE, LAST, WORST)


def heading_of(group: str, error: float, thresholds: Sequence[float]) -> str:
    """The heading of `HEADINGS` that an image stands under.

    group: of `statistics.GROUPS`. thresholds: the errors below which an image counts as recovered, the strictest first.
    """
    if group == BEST:
        return BEST
    if group == BORDERLINE:
        near = any(limit / NEAR <= error <= limit * NEAR for limit in thresholds)
        return BORDERLINE if near else IN_BETWEEN
    if not thresholds or not error < thresholds[-1]:
        return WORST
    return LAST_ACCURATE if len(thresholds) > 1 and error < thresholds[0] else LAST


def grouped(
    chosen: Mapping[int, str], errors: Mapping[int, float], thresholds: Sequence[float]
) -> dict[str, list[int]]:
    """The chosen images under their headings. chosen: index → group; errors: index → error."""
    headings = {index: heading_of(group, errors[index], thresholds) for index, group in chosen.items()}
    return {
        heading: [index for index in chosen if headings[index] == heading]
        for heading in HEADINGS
        if heading in headings.values()
    }
