"""What a comparison of several runs says."""

from __future__ import annotations

import dataclasses
from typing import Any

OVER_MASKS = None
"""As the mask of a row: under at least one mask."""


@dataclasses.dataclass(frozen=True)
class Compared:
    """One of the runs."""

    label: str
    group: str
    path: str
    model: str
    error: float | None
    """With which the model reconstructs its members: a mean squared error; None where it was not measured."""


@dataclasses.dataclass(frozen=True)
class SideBySide:
    """Several runs: each image, mask and method that all of them have."""

    runs: tuple[Compared, ...]
    masks: list[str]
    methods: list[str]
    verdicts: tuple[str, ...]
    """The strictest first."""
    images: dict[str, int]
    """By split, how many are compared."""
    rows: list[dict[str, Any]]
    """For each run, mask, method and split: "run", "group", "error", "mask" (None: under at least one of them),
    "method", "split", "images", and of each verdict VERDICT_rate and VERDICT_interval, 95 % by Wilson; None where no
    image is common."""
    spread: list[dict[str, Any]]
    """For each group, mask, method and split: over how many "runs", and of each verdict VERDICT_mean,
    VERDICT_deviation (of a sample; None for one run), VERDICT_lowest and VERDICT_highest."""
    remarks: list[str]
    """What is left out, and why; settings that differ; runs that are unfinished or in doubt."""

    @property
    def groups(self) -> list[str]:
        """Their names, in order; one without a name where no run was given any."""
        return list(dict.fromkeys(run.group for run in self.runs))

    def row(self, label: str, mask: str | None, method: str, split: str) -> dict[str, Any]:
        """The row of a run; {} where there is none."""
        wanted = (label, mask, method, split)
        return next((one for one in self.rows if tuple(one[name] for name in _OF_ROW) == wanted), {})

    def spread_of(self, group: str, mask: str | None, method: str, split: str) -> dict[str, Any]:
        """The row of a group; {} where there is none."""
        wanted = (group, mask, method, split)
        return next((one for one in self.spread if tuple(one[name] for name in _OF_SPREAD) == wanted), {})


_OF_ROW = ("run", "mask", "method", "split")
_OF_SPREAD = ("group", "mask", "method", "split")
