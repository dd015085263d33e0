"""Atomic writes: a file appears whole or not at all; also of JSON and CSV."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

UNFINISHED = ".tmp"
"""The suffix of temporary files; those of a killed process may be removed."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a field begins that a spreadsheet would run


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which it replaces when the block ends without an error.

    What was written is on the disk by then: a machine that loses power has the old file or the new one.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        yield temporary
        with open(temporary, "r+b") as written:  # Windows wants it writable
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files that a killed process left in the folder."""
    for path in folder.glob(f".*{UNFINISHED}"):
        path.unlink()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object as JSON, whole or not at all. Raises ValueError for NaN and infinity, which JSON has not."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


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
