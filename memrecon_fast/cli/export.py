"""`memrecon export`: the tables and figures of a run, for a paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memrecon_fast.cli.lines import checking, say
from memrecon_fast.cli.texts import FOR_PAPER_HELP
from memrecon_fast.common.text import escaped


def export(
    run: Annotated[Path, typer.Argument(help="the folder of an audit")],
    out: Annotated[Path, typer.Option(help=FOR_PAPER_HELP)],
) -> None:
    """Write the tables and figures of RUN, an audit, for a paper: rates with 95 % intervals by mask and method.

    Tables as LaTeX (booktabs), CSV and Markdown, figures as SVG and PDF. Of several runs: `memrecon compare`.
    """
    with checking():
        from memrecon_fast import audit
        from memrecon_fast.audit.analysis.unfinished import unfinished

        opened = audit.open(run)
        if left := unfinished(opened.summary):
            say(f"{run}: {left}")
        paths = audit.export(opened, out)
    for path in paths:
        typer.echo(escaped(str(path)))
