"""The work of an audit on a Ray cluster: workers hold the model, pull shards, and write part files of their own."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import importlib
import itertools
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from memrecon_fast.audit.plan import Audit, model_digest, watch_weights
from memrecon_fast.audit.store.folder import Folder
from memrecon_fast.audit.store.opening import OpenRun
from memrecon_fast.audit.store.parts import Parts
from memrecon_fast.audit.store.records import Cell, Record
from memrecon_fast.audit.worker import Listener, Shard, Workbench
from memrecon_fast.common.errors import one_line, reason
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.methods import METHODS, Method
from memrecon_fast.settings import SOLVERS, SolverRecord

MAX_DEATHS = 3
"""So many times all workers may die without any image done in between."""
SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_TO_STOP = 60.0
SECONDS_TO_CONNECT = 10.0


class ClusterError(RuntimeError):
    """The workers cannot go on."""


class _StoppedError(Exception):
    """The driver wants no more."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What a worker needs to begin; it must see the same files under the same paths."""

    audit: Audit
    load_model: Callable[[torch.device], Autoencoder]
    digest: str
    """Of the model, see `description.model_digest`."""
    device: str
    """"cpu" or "cuda"."""
    parts: Parts
    seconds_between_parts: float
    threads: int
    folder: str
    """The current folder of the driver."""
    methods: Mapping[str, Method]
    """Those of the audit: a worker need not have imported what added them."""
    solvers: Mapping[str, SolverRecord]
    """All that may be needed for them."""


def make_task(
    plan: Audit,
    run: OpenRun,
    load_model: Callable[[torch.device], Autoencoder],
    device: str,
    seconds: float,
    threads: int,
) -> Task:
    """The task of the workers of a run."""
    digest = run.description["plan"]["model"]
    return Task(plan, load_model, digest, device, run.folder.parts, seconds, threads, os.getcwd(), _of(plan), SOLVERS)


def _of(plan: Audit) -> dict[str, Method]:
    return {name: METHODS[name] for name in plan.methods}


def check_can_be_sent(load_model: Callable[[torch.device], Autoencoder]) -> None:
    """Raise ValueError where the model cannot be sent to the workers."""
    try:
        _ray().cloudpickle.dumps(load_model)
    except Exception as error:  # whatever its parts raise
        raise ValueError(
            f"the model cannot be sent to the workers: {one_line(error)}; give its file instead"
        ) from error


class Worker:
    """An actor: the model, its solvers and their slots."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._bench: Workbench | None = None
        self._weights_changed: Callable[[], str] = str
        """Says how the weights were changed since they were loaded; "" where they were not."""

    def work(self, name: str, dispatcher: Any, method: str, wanted: Mapping[Cell, frozenset[int]] | None) -> str:
        """Work on shards of the method until there are no more; returns how it was run."""
        ray = _ray()
        self._bench = self._bench or self._prepare()
        records: list[Record] = []
        skipped: list[str] = []
        doubts: list[str] = []

        def shards() -> Iterator[Shard]:
            while (shard := ray.get(dispatcher.take.remote(name, method))) is not None:
                yield shard

        def saved() -> None:
            stopped = ray.get(dispatcher.report.remote(list(records), list(skipped), list(doubts)))
            for reported in (records, skipped, doubts):
                reported.clear()
            if stopped:
                raise _StoppedError

        try:
            how = self._bench.work(method, shards(), wanted, records.append, skipped.append, saved, doubts.append)
            doubts += filter(None, [self._weights_changed()])
            saved()
            return how
        except _StoppedError:
            return "stopped"

    def _prepare(self) -> Workbench:
        task = self._task
        os.chdir(task.folder)
        METHODS.update(task.methods)
        SOLVERS.update(task.solvers)
        torch.set_num_threads(task.threads)
        autoencoder = task.load_model(torch.device(task.device))
        if model_digest(autoencoder) != task.digest:
            raise ValueError("the model that a worker loads is not the one that the audit was begun with")
        try:  # a machine that does not have the images would run through all shards and leave them undone
            for images in task.audit.splits.values():
                images[images.usable()[0]]
        except ValueError as error:
            raise ValueError(f"a worker on {socket.gethostname()} cannot read the images: {error}") from error
        self._weights_changed = watch_weights(autoencoder)
        return Workbench(task.audit, task.audit.prepare(autoencoder), task.parts, task.seconds_between_parts)


class Dispatcher:
    """An actor: the shards that wait, who took which, and what was done since the driver looked.

    One for all methods of a run, as the process of each takes seconds to begin.
    """

    def __init__(self) -> None:
        self._method = ""
        self._waiting: collections.deque[Shard] = collections.deque()
        self._taken: dict[str, list[Shard]] = {}
        self._dead: set[str] = set()
        self._records: list[Record] = []
        self._skipped: list[str] = []
        self._doubts: list[str] = []
        self._stopped = False

    def begin(self, method: str, shards: Sequence[Shard]) -> None:
        """These are to be done by the method; the one before is over."""
        self._method = method
        self._waiting = collections.deque(shards)
        self._taken.clear()

    def take(self, worker: str, method: str) -> Shard | None:
        """The next shard; None where there is none, or where the method is over: a worker may come late."""
        if not self._waiting or method != self._method or worker in self._dead:
            return None
        taken = self._taken.setdefault(worker, [])
        taken.append(self._waiting.popleft())
        return taken[-1]

    def report(self, records: list[Record], skipped: list[str], doubts: list[str]) -> bool:
        """These are saved, these could not be read, and this is why they are in doubt. Returns whether the worker is to
        stop."""
        self._records += records
        self._skipped += skipped
        self._doubts += doubts
        return self._stopped

    def lost(self, worker: str) -> list[Shard]:
        """What a worker that died had taken. It gets no more, should it ask yet."""
        self._dead.add(worker)
        return self._taken.pop(worker, [])

    def put_back(self, shards: Sequence[Shard]) -> None:
        """These wait again."""
        self._waiting.extendleft(reversed(shards))

    def stop(self) -> None:
        """Give out no more."""
        self._stopped = True
        self._waiting.clear()

    def news(self) -> tuple[list[Record], list[str], list[str]]:
        """What was reported since the last call."""
        news = self._records, self._skipped, self._doubts
        self._records, self._skipped, self._doubts = [], [], []
        return news

    def has_waiting(self) -> bool:
        """Whether a shard waits."""
        return bool(self._waiting)

    def is_needed(self, running: Sequence[str]) -> bool:
        """Whether a shard waits, or one of these workers, which have not returned, has taken any."""
        return bool(self._waiting) or any(self._taken.get(worker) for worker in running)


class Crew:
    """The workers of a run.

    listener: is told what the workers report. remark: called with each remark, one line.
    """

    def __init__(
        self,
        task: Task,
        folder: Folder,
        workers: int,
        listener: Listener,
        remark: Callable[[str], None],
    ) -> None:
        ray = _ray()
        self._folder, self._listener, self._remark = folder, listener, remark
        self._task = ray.put(task)
        options = {"num_cpus": 1, "num_gpus": 1 if task.device == "cuda" else 0}
        self._make = ray.remote(**options)(Worker).remote
        self._dispatcher = ray.remote(num_cpus=0)(Dispatcher).remote()
        self._names = (f"worker-{number}" for number in itertools.count(1))
        self.workers: dict[str, Any] = {}
        for _ in range(workers):
            self._hire()
        self._deaths = 0

    def work(self, method: str, shards: Sequence[Shard], wanted: Mapping[Cell, frozenset[int]] | None) -> str:
        """Have the shards worked on, see `Workbench.work`. What a worker that dies had in hand is given to others.

        Raises what a worker raised; ClusterError where they die again and again.
        """
        ray = _ray()
        dispatcher = self._dispatcher
        ray.get(dispatcher.begin.remote(method, shards))
        running: dict[Any, str] = {}

        def start() -> None:
            for name, worker in self.workers.items():
                if name not in running.values():
                    running[worker.work.remote(name, dispatcher, method, wanted)] = name

        start()
        executions = []
        try:
            while running:
                ready, _ = ray.wait(list(running), timeout=SECONDS_BETWEEN_LOOKS)
                self._look()
                for reference in ready:
                    name = running.pop(reference)
                    try:
                        executions.append(ray.get(reference))
                    except ray.exceptions.RayTaskError as error:
                        raise error.cause from None
                    except ray.exceptions.RayError as error:  # the worker, its machine or its memory is gone
                        self._bury(name, error)
                        lost = self._not_done(ray.get(dispatcher.lost.remote(name)))
                        ray.get(dispatcher.put_back.remote(lost))
                if ready and ray.get(dispatcher.has_waiting.remote()):
                    start()  # who found nothing to do may have returned before a shard was put back
                if ready and not ray.get(dispatcher.is_needed.remote(list(running.values()))):
                    break  # who is left has not begun yet: hired late, or still loading the model
        except BaseException:
            self._stop(running)
            raise
        self._look()
        return f"{executions[0]}, {len(self.workers)} workers" if executions else "stopped"

    def _look(self) -> None:
        records, skipped, doubts = _ray().get(self._dispatcher.news.remote())
        for record in records:
            self._deaths = 0
            self._listener.show(record)
        for message in skipped:
            self._listener.skip(message)
        for message in doubts:
            self._listener.doubt(message)

    def _hire(self) -> None:
        self.workers[next(self._names)] = self._make(self._task)

    def _bury(self, name: str, error: Exception) -> None:
        del self.workers[name]
        self._deaths += 1
        if self._deaths > MAX_DEATHS * (1 + len(self.workers)):
            raise ClusterError(
                f"{self._deaths} workers died without an image done in between; the last one: {reason(error)}"
            )
        self._remark(f"{name} died and is replaced; what it had in hand is done again")
        self._hire()

    def _not_done(self, shards: Iterable[Shard]) -> list[Shard]:
        """Without the images that were saved."""
        left = []
        done: dict[Cell, set[int]] = {}
        for shard in shards:
            if shard.cell not in done:
                done[shard.cell] = set(self._folder.done(shard.cell).tolist())
            indices = tuple(index for index in shard.indices if index not in done[shard.cell])
            if indices:
                left.append(Shard(shard.cell, indices))
        return left

    def _stop(self, running: Mapping[Any, str]) -> None:
        """Let the workers save what they have done."""
        ray, dispatcher = _ray(), self._dispatcher
        dispatcher.stop.remote()
        until = time.monotonic() + SECONDS_TO_STOP
        left = dict(running)
        while left and time.monotonic() < until and ray.get(dispatcher.is_needed.remote(list(left.values()))):
            ready, _ = ray.wait(list(left), timeout=SECONDS_BETWEEN_LOOKS)
            for reference in ready:
                del left[reference]
        self._look()


@contextlib.contextmanager
def connected(address: str | None, workers: int | None) -> Iterator[None]:
    """A Ray cluster: that at the address, or one of this machine's own for so many workers; where this process is
    connected to one already, it is that one, and stays connected.

    Raises ValueError where Ray is missing or cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or Ray warns of its own future
    ray = _ray()
    if ray.is_initialized():
        yield
        return
    connect = functools.partial(ray.init, logging_level="error", log_to_driver=False)
    try:
        if address is None:
            connect(address="local", num_cpus=workers, include_dashboard=False)  # even where another cluster runs
        else:
            _check_reachable(address)
            connect(address=address)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        where = "a Ray cluster on this machine" if address is None else f"the Ray cluster at {address}"
        raise ValueError(f"{where} cannot be reached: {reason(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


def number_of_workers(asked: int | None, device: str) -> int:
    """As many as were asked for, or one for each GPU or CPU of the cluster. Raises ValueError where there are fewer."""
    resource = "GPU" if device == "cuda" else "CPU"
    there = int(_ray().cluster_resources().get(resource, 0))
    if there < (asked or 1):
        raise ValueError(f"--workers {asked or 1} needs as many {resource}s; the Ray cluster has {there}")
    return asked or there


def device_kind(asked: str) -> str:
    """ "cuda" or "cpu", where the user said "auto", or one of them. Raises ValueError for anything else."""
    if asked == "auto":
        return "cuda" if _ray().cluster_resources().get("GPU", 0) else "cpu"
    if asked not in ("cpu", "cuda"):
        raise ValueError(f"with workers --device must be auto, cpu or cuda, not {asked!r}: Ray gives each its GPU")
    return asked


def without_gpu(audit: Audit) -> Audit:
    """As the driver, which needs no GPU, checks it: formats and backends are for the workers to refuse."""
    settings = audit.settings
    if settings.precision == "tf32":
        settings = dataclasses.replace(settings, precision="float32")
    return dataclasses.replace(audit, settings=settings, backend="auto" if audit.backend == "triton" else audit.backend)


def threads_of_each(workers: int) -> int:
    """Of the workers on this machine."""
    return max(1, torch.get_num_threads() // workers)


def _check_reachable(address: str) -> None:
    """Raise OSError where nothing listens at host:port: Ray itself tries for minutes. Other addresses pass."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_CONNECT).close()


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ValueError("--workers and --ray need Ray: pip install 'memrecon-fast[ray]'") from error
