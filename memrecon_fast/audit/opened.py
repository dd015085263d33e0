"""A run that was opened to be read: its records, its summary and its pictures; it may be unfinished."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from memrecon_fast.audit.analysis.near_members import near_members
from memrecon_fast.audit.analysis.results import Results, read_results
from memrecon_fast.audit.analysis.statistics import choose_shown
from memrecon_fast.audit.analysis.unfinished import unfinished
from memrecon_fast.audit.report.glance import html_of, text_of
from memrecon_fast.audit.report.page import REPORT, write_report
from memrecon_fast.audit.report.remarks import given_out_of, remarks_of
from memrecon_fast.audit.report.summary import make_summary, write_summary
from memrecon_fast.audit.report.table import make_given_out_table, make_table
from memrecon_fast.audit.report.verdicts import tabulate_verdicts
from memrecon_fast.audit.store.folder import Folder
from memrecon_fast.audit.store.manifest import cells_of, read_description, traits_of
from memrecon_fast.audit.store.opening import open_parts, read_known_images
from memrecon_fast.audit.store.pictures import Picture
from memrecon_fast.audit.store.records import Cell
from memrecon_fast.common.text import escaped
from memrecon_fast.methods import headline_of
from memrecon_fast.showing import html


@dataclasses.dataclass(frozen=True, repr=False)
class Run:
    """The folder of an audit, read when it is asked for; what is asked for once stays as it was then.

    At a prompt it shows its table, in a notebook a few pictures beside.
    """

    path: Path

    @functools.cached_property
    def description(self) -> dict[str, Any]:
        """The content of `audit.json`: what was audited, and each session of work on it."""
        return read_description(self.path)

    @property
    def folder(self) -> Folder:
        """Its files."""
        return Folder(self.path, open_parts(self.path, self.description))

    @functools.cached_property
    def results(self) -> Results:
        """All that the summary is made of. Raises ValueError where no image was done, or a file is damaged."""
        return read_results(self.path)

    @functools.cached_property
    def records(self) -> pa.Table:
        """A row for each image, mask and method that was done, as in `records/`; `.to_pandas()` makes a DataFrame.

        Raises ValueError where a file is damaged, or holds what it should not.
        """
        images = read_known_images(self.path, self.description)
        return pa.concat_tables([self.folder.table(cell, images) for cell in cells_of(self.description)])

    @functools.cached_property
    def summary(self) -> dict[str, Any]:
        """The content of `summary.json`: rates, for members and controls, by mask and method."""
        return make_summary(self.results)

    @functools.cached_property
    def verdicts(self) -> pa.Table:
        """A row for each image, and what became of it over all masks and methods, as in `verdicts.csv`: its "verdict"
        is "accurate", "approximate", "not recovered", …; `.to_pandas()` makes a DataFrame."""
        return tabulate_verdicts(self.results)

    @property
    def report(self) -> Path:
        """The path of `report.html`."""
        return self.path / REPORT

    @property
    def missing(self) -> int:
        """How many recoveries have not been done."""
        plan, counts = self.description["plan"], self.description["counts"].values()
        usable = sum(int(count["images"] - count["unusable"]) for count in counts)
        return usable * len(plan["masks"]) * len(plan["methods"]) - len(self.records)

    def pictures(self, split: str, mask: str, method: str) -> list[Picture]:
        """The best, the borderline and the worst images by the headline method, and what this method made of them:
        original, degraded, recovered, mask, uint8 each; in the order of their indices."""
        cell = Cell(split, mask, method)
        if cell not in cells_of(self.description):
            raise ValueError(f"the run {self.path} has no {split} under the mask {mask!r} by the method {method!r}")
        chosen = choose_shown(self.folder.read(Cell(split, mask, headline_of(traits_of(self.description)))))
        return sorted(self.folder.pictures(cell, list(chosen)), key=lambda picture: picture.index)

    def __repr__(self) -> str:
        return self._glance(text_of, str)

    def _repr_html_(self) -> str:
        return self._glance(html_of, html.paragraph)

    def _glance(self, show: Callable[[Results, dict[str, Any]], str], say: Callable[[str], str]) -> str:
        """The run at a glance; why it cannot be shown, where it cannot: what shows a value expects no error."""
        try:
            return show(self.results, self.summary)
        except (ValueError, OSError) as error:
            return say(f"Audit in {escaped(str(self.path))}: {escaped(str(error))}")

    def write_report(self, console: Console | None = None) -> Path:
        """Write summary.json, summary.csv, verdicts.csv and report.html, and show the table and what must be said
        beside it; returns the report."""
        write_summary(self.results, self.summary)
        path = write_report(self.results, self.summary)
        if console is not None:
            for table in filter(None, (make_table(self.summary), make_given_out_table(self.summary))):
                console.print(table)
            left = unfinished(self.summary)
            remarks = [left and f"{left} The same audit, given again, goes on from there."]
            remarks += [*given_out_of(self.summary), *remarks_of(self.summary), near_members(self.summary)]
            for remark in filter(None, remarks):
                console.print(escaped(remark), markup=False, highlight=False, soft_wrap=True)
        return path


def open_run(path: str | os.PathLike[str]) -> Run:
    """Open the folder of an audit, finished or not. Raises ValueError for a folder that is not a run's."""
    opened = Run(Path(path))
    _ = opened.description  # read now, so that what is no run is said at once
    return opened
