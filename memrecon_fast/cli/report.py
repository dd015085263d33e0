"""`memrecon report`: the summary and the report of a run, again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from memrecon_fast.cli.lines import checking
from memrecon_fast.common.text import escaped

if TYPE_CHECKING:
    from memrecon_fast.attractors.opened import Run as Survey
    from memrecon_fast.audit import Run as Audit


def report(run: Annotated[Path, typer.Argument(help="the folder of a run")]) -> None:
    """Make summary.json and report.html of RUN, an audit or a survey of attractors, again from its records."""
    with checking():
        path = _open(run).write_report(Console())
    typer.echo(f"The report: {escaped(str(path))}")


def _open(run: Path) -> Audit | Survey:
    """What is in the folder: an audit, if it is not a survey."""
    from memrecon_fast import audit
    from memrecon_fast.attractors.opened import open_run
    from memrecon_fast.attractors.survey.manifest import DESCRIPTION

    return open_run(run) if (run / DESCRIPTION).exists() else audit.open(run)
