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
    from memrecon_fast.reconstruction.opened import Run as Reconstruction


def report(run: Annotated[Path, typer.Argument(help="the folder of a run")]) -> None:
    """Make summary.json and report.html of RUN, an audit, a survey or a reconstruction, again from its records."""
    with checking():
        path = _open(run).write_report(Console())
    typer.echo(f"The report: {escaped(str(path))}")


def _open(run: Path) -> Audit | Survey | Reconstruction:
    """What is in the folder: an audit, if it is nothing else."""
    from memrecon_fast import attractors, audit, reconstruction
    from memrecon_fast.attractors.survey.manifest import DESCRIPTION as OF_SURVEY
    from memrecon_fast.reconstruction.kept.store import DESCRIPTION as OF_RECONSTRUCTION

    if (run / OF_SURVEY).exists():
        return attractors.open(run)
    return reconstruction.open(run) if (run / OF_RECONSTRUCTION).exists() else audit.open(run)
