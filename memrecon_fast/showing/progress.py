"""How far a piece of work is: a bar in a terminal, a plain line in a notebook, a line now and then in a file."""

from __future__ import annotations

import contextlib
import datetime
import sys
import time
from collections.abc import Callable, Iterator

SECONDS_BETWEEN_LINES = 10.0
"""Where lines stay, as in a file."""
SECONDS_BETWEEN_LOOKS = 0.1
"""Where a line takes the place of the one before."""
_WIDTH = 24

Advance = Callable[[int], None]
"""Is told how many more are done."""


@contextlib.contextmanager
def progress_bar(doing: str, total: int, unit: str, *, enabled: bool) -> Iterator[Advance | None]:
    """Yields the function that is told how many more of `total` are done; None unless enabled.

    doing: what is done, "recovering"; unit: of what, "images". Raises ImportError where standard output is a terminal
    and rich is missing.
    """
    if not enabled:
        yield None
    elif sys.stdout.isatty():
        with _in_terminal(doing, total, unit) as advance:
            yield advance
    else:
        plain = _Plain(doing, total, unit, rewrites=_in_notebook())
        try:
            yield plain.advance
        finally:
            plain.end()


@contextlib.contextmanager
def _in_terminal(doing: str, total: int, unit: str) -> Iterator[Advance]:
    try:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError as error:
        raise ImportError("the progress bar needs rich: pip install 'memrecon-fast[audit]'") from error
    columns = (TextColumn(doing), BarColumn(_WIDTH), MofNCompleteColumn(), TextColumn(unit), TimeElapsedColumn())
    with Progress(*columns) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda count: bar.advance(task, count)


class _Plain:
    """Lines of text. rewrites: whether a line may take the place of the one before."""

    def __init__(self, doing: str, total: int, unit: str, rewrites: bool) -> None:
        self._doing, self._total, self._unit, self._rewrites = doing, total, unit, rewrites
        self._done = 0
        self._began = self._written = time.monotonic()
        if rewrites:
            self._write("")

    def advance(self, count: int) -> None:
        """So many more are done."""
        self._done += count
        pause = SECONDS_BETWEEN_LOOKS if self._rewrites else SECONDS_BETWEEN_LINES
        if time.monotonic() - self._written >= pause:
            self._write("" if self._rewrites else "\n")

    def end(self) -> None:
        """The work has ended, whether all is done or not."""
        self._write("\n")

    def _write(self, end: str) -> None:
        self._written = time.monotonic()
        took = datetime.timedelta(seconds=int(self._written - self._began))
        filled = _WIDTH * self._done // max(self._total, 1)
        bar = f"{'█' * filled}{'░' * (_WIDTH - filled)} " if self._rewrites else ""
        begin = "\r" if self._rewrites else ""
        print(f"{begin}{self._doing} {bar}{self._done}/{self._total} {self._unit}, {took}", end=end, flush=True)


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, in which a line may take the place of the one before."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None
