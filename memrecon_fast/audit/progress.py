"""How far an audit is: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import dataclasses
import datetime
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TypeVar

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress
from rich.text import Text

from memrecon_fast.audit.pace import Pace
from memrecon_fast.audit.store.records import Cell, Record
from memrecon_fast.common.text import counted, escaped
from memrecon_fast.metrics import APPROXIMATE_MSE
from memrecon_fast.results import RECOGNIZED_BELOW

SECONDS_BETWEEN_LINES = 10.0

P = TypeVar("P", bound="WorkProgress")


@dataclasses.dataclass(frozen=True)
class Output:
    """Where an audit writes what a person should see.

    console: progress and results. say: called with each remark, one line; None: they go to the console, and are
        warnings where that is quiet.
    """

    console: Console
    say: Callable[[str], None] | None = None

    def remark(self, text: str) -> None:
        """One remark."""
        if self.say is not None:
            self.say(text)
        elif self.console.quiet:
            warnings.warn(text, RuntimeWarning, stacklevel=2)
        else:
            self.console.print(f"Note: {escaped(text)}", markup=False, highlight=False, soft_wrap=True)


class WorkProgress:
    """A context manager; inside, `advance` is told what is done.

    total: pieces of work, for instance images; of which `done` were done before. unit: what they are called. console:
    where to write.
    """

    def __init__(self, total: int, done: int, console: Console, unit: str) -> None:
        self.done = done
        """Pieces of work."""
        self._total, self._before, self._console, self._unit = total, done, console, unit
        self._started = self._written = time.monotonic()
        self._bar = _Lines(
            BarColumn(),
            MofNCompleteColumn(),
            console=console,
            transient=True,
            disable=console.quiet or not console.is_terminal,  # a bar redirects what the process prints
        )
        self._task = self._bar.add_task("", total=total, completed=done, pace="")

    @property
    def new(self) -> int:
        """Pieces of work that were not done before."""
        return self.done - self._before

    def __enter__(self: P) -> P:
        self._started = self._written = time.monotonic()
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, count: int, so_far: str) -> None:
        """So many more are done; `so_far` says in words what of."""
        self.done += count
        now = time.monotonic()
        seconds = max(now - self._started, 1e-9)
        pace = f"{_speed(self.new / seconds)}, {self._left(seconds)}"
        self._bar.update(self._task, completed=self.done, description=so_far, pace=pace)
        if not self._console.is_terminal and now - self._written >= SECONDS_BETWEEN_LINES:
            self._written = now
            self._console.print(
                f"{self.done} of {self._total} {self._unit}, {pace}; {so_far}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

    def _left(self, seconds: float) -> str:
        """How long the rest takes, at the pace of the whole session, which lasts so many seconds: what is done comes in
        bursts, minutes apart where a model is slow."""
        rate = self.new / seconds
        return f"{_time((self._total - self.done) / rate)} left" if rate else "time left unknown"


class AuditProgress(WorkProgress):
    """That of an audit: `show` takes each record as it comes.

    left: the recoveries of each cell that are to be done. before: of each cell, how many were done in earlier sessions,
    and their evaluations together.
    """

    def __init__(self, left: Mapping[Cell, int], before: Mapping[Cell, tuple[int, int]], console: Console) -> None:
        done = sum(count for count, _ in before.values())
        super().__init__(done + sum(left.values()), done, console, "recoveries")
        self._counts: dict[Cell, tuple[int, int]] = {}
        self._pace = Pace(left, before)
        self._last: float | None = None

    def show(self, record: Record) -> None:
        """One more image is done."""
        cell = Cell(record.split, record.mask, record.method)
        now = time.monotonic()
        self._pace.add(cell, record.evaluations, now - (self._started if self._last is None else self._last))
        self._last = now
        word, came_back = "recovered", record.approximate
        if came_back is None:  # the original is unknown, and the threshold not calibrated yet
            word, came_back = "recognized", not record.diverged and record.score < RECOGNIZED_BELOW
        counts = record.erased_mse is None or record.erased_mse >= APPROXIMATE_MSE
        done_in_cell, recovered = self._counts.get(cell, (0, 0))
        done_in_cell, recovered = self._counts[cell] = done_in_cell + counts, recovered + (came_back and counts)
        self.advance(1, f"{cell.split}, {escaped(cell.mask)}, {cell.method}: {recovered} of {done_in_cell} {word}")

    def _left(self, seconds: float) -> str:
        left = self._pace.left()
        if not left.unknown:
            return f"{_time(left.seconds)} left"
        more = f", {len(left.unknown) - 1} more" if len(left.unknown) > 1 else ""
        known = f"{_time(left.seconds)} left, then" if left.seconds >= 1 else "time left unknown:"
        return f"{known} {left.unknown[0]}{more}"


class _Lines(Progress):
    """The bar, the pace, and what was done last, a line each: all fit into 80 columns."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        for task in self.tasks:
            for line in filter(None, (task.fields["pace"], task.description)):
                yield Text(line, no_wrap=True, overflow="ellipsis")


def _speed(rate: float) -> str:
    return f"{rate:.0f} per second" if rate >= 1 else f"{60 * rate:.1f} per minute"


def _time(seconds: float) -> str:
    left = datetime.timedelta(seconds=round(seconds))
    if left.days:
        return f"{counted(left.days, 'day')}, {left.seconds // 3600} h"
    return str(left)
