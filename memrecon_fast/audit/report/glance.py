"""A run at a glance, at a prompt and in a notebook: its table, what must be said beside it, a few pictures."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from memrecon_fast.audit.analysis.results import VERDICTS, Results
from memrecon_fast.audit.analysis.statistics import choose_shown, scores
from memrecon_fast.audit.report.embedding import embed_image
from memrecon_fast.audit.report.remarks import given_out_of, remarks_of
from memrecon_fast.audit.report.table import make_table
from memrecon_fast.audit.store.records import Cell, Columns
from memrecon_fast.common.text import counted, escaped
from memrecon_fast.showing import html

MAX_PICTURES = 8
MAX_LETTERS = 16
"""Of an image's name below its pictures."""


def text_of(results: Results, summary: Mapping[str, Any]) -> str:
    """As wide as the terminal, or 80 letters. summary: of `make_summary`."""
    stream = io.StringIO()
    console = Console(file=stream, color_system=None, force_jupyter=False)
    console.print(make_table(summary))
    table = "\n".join(line.rstrip() for line in stream.getvalue().splitlines())
    return "\n".join([_title(results, summary), table, *map(escaped, _sentences(summary))])


def html_of(results: Results, summary: Mapping[str, Any]) -> str:
    """The same with pictures of a few members, from the best to the worst, by the headline method.

    Raises ValueError where pictures cannot be read.
    """
    table = make_table(summary)
    said = [html.paragraph(one) for one in _sentences(summary)]
    return html.block(_title(results, summary), *_table(table), *said, _strip(results))


def _title(results: Results, summary: Mapping[str, Any]) -> str:
    images = " and ".join(f"{count} {split}" for split, count in summary["images"].items())
    what = f"{images}, {counted(len(results.masks), 'mask')}, {counted(len(results.methods), 'method')}"
    missing = summary["missing"]
    left = f"; NOT FINISHED, {missing} more to do" if missing else ""
    return f"Audit in {escaped(str(results.folder.path))}: {what}{left}"


def _sentences(summary: Mapping[str, Any]) -> list[str]:
    return [*given_out_of(summary), *remarks_of(summary)]


def _table(table: Table) -> list[str]:
    """The same table as the terminal shows, with what stands above and below it."""
    headings = [str(column.header) for column in table.columns]
    numbers = [column.justify == "right" for column in table.columns]
    rows = zip(*([str(cell) for cell in column.cells] for column in table.columns), strict=True)
    title = table.title
    above = [html.paragraph(str(title), loud=isinstance(title, Text) and bool(title.style))] if title else []
    return [*above, html.table(headings, rows, numbers), html.paragraph(str(table.caption))]


def _strip(results: Results) -> str:
    """Members under the first mask of which something is done; "" where nothing is."""
    cells = [Cell("members", mask, results.headline) for mask in results.masks]
    cell = next((cell for cell in cells if cell in results.cells), None)
    if cell is None:
        return ""
    columns = results.cells[cell]
    chosen = list(choose_shown(columns))  # from the best to the worst
    kept = {picture.index: picture for picture in results.folder.pictures(cell, chosen)}
    known = [index for index in chosen if index in kept]
    few = min(len(known), MAX_PICTURES)
    spread = np.linspace(0, len(known) - 1, few).round().astype(int)  # the first and the last are among them
    shown = [known[at] for at in spread.tolist()]
    names = results.images_of("members")["name"]
    rows = {index: row for row, index in enumerate(columns["index"].tolist())}
    kinds = ["degraded", "recovered"] if results.degraded else ["original", "degraded", "recovered"]
    kinds += ["mask"] if results.traits[cell.method].is_blind else []
    pictures = [[embed_image(getattr(kept[index], kind)) for kind in kinds] for index in shown]
    captions = [[_short(str(names[index])), *_caption(columns, rows[index])] for index in shown]
    images = "Images" if results.degraded else "Members"
    under = "" if results.degraded else f" under {cell.mask}"
    words = f"{images}{under} by {cell.method}, from the best to the worst:"
    return html.paragraph(words) + html.strip(pictures, kinds, captions) if shown else ""


def _caption(columns: Columns, row: int) -> list[str]:
    if columns["diverged"][row]:
        return ["diverged"]
    if "approximate" not in columns:  # the original is unknown
        return [f"score {scores(columns)[row]:.0e}"]
    verdict = next((verdict for verdict in VERDICTS if columns[verdict][row]), "not recovered")
    return [verdict, f"{columns['psnr'][row]:.1f} dB"]


def _short(name: str) -> str:
    """As much of a name as fits below a picture; the end tells most."""
    return name if len(name) <= MAX_LETTERS else f"…{name[1 - MAX_LETTERS :]}"
