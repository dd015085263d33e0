"""What a comparison of several runs says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from memrecon_fast.audit.exporting.tables import rates_for_machines
from memrecon_fast.showing.frames import import_pandas

if TYPE_CHECKING:  # slow to import
    from pandas import DataFrame

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

    def to_pandas(self) -> DataFrame:
        """A row for each of `rows`: run, group, error, mask (missing: under at least one of them), method, split,
        images, and of each verdict its rate, VERDICT, and the ends of its interval, VERDICT_low and VERDICT_high, as
        in the CSV files. Raises ImportError where pandas is missing."""
        pandas = import_pandas()
        return pandas.DataFrame([in_columns(row, self.verdicts) for row in self.rows])

    def row(self, label: str, mask: str | None, method: str, split: str) -> dict[str, Any]:
        """The row of a run; {} where there is none."""
        wanted = (label, mask, method, split)
        return next((one for one in self.rows if tuple(one[name] for name in _OF_ROW) == wanted), {})

    def spread_of(self, group: str, mask: str | None, method: str, split: str) -> dict[str, Any]:
        """The row of a group; {} where there is none."""
        wanted = (group, mask, method, split)
        return next((one for one in self.spread if tuple(one[name] for name in _OF_SPREAD) == wanted), {})


def in_columns(row: Mapping[str, Any], verdicts: Sequence[str]) -> dict[str, Any]:
    """A row of `SideBySide.rows` with the ends of each interval as columns."""
    about = {name: row[name] for name in ("run", "group", "error", "mask", "method", "split", "images")}
    return about | rates_for_machines(row, verdicts)


_OF_ROW = ("run", "mask", "method", "split")
_OF_SPREAD = ("group", "mask", "method", "split")
