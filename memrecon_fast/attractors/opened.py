"""A survey as it is in its folder: its tables, summary and report."""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from memrecon_fast.attractors.report.page import REPORT, write_report
from memrecon_fast.attractors.report.sentences import remarks_of
from memrecon_fast.attractors.report.summary import make_summary, write_summary
from memrecon_fast.attractors.report.table import make_tables
from memrecon_fast.attractors.survey.manifest import plan_digest, read_description
from memrecon_fast.attractors.survey.results import Results, read_results
from memrecon_fast.attractors.survey.store import Store
from memrecon_fast.attractors.survey.tables import SCHEMAS
from memrecon_fast.common.checks import check_choice
from memrecon_fast.common.text import escaped


@dataclasses.dataclass(frozen=True)
class Run:
    """The folder of a survey, read when it is asked for; what is asked for once stays as it was then."""

    path: Path

    @functools.cached_property
    def description(self) -> dict[str, Any]:
        """The content of `attractors.json`: what was surveyed, and each session of work on it."""
        return read_description(self.path)

    @property
    def store(self) -> Store:
        """Its tables."""
        return Store(self.path, plan_digest(self.description))

    def table(self, name: str) -> pa.Table:
        """The rows of a table so far, see `tables.SCHEMAS`; `.to_pandas()` makes a DataFrame.

        Raises ValueError for another name, and where a file is damaged.
        """
        check_choice("table", name, tuple(SCHEMAS))
        return self.store.read(name, SCHEMAS[name])

    @functools.cached_property
    def results(self) -> Results:
        """All that the summary is made of. Raises ValueError where nothing was done, or a file is damaged."""
        return read_results(self.path)

    @functools.cached_property
    def summary(self) -> dict[str, Any]:
        """The content of `summary.json`."""
        return make_summary(self.results)

    @property
    def report(self) -> Path:
        """The path of `report.html`."""
        return self.path / REPORT

    def write_report(self, console: Console | None = None) -> Path:
        """Write summary.json, the CSV files and report.html, and show the table and what must be said beside it;
        returns the report."""
        write_summary(self.results, self.summary)
        path = write_report(self.results, self.summary)
        if console is not None:
            for table in make_tables(self.summary):
                console.print(table)
            for remark in remarks_of(self.summary):
                console.print(escaped(remark), markup=False, highlight=False, soft_wrap=True)
        return path


def open_run(path: str | os.PathLike[str]) -> Run:
    """Open the folder of a survey, finished or not. Raises ValueError for a folder that is not one."""
    opened = Run(Path(path))
    _ = opened.description  # read now, so that what is no run is said at once
    return opened
