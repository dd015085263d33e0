"""`memrecon reproduce`: a table or a figure of the papers, made again."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from memrecon_fast.cli.lines import checking, refuse, say, wants_traceback
from memrecon_fast.cli.names import DEVICES, completing
from memrecon_fast.cli.options import IMAGES, MACHINE, METHOD, RUN
from memrecon_fast.cli.texts import DEVICE_HELP, IMAGES_HELP
from memrecon_fast.common.errors import one_line
from memrecon_fast.common.text import escaped

if TYPE_CHECKING:
    from memrecon_fast.experiments.experiment import Experiment, Row
    from memrecon_fast.experiments.running import Plan

_WIDEST = 400
"""Columns of a terminal: no table is wider."""


def _experiments(incomplete: str) -> list[str]:
    from memrecon_fast.experiments import MODULES

    return [name for name in MODULES if name.startswith(incomplete)]


def reproduce(
    name: Annotated[
        str | None, typer.Argument(autocompletion=_experiments, help="of the experiment; --list shows all")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(rich_help_panel=RUN, help="folder for numbers and figures; the same command goes on there"),
    ] = None,
    scale: Annotated[
        str,
        typer.Option(
            rich_help_panel=METHOD,
            autocompletion=completing(("small", "paper")),
            help="small, or paper: the published size, where it differs",
        ),
    ] = "small",
    members: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=IMAGES, help=f"to train on, the first of them (default: photographs): {IMAGES_HELP}"
        ),
    ] = None,
    controls: Annotated[
        list[str] | None, typer.Option(rich_help_panel=IMAGES, help="images of the same kind to start from")
    ] = None,
    seed: Annotated[int, typer.Option(rich_help_panel=METHOD, help="of images, first weights and starts")] = 42,
    limit: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=IMAGES, min=1, help="so many members, and controls, in place of the scale's number"
        ),
    ] = None,
    only: Annotated[
        str,
        typer.Option(
            rich_help_panel=METHOD, help="the parts to make, a pattern in quotes; others that are there are shown"
        ),
    ] = "*",
    device: Annotated[
        str,
        typer.Option(
            rich_help_panel=MACHINE,
            autocompletion=completing(DEVICES),
            help=f"of experiments on autoencoders: {DEVICE_HELP}",
        ),
    ] = "cpu",
    threads: Annotated[
        int, typer.Option(rich_help_panel=MACHINE, min=1, help="of the processor, of experiments on autoencoders")
    ] = 1,
    list_all: Annotated[bool, typer.Option("--list", help="all of them, and how long they take")] = False,
) -> None:
    """Make a table or a figure of the papers again: numbers as JSON and CSV, figures as PNG and SVG."""
    console = Console()
    with checking():
        from memrecon_fast import experiments
        from memrecon_fast.experiments import running

        if list_all:
            typer.echo(_listed(experiments.every()))
            return
        if name is None:
            refuse("name an experiment; memrecon reproduce --list shows all")
        experiment = experiments.find(name)
        if out is None:
            refuse(f"--out is missing: the folder for the numbers and figures of {name}")
        plan = running.make_plan(experiment, scale, members, controls, seed, running.Part(limit, only, device, threads))
        running.check_folder(plan, out)
    console.print(f"{experiment.name}: {experiment.what}. Reproduces: {experiment.reproduces}.", highlight=False)
    for split, said in plan.inputs.said.items():
        console.print(f"  {split}: {escaped(said)}", highlight=False, markup=False)

    def show(cell: str, done: int, count: int) -> None:
        console.print(f"  {done + 1} of {count}: {cell} …", highlight=False, markup=False)

    with _keeping_cells(plan, out):
        made = running.reproduce(plan, out, shlex.join(["memrecon", *sys.argv[1:]]), show)
    for table in made.tables.values():
        console.print(table.caption, highlight=False, markup=False)
        _print_whole(console, _table(table.header, [dict(zip(table.header, row, strict=True)) for row in table.rows]))
    if experiment.tables is None:
        _print_whole(console, _table(experiment.columns, made.rows))
    console.print("Not as in the paper:")
    for difference in experiment.differs:
        console.print(f"  - {difference}", highlight=False, markup=False)
    typer.echo(f"Numbers and figures: {escaped(', '.join(str(path) for path in made.paths))}")


@contextlib.contextmanager
def _keeping_cells(plan: Plan, out: Path) -> Iterator[None]:
    """Whatever ends the work early: say what is kept, and how to go on."""
    from memrecon_fast.experiments import running

    def kept() -> str:
        parts = f"{running.done(plan, out)} of {len(plan.cells)} parts"
        return f"{parts} are done in {out}: the same command goes on from there"

    try:
        yield
    except KeyboardInterrupt:
        say(f"interrupted; {kept()}")
        raise typer.Exit(130) from None
    except Exception as error:
        if wants_traceback():
            raise
        say(f"{one_line(error)}; {kept()}")
        raise typer.Exit(1) from error


def _listed(experiments: list[Experiment]) -> str:
    """A line of what it is, and one of what it takes, for each."""
    lines = []
    for one in experiments:
        minutes = ", ".join(f"{scale} {found.minutes:g} min" for scale, found in one.scales.items())
        images = "its own data"
        if one.pictures is not None:
            images = f"{one.pictures.members} members, {one.pictures.controls} controls"
        lines.append(f"{one.name}: {one.what}\n    {one.reproduces}; {minutes}; {images}")
    return "\n".join(lines)


def _table(columns: Sequence[str], rows: list[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column.replace("_", "\n"), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(_shown(row.get(column))) for column in columns))
    return table


def _print_whole(console: Console, table: Table) -> None:
    """In its own width: a terminal that is narrower wraps lines, but no number is cut."""
    width = max(console.width, Measurement.get(console, console.options.update(width=_WIDEST), table).maximum)
    Console(width=width).print(table)


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list):
        return ", ".join(_shown(one) for one in value)
    return str(value)
