"""Where the time of an audit goes, seen from outside: what its parts offer to each other is wrapped."""

from __future__ import annotations

import array
import contextlib
import dataclasses
import functools
import math
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast
from unittest import mock

import numpy as np
from torch import Tensor, nn

from memrecon_fast import Settings
from memrecon_fast.audit.opened import Run
from memrecon_fast.audit.progress import AuditProgress
from memrecon_fast.audit.store.folder import Folder
from memrecon_fast.audit.store.records import Record
from memrecon_fast.audit.worker import Workbench
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.inflight import InFlight
from memrecon_fast.engine.samples import Finished, Sample
from memrecon_fast.methods import METHODS, Open
from memrecon_fast.ops.admm import Admm
from memrecon_fast.recovery import prepare_recover
from memrecon_fast.solvers.paper import PaperSolver

LAST = 0.01
"""The share of the images after which slots may be empty."""
SECONDS_BETWEEN_LINES = 30.0

P = ParamSpec("P")
T = TypeVar("T")
Batches = Callable[[InFlight, Iterable[Sample]], Generator[list[Finished], None, None]]
CHECK = "checking the model at the end"
"""Its passes are not those of the work."""


class Watch:
    """Seconds by what they were spent on, in the thread that works; and who was in the slots.

    Nothing is counted twice: what is counted inside of something else does not belong to that.
    """

    def __init__(self, images: int) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.resident: dict[str, float] = {}
        """MB (10⁶ bytes) of this process once a step was made."""
        self.peaks: dict[str, float] = {}
        """The most until then."""
        self._images = images
        self._inside: list[str] = []
        """What is being counted, the innermost last."""
        self._since = 0.0
        """When the innermost went on."""
        self._rows = array.array("l")  # of each forward pass
        self._passes_at_end = array.array("l")  # of each image: the number of passes when it was done
        self._evaluations = array.array("l")  # of each image
        self._began = self._written = time.perf_counter()

    def timed(self, name: str, function: Callable[P, T]) -> Callable[P, T]:
        """The same function, its time counted under this name."""

        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
            with self.count(name):
                return function(*args, **kwargs)

        return wrapper

    @contextlib.contextmanager
    def count(self, name: str) -> Iterator[None]:
        """The time inside counts under this name."""
        self._enter(name)
        try:
            yield
        finally:
            self._leave()

    def _enter(self, name: str) -> None:
        self._settle()
        self._inside.append(name)

    def _leave(self) -> None:
        self._settle()
        self._inside.pop()

    def _settle(self) -> None:
        """The time until now is that of the innermost."""
        now = time.perf_counter()
        if self._inside:
            self.seconds[self._inside[-1]] += now - self._since
        self._since = now

    @contextlib.contextmanager
    def preparing(self) -> Iterator[None]:
        """Inside, audits prepare the paper's method with operations that are timed."""

        def prepare(autoencoder: Autoencoder, shape: Sequence[int], settings: Settings, backend: str) -> Open:
            solver = prepare_recover(autoencoder, shape, settings.with_solver("paper"), backend=backend)
            operations = dataclasses.replace(solver.ops, admm=cast(Admm, _TimedOps(solver.ops.admm, self)))
            timed = dataclasses.replace(cast(Any, solver), ops=operations)
            return functools.partial(InFlight, timed)

        with mock.patch.dict(METHODS, {"paper": dataclasses.replace(METHODS["paper"], prepare=prepare)}):
            yield

    @contextlib.contextmanager
    def working(self, model: nn.Module) -> Iterator[None]:
        """Count what a session does inside."""

        def before(module: nn.Module, arguments: tuple[Tensor]) -> None:
            if CHECK not in self._inside:
                self._enter("forward passes")

        def after(module: nn.Module, arguments: tuple[Tensor], result: Tensor) -> None:
            if CHECK not in self._inside:
                self._leave()
                self._rows.append(len(arguments[0]))

        with contextlib.ExitStack() as undo:
            undo.callback(model.register_forward_pre_hook(before).remove)
            undo.callback(model.register_forward_hook(after).remove)
            timed: tuple[tuple[Any, str, str], ...] = (
                (PaperSolver, "stage", "staging: initial masks"),
                (Workbench, "work", "records"),
                (InFlight, "check", CHECK),
                (Folder, "complete", "putting the records in order"),
            )
            for owner, name, counted in timed:
                undo.enter_context(mock.patch.object(owner, name, self.timed(counted, getattr(owner, name))))
            undo.enter_context(mock.patch.object(InFlight, "batches", self._streamed(InFlight.batches)))
            undo.enter_context(mock.patch.object(Run, "write_report", self._reported(Run.write_report)))
            undo.enter_context(mock.patch.object(AuditProgress, "show", self._shown(AuditProgress.show)))
            self._began = self._written = time.perf_counter()
            yield

    def occupancy(self, slots: int) -> dict[str, float]:
        """How many of the slots, and of the rows that the model was given, held an image that was worked on.

        Until the last 1 % of the images. Exact, as the passes of an image follow one another without a gap: it was in
        the last ones before it was done, as many as it had evaluations.
        """
        ends, evaluations = np.array(self._passes_at_end), np.array(self._evaluations)
        until = int(ends[math.ceil((1 - LAST) * len(ends)) - 1])
        begins = ends - evaluations
        used = int(np.clip(np.minimum(ends, until) - begins, 0, None).sum())
        return {
            "slots busy": used / (slots * until),
            "rows used": used / int(np.sum(self._rows[:until])),
            "rows used, to the end": int(evaluations.sum()) / sum(self._rows),
        }

    @property
    def passes(self) -> int:
        """The number of forward passes."""
        return len(self._rows)

    @property
    def rows(self) -> int:
        """The number of images in all forward passes."""
        return sum(self._rows)

    @property
    def evaluations(self) -> int:
        """Of all images, by their records."""
        return sum(self._evaluations)

    def note_memory(self, step: str) -> None:
        """The step was made."""
        self.resident[step], self.peaks[step] = _memory("VmRSS"), _memory("VmHWM")

    def _reported(self, report: Callable[P, T]) -> Callable[P, T]:
        def watched(*args: P.args, **kwargs: P.kwargs) -> T:
            self.note_memory("images done")
            with self.count("report"):
                return report(*args, **kwargs)

        return watched

    def _streamed(self, batches: Batches) -> Batches:
        """Images are read, checked and degraded by another thread: what is counted is that there was none ready."""

        def watched(in_flight: InFlight, samples: Iterable[Sample]) -> Generator[list[Finished], None, None]:
            ready = self._counted("waiting for images", samples)
            with contextlib.closing(batches(in_flight, ready)) as done:
                yield from self._counted("images into slots and out of them", done)

        return watched

    def _counted(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """The items; the time that each takes to come counts under this name."""
        iterator = iter(items)
        while True:
            with self.count(name):
                item = next(iterator, None)
            if item is None:
                return
            yield item

    def _shown(self, show: Callable[[AuditProgress, Record], None]) -> Callable[[AuditProgress, Record], None]:
        def watched(progress: AuditProgress, record: Record) -> None:
            self._passes_at_end.append(len(self._rows))
            self._evaluations.append(record.evaluations)
            with self.count("progress bar"):
                show(progress, record)
            now = time.perf_counter()
            if now - self._written >= SECONDS_BETWEEN_LINES:
                self._written = now
                rate = progress.done / (now - self._began)
                print(f"  {progress.done} of {self._images} images, {rate:.1f} per second", flush=True)

        return watched


class _TimedOps:
    """The operations between the forward passes."""

    def __init__(self, ops: Admm, watch: Watch) -> None:
        self._ops, self._watch = ops, watch

    def __getattr__(self, name: str) -> Any:
        timed = self._watch.timed("steps between", getattr(self._ops, name))
        setattr(self, name, timed)
        return timed


def log_passes(model: nn.Module, path: Path) -> None:
    """From now on each forward pass writes a line: when it began and ended, by the clock of the machine, and rows."""
    begin = 0.0
    log = path.open("w", buffering=1)

    def before(module: nn.Module, arguments: tuple[Tensor]) -> None:
        nonlocal begin
        begin = time.monotonic()

    def after(module: nn.Module, arguments: tuple[Tensor], result: Tensor) -> None:
        log.write(f"{begin} {time.monotonic()} {len(arguments[0])}\n")

    model.register_forward_pre_hook(before)
    model.register_forward_hook(after)


def _memory(name: str) -> float:
    """MB of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError(f"/proc/self/status has no {name}")
