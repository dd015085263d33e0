"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

UNFINISHED = ".tmp"
"""The suffix of temporary files; what is left of a process that was killed may be removed."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`: what was written there takes its place, once the block has ended well.

    It is on the disk then: a machine that loses power has the old file or the new one.
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
    """Remove what a process left in the folder that was killed."""
    for path in folder.glob(f".*{UNFINISHED}"):
        path.unlink()
