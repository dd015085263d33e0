"""`memrecon compare`: several audits side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from memrecon_fast.cli.lines import checking
from memrecon_fast.cli.texts import FOR_PAPER_HELP
from memrecon_fast.common.text import escaped

RUNS_HELP = (
    "the folders of audits; NAME=RUN for one of several repetitions, whose mean and spread are told; without names all "
    "are"
)


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN", help=RUNS_HELP)],
    out: Annotated[Path | None, typer.Option(help=f"{FOR_PAPER_HELP} (default: none)")] = None,
) -> None:
    """Put audits side by side, of several seeds, models, checkpoints or losses: rates against the model's error.

    What all of them have is compared; what is left out is said.
    """
    with checking():
        from memrecon_fast.audit.exporting.files import check_folder
        from memrecon_fast.audit.exporting.several import compare as put_side_by_side
        from memrecon_fast.audit.exporting.several import write
        from memrecon_fast.audit.exporting.several_tables import terminal_tables

        if out is not None:
            check_folder(out)
        side = put_side_by_side(_named(runs))
        paths = [] if out is None else write(side, out)
    console = Console()
    for table in terminal_tables(side):
        console.print(table)
    for remark in side.remarks:
        console.print(f"- {remark}", markup=False, highlight=False, soft_wrap=True)
    for path in paths:
        typer.echo(escaped(str(path)))


def _named(runs: list[str]) -> dict[str, list[str]]:
    """The folders by name, "" for those without one. A folder whose own name holds "=" is taken for what it is."""
    found: dict[str, list[str]] = {}
    for text in runs:
        name, equals, folder = text.partition("=")
        if Path(text).exists() or not (name and equals and folder):
            name, folder = "", text
        found.setdefault(name, []).append(folder)
    return found
