"""An audit from its beginning to the report, as the command shows it to a person."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from memrecon_fast.audit.methods import Solver
from memrecon_fast.audit.progress import AuditProgress
from memrecon_fast.audit.report import write_report
from memrecon_fast.audit.run import Audit, run_audit
from memrecon_fast.audit.summary import describe, summarise, write_description
from memrecon_fast.audit.table import make_table
from memrecon_fast.precision import Autoencoder


def prepare(audit: Audit, autoencoder: Autoencoder) -> tuple[dict[str, Solver], list[str]]:
    """The solvers, and what there is to remark on them. Raises as `Audit.prepare`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        solvers = audit.prepare(autoencoder)
    return solvers, sorted({str(warning.message) for warning in caught if warning.category is RuntimeWarning})


def conduct(
    audit: Audit,
    solvers: Mapping[str, Solver],
    run: Path,
    model: str,
    sources: Mapping[str, str],
    console: Console,
) -> Path:
    """Audit with a progress bar, write all of the run's files, print the table; returns the path of the report.

    model, sources: what the user called them. On KeyboardInterrupt the records so far stay in the folder.
    """
    description = describe(audit, solvers, model, sources)
    write_description(run, description)
    began = time.monotonic()
    total = len(audit.cells()) // len(audit.splits) * sum(len(images) for images in audit.splits.values())
    with AuditProgress(total, console) as progress, warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: console.print(f"memrecon: {message}", markup=False)
        execution = run_audit(audit, solvers, run, progress.show)
    seconds = round(time.monotonic() - began, 3)
    write_description(run, {**description, "seconds": seconds, "execution": execution})
    return report(run, console)


def report(run: Path, console: Console) -> Path:
    """Write `summary.json` and `report.html` of a run, print the table; returns the path of the report.

    Raises ValueError for a folder that is not a run's.
    """
    summary = summarise(run)
    path = write_report(run, summary)
    console.print(make_table(summary))
    return path
