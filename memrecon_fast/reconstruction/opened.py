"""A reconstruction as it is in its folder: its solutions, summary and report."""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any

from rich.console import Console

from memrecon_fast.common.text import escaped
from memrecon_fast.reconstruction.kept.results import Results, read_results
from memrecon_fast.reconstruction.kept.store import read_description
from memrecon_fast.reconstruction.report.page import REPORT, write_report
from memrecon_fast.reconstruction.report.sentences import headlines, remarks_of
from memrecon_fast.reconstruction.report.summary import make_summary, write_summary
from memrecon_fast.reconstruction.report.table import make_tables


@dataclasses.dataclass(frozen=True)
class Run:
    """The folder of a reconstruction, read when it is asked for; what is asked for once stays as it was then."""

    path: Path

    @functools.cached_property
    def description(self) -> dict[str, Any]:
        """The content of `reconstruction.json`: what was looked for, and each session of work on it."""
        return read_description(self.path)

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
        """Write summary.json, inputs.csv, the inputs as arrays and report.html, and show the table and what must be
        said beside it; returns the report."""
        write_summary(self.results, self.summary)
        path = write_report(self.results, self.summary)
        if console is not None:
            for emphasised, rest in headlines(self.summary):
                console.print(f"{emphasised} {rest}", markup=False, highlight=False)
            for table in make_tables(self.summary):
                console.print(table)
            for remark in remarks_of(self.summary):
                console.print(escaped(remark), markup=False, highlight=False, soft_wrap=True)
        return path


def open_run(path: str | os.PathLike[str]) -> Run:
    """Open the folder of a reconstruction, finished or not. Raises ValueError for a folder that is not one."""
    opened = Run(Path(path))
    _ = opened.description  # read now, so that what is no run is said at once
    return opened
