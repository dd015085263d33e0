"""An audit from its beginning to the report, as the command shows it to a person."""

from __future__ import annotations

import contextlib
import functools
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from memrecon_fast.audit.analysis.results import read_results
from memrecon_fast.audit.cluster import Crew, Task
from memrecon_fast.audit.opening import OpenRun, open_run
from memrecon_fast.audit.plan import Audit
from memrecon_fast.audit.progress import AuditProgress
from memrecon_fast.audit.report.page import write_report
from memrecon_fast.audit.report.summary import summarise
from memrecon_fast.audit.report.table import make_table
from memrecon_fast.audit.run import count_all, count_missing, run_audit
from memrecon_fast.audit.store.manifest import describe, session, write_description
from memrecon_fast.audit.worker import SECONDS_BETWEEN_PARTS, Workbench
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.prox import device_of
from memrecon_fast.engine.solver import AnySolver


class MissingImagesError(RuntimeError):
    """Some recoveries could not be done; the same command does them once they can be."""


def prepare(audit: Audit, autoencoder: Autoencoder) -> tuple[dict[str, AnySolver], list[str]]:
    """The solvers, and what there is to remark on them. Raises as `Audit.prepare`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        solvers = audit.prepare(autoencoder)
    return solvers, sorted({str(warning.message) for warning in caught if warning.category is RuntimeWarning})


def carry_out(
    audit: Audit,
    autoencoder: Autoencoder,
    out: str | os.PathLike[str],
    *,
    model: str | None = None,
    sources: Mapping[str, str] | None = None,
    console: Console | None = None,
) -> Path:
    """All of an audit from Python, as the command does it: begin or continue the run in the folder `out`, with report.

    model, sources: what to call them in the report. Returns the path of the report; what is in the folder, the README
    says. Raises as `Audit.prepare`, `open_run` and `conduct`.
    """
    console = console or Console()
    device = device_of(autoencoder, torch.device("cpu")).type
    named = dict(sources or {split: f"{len(images)} images" for split, images in audit.splits.items()})
    description = describe(audit, autoencoder, device, model or type(autoencoder).__name__, named, parts=None)
    solvers, remarks = prepare(audit, autoencoder)
    remark = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    for text in remarks:
        remark(f"Note: {text}")
    with open_run(audit, description, Path(out), resume=False, remark=remark) as run:
        return conduct(run, solvers, console)


def conduct(
    run: OpenRun,
    solvers: Mapping[str, AnySolver],
    console: Console,
    seconds_between_parts: float = SECONDS_BETWEEN_PARTS,
) -> Path:
    """Do what is missing of the audit in this process, with a progress bar; then `report`.

    On KeyboardInterrupt and on errors what was done is in the folder. Raises MissingImagesError, after the report,
    where images could not be read.
    """
    bench = Workbench(run.audit, solvers, run.folder.parts, seconds_between_parts)
    skipped: list[str] = []
    with working(run, console, workers=None) as (progress, done):
        done["execution"] = run_audit(
            run.audit,
            run.folder,
            lambda method, shards, wanted: bench.work(method, shards, wanted, progress.show, skipped.append),
        )
    return finish(run, skipped, console)


def conduct_on_cluster(run: OpenRun, task: Task, workers: int, console: Console) -> Path:
    """The same on the Ray cluster that is connected, by so many workers."""
    skipped: list[str] = []
    with working(run, console, workers) as (progress, done):
        remark = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
        crew = Crew(task, run.folder, workers, progress.show, skipped.append, remark)
        done["execution"] = run_audit(run.audit, run.folder, crew.work)
    return finish(run, skipped, console)


@contextlib.contextmanager
def working(run: OpenRun, console: Console, workers: int | None) -> Iterator[tuple[AuditProgress, dict[str, Any]]]:
    """A progress bar, and an entry in `audit.json` on this session, which gets its "execution" inside.

    workers: the number of worker processes; None: this process does the work.
    """
    todo = count_missing(run.audit, run.folder)
    total = count_all(run.audit)
    entry = session(run.audit.slots, workers)
    if todo:
        run.description["sessions"].append(entry)
        write_description(run.folder.path, run.description)
    if todo < total:
        console.print(f"{total - todo} of {total} recoveries were done before.", highlight=False)
    began = time.monotonic()
    with AuditProgress(total, total - todo, console) as progress, warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: console.print(f"memrecon: {message}", markup=False)
        try:
            yield progress, entry
        finally:
            entry["seconds"] = round(time.monotonic() - began, 3)
            entry["recoveries"] = progress.done - (total - todo)
            write_description(run.folder.path, run.description)


def finish(run: OpenRun, skipped: list[str], console: Console) -> Path:
    """The report of a run that was worked on. Raises MissingImagesError, after it, where something is missing."""
    left = count_missing(run.audit, run.folder)
    why = f"what workers wrote is not in {run.folder.parts.address}: give a place that all of them see as --parts"
    if skipped:
        why = f"images could not be read, first: {skipped[0]}"
    missing = MissingImagesError(f"{left} recoveries are missing; {why}")
    if left == count_all(run.audit):  # nothing to report on
        raise missing
    path = report(run.folder.path, console)
    if left:
        raise missing
    return path


def report(run: Path, console: Console) -> Path:
    """Write `summary.json` and `report.html` of a run, print the table; returns the path of the report.

    Raises ValueError for a folder that is not a run's.
    """
    results = read_results(run)
    summary = summarise(results)
    path = write_report(results, summary)
    console.print(make_table(summary))
    return path
