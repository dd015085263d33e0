"""`memrecon report`: the summary and the report of a run, again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from memrecon_fast.cli.lines import checking
from memrecon_fast.common.text import escaped


def report(run: Annotated[Path, typer.Argument(help="the folder of a run")]) -> None:
    """Make summary.json and report.html of RUN again, from its records."""
    with checking():
        from memrecon_fast import audit

        path = audit.open(run).write_report(Console())
    typer.echo(f"The report: {escaped(str(path))}")
