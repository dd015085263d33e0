"""How far an audit is: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from memrecon_fast.audit.records import Cell, Record

SECONDS_BETWEEN_LINES = 10.0


class AuditProgress:
    """A context manager; inside, `show` takes each record as it comes.

    total: images, over all cells; of which `done` were done before. console: where to write.
    """

    def __init__(self, total: int, done: int, console: Console) -> None:
        self.done = done
        """Images, over all cells."""
        self._total, self._before, self._console = total, done, console
        self._counts: dict[Cell, tuple[int, int]] = {}
        self._started = self._written = time.monotonic()
        self._bar = Progress(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.0f}/s"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.description}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total, completed=done, rate=0.0)

    def __enter__(self) -> AuditProgress:
        self._started = self._written = time.monotonic()
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, record: Record) -> None:
        """One more image is done."""
        cell = Cell(record.split, record.mask, record.method)
        done_in_cell, recovered = self._counts.get(cell, (0, 0))
        done_in_cell, recovered = self._counts[cell] = done_in_cell + 1, recovered + record.approximate
        self.done += 1
        now = time.monotonic()
        rate = (self.done - self._before) / max(now - self._started, 1e-9)
        so_far = f"{cell.split}, {cell.mask}, {cell.method}: {recovered} of {done_in_cell} recovered"
        self._bar.update(self._task, completed=self.done, description=so_far, rate=rate)
        if not self._console.is_terminal and now - self._written >= SECONDS_BETWEEN_LINES:
            self._written = now
            left = (self._total - self.done) / rate
            self._console.print(
                f"{self.done} of {self._total} recoveries, {rate:.0f} per second, {left:.0f} s left; {so_far}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
