"""CSV files that are safe to open in a spreadsheet."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from memrecon_fast.common.files import replacing

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows of text, numbers and None (an empty field) as UTF-8, whole or not at all; booleans as 0 and 1.

    Names come from other people's files, and a spreadsheet runs a field that begins with = + - @ as a formula, quoted
    or not: such text gets an apostrophe in front, which spreadsheets take for "this is text". All text is quoted, so
    that no spreadsheet with another separator divides it and finds a formula inside.
    """
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, header, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _field(value) for name, value in row.items()})


def _field(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value
