"""Who computes the blocks of a survey: this process, or workers on a Ray cluster."""

from __future__ import annotations

import collections
import dataclasses
import functools
import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import pyarrow as pa
import torch

from memrecon_fast.attractors.jacobian import Jacobian, make_jacobian
from memrecon_fast.attractors.survey.table import Table, UnreadableError
from memrecon_fast.audit.cluster import ClusterError
from memrecon_fast.audit.plan import model_digest, watch_weights
from memrecon_fast.common.errors import AutoencoderChangedError, reason
from memrecon_fast.common.typing import Autoencoder

MAX_DEATHS = 3
"""A worker that dies is begun again so many times, and a block is tried again so many times."""


@dataclasses.dataclass(frozen=True)
class Computed:
    """What came of a block: its rows, or why an image of it could not be read."""

    block: int
    rows: pa.Table | None
    unreadable: str = ""


class Workforce(Protocol):
    """Computes blocks."""

    def compute(self, table: Table, blocks: Sequence[int]) -> Iterator[Computed]:
        """What comes of these blocks, in any order. Who asks may stop asking before the end."""

    def doubts(self, patience: float | None) -> list[str]:
        """In the end: why what was computed is in doubt, as the model does not answer as it did.

        patience: so many seconds, at most, workers that still compute something are waited for; None: for ever.
        """


class Here:
    """This process."""

    def __init__(self, jacobian: Jacobian, autoencoder: Autoencoder) -> None:
        self._jacobian = jacobian
        self._weights_changed = watch_weights(autoencoder)

    def compute(self, table: Table, blocks: Sequence[int]) -> Iterator[Computed]:
        """See `Workforce`."""
        for block in blocks:
            try:
                computed = Computed(block, table.compute(self._jacobian, block))
            except UnreadableError as error:
                computed = Computed(block, None, str(error))
            yield computed

    def doubts(self, patience: float | None = None) -> list[str]:
        """See `Workforce`."""
        found = [self._weights_changed()]
        try:
            self._jacobian.prox.check_same()
        except AutoencoderChangedError as error:
            found.append(str(error))
        return [*filter(None, found)]


@dataclasses.dataclass(frozen=True)
class Task:
    """What a worker needs to begin; it must see the same files under the same paths."""

    load_model: Callable[[torch.device], Autoencoder]
    digest: str
    """Of the model, see `audit.plan.model_digest`."""
    image_shape: tuple[int, int, int]
    device: str
    """"cpu" or "cuda"."""
    threads: int
    folder: str
    """The current folder of the driver."""


class Worker:
    """An actor: the model."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._table: Table | None = None

    @functools.cached_property
    def _here(self) -> Here:
        task = self._task
        os.chdir(task.folder)
        torch.set_num_threads(task.threads)
        autoencoder = task.load_model(torch.device(task.device))
        if model_digest(autoencoder) != task.digest:
            raise ValueError("the model that a worker loads is not the one that the survey was begun with")
        jacobian = make_jacobian(autoencoder, task.image_shape, torch.device(task.device))
        return Here(jacobian, autoencoder)

    def compute(self, table: Table, block: int) -> Computed:
        """What comes of a block."""
        if self._table is None or self._table.name != table.name:  # it keeps what it has read; this one has not
            self._table = table
        return next(self._here.compute(self._table, [block]))

    def doubts(self) -> list[str]:
        """See `Here.doubts`; none where it never computed anything."""
        return self._here.doubts() if "_here" in vars(self) else []


class Crew:
    """Workers on the Ray cluster that this process is connected to. Their rows come back to it, which alone writes."""

    def __init__(self, task: Task, workers: int) -> None:
        ray = _ray()
        gpus = 1 if task.device == "cuda" else 0
        make = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=MAX_DEATHS, max_task_retries=MAX_DEATHS)(Worker)
        self._task = ray.put(task)  # kept for workers that are begun again
        self._workers = [make.remote(self._task) for _ in range(workers)]

    def compute(self, table: Table, blocks: Sequence[int]) -> Iterator[Computed]:
        """See `Workforce`. Raises what a worker raised; ClusterError where they die again and again."""
        ray = _ray()
        shared, waiting = ray.put(table), collections.deque(blocks)
        running: dict[Any, Any] = {}
        idle = list(self._workers)
        while waiting or running:
            while waiting and idle:
                worker = idle.pop(0)
                running[worker.compute.remote(shared, waiting.popleft())] = worker
            (ready, *_), _ = ray.wait(list(running))
            idle.append(running.pop(ready))
            yield self._get(ready)

    def doubts(self, patience: float | None) -> list[str]:
        """See `Workforce`."""
        asked = [worker.doubts.remote() for worker in self._workers]
        answered, _ = _ray().wait(asked, num_returns=len(asked), timeout=patience)
        return sorted({doubt for reference in answered for doubt in self._get(reference)})

    def _get(self, reference: Any) -> Any:
        ray = _ray()
        try:
            return ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise ClusterError(f"a worker died {MAX_DEATHS + 1} times; the last time: {reason(error)}") from error


def _ray() -> Any:
    return importlib.import_module("ray")
