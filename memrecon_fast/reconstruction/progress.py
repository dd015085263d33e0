"""How far a reconstruction is: what is left of θ, on a terminal as it changes, elsewhere a line every few seconds."""

from __future__ import annotations

import datetime
import time
from types import TracebackType

from rich.console import Console
from rich.status import Status as Line

from memrecon_fast.audit.progress import SECONDS_BETWEEN_LINES
from memrecon_fast.common.text import counted, escaped
from memrecon_fast.reconstruction.effort import Effort
from memrecon_fast.reconstruction.results import Reconstruction
from memrecon_fast.results import Status


class Progress:
    """A context manager; inside, it is told of each start and each step.

    total: starts, of which `done` were made before. console: where to write.
    """

    def __init__(self, total: int, done: int, console: Console) -> None:
        self._total, self._done, self._console = total, done, console
        self._before, self._began, self._written = done, time.monotonic(), time.monotonic()
        self._what = ""
        self._line: Line | None = console.status("") if console.is_terminal and not console.quiet else None

    def __enter__(self) -> Progress:
        if self._line is not None:
            self._line.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._line is not None:
            self._line.stop()

    def begin(self, target: str, seed: int) -> None:
        """The next start of a target."""
        self._what = f"{escaped(target)}, start {self._done + 1} of {self._total} (seed {seed})"
        if self._line is not None:
            self._line.update(self._what)

    def show(self, effort: Effort) -> None:
        """One more Gauss–Newton step of this start."""
        now = time.monotonic()
        if self._line is None and (self._console.quiet or now - self._written < SECONDS_BETWEEN_LINES):
            return
        self._written = now
        said = (
            f"{self._what}: {counted(effort.inputs, 'input')}, step {effort.steps}, {effort.residual:.1e} of theta is "
            f"left; {self._left(now)}"
        )
        if self._line is not None:
            self._line.update(said)
        else:
            self._console.print(said, markup=False, highlight=False, soft_wrap=True)

    def end(self, found: Reconstruction) -> None:
        """The start has ended so."""
        self._done += 1
        explains = "explain" if found.status == Status.CONVERGED else "do NOT explain"
        how = f"{explains} theta, {found.residual:.1e} of it is left"
        if found.certain:
            how = "came out of what the units of the first layer learned"
        self._console.print(
            f"{self._what}: {counted(len(found.inputs), 'input')} {how}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )

    def fail(self) -> None:
        """The start has found nothing."""
        self._done += 1
        self._console.print(f"{self._what}: nothing was found", markup=False, highlight=False, soft_wrap=True)

    def _left(self, now: float) -> str:
        """Known once a start has been made: how many steps one takes cannot be foretold."""
        made = self._done - self._before
        if not made:
            return "how long it takes is known after the first start"
        seconds = (now - self._began) / made * (self._total - self._done)
        return f"about {datetime.timedelta(seconds=round(seconds))} left"
