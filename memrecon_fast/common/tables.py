"""Tables for papers and pages: text that is ready to be read, in Markdown here, in LaTeX in `latex`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

_SPECIAL = {sign: f"\\{sign}" for sign in "\\`*_|<[]#~"}


@dataclasses.dataclass(frozen=True)
class Table:
    """A table for a paper."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | float | None]]
    """Texts, numbers as they are to be read, and None for what there is not."""
    notes: Sequence[str] = ()
    """Sentences on what must be known of its numbers, below it."""
    names: int = 1
    """So many columns, the first ones, say what a row is about."""


def markdown_table(table: Table) -> str:
    """The caption, the table in the way of GitHub, text to the left and numbers to the right, and the notes."""
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.header)
    rules = ["---" if any(isinstance(value, str) for value in column) else "---:" for column in columns]
    lines = [_line(list(table.header)), f"| {' | '.join(rules)} |"]
    lines += [_line([shown(value) for value in row]) for row in table.rows]
    parts = [_escaped(table.caption), "\n".join(lines), *map(_escaped, table.notes)]
    return "\n\n".join(filter(None, parts)) + "\n"


def shown(value: str | float | None) -> str:
    """A cell as text."""
    if value is None:
        return "–"
    return str(value) if isinstance(value, (str, int)) else f"{value:g}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(map(_escaped, cells))} |"


def _escaped(text: str) -> str:
    """As Markdown shows it: names come from other people's files."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)
