"""The work of an audit: shards of images through the slots of a method, and what came of them into part files."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType

import numpy as np
from torch import Tensor

from memrecon_fast import metrics
from memrecon_fast.audit import gallery
from memrecon_fast.audit.methods import BLIND
from memrecon_fast.audit.parts import Parts, Row
from memrecon_fast.audit.plan import Audit
from memrecon_fast.audit.records import MOST_PSNR, Cell, Record
from memrecon_fast.audit.statistics import errors, extremes
from memrecon_fast.degradation import erase
from memrecon_fast.inflight import SHARE_OF_MEMORY, InFlight, slots_by_default
from memrecon_fast.prefetch import prefetch
from memrecon_fast.settings import Status
from memrecon_fast.solvers.protocol import AnySolver
from memrecon_fast.solvers.samples import Finished, Sample

IMAGES_IN_SHARD = 64
READ_AHEAD = 64
"""So many images are decoded and degraded by a thread before there is a slot for them."""
SECONDS_BETWEEN_PARTS = 5.0
_MOST_WITH_PIXELS = 64  # images of a cell: beyond, the pixels that are not needed are dropped
_MOST_WAITING = 2048  # records of a cell: beyond, they are written before it is time


@dataclasses.dataclass(frozen=True)
class Shard:
    """Some images of a cell."""

    cell: Cell
    indices: tuple[int, ...]


def shards_of(todo: Mapping[Cell, Iterable[int]]) -> list[Shard]:
    """The images of the cells in pieces."""
    return [
        Shard(cell, indices)
        for cell, all_indices in todo.items()
        for indices in _pieces(map(int, all_indices), IMAGES_IN_SHARD)
    ]


class Workbench:
    """The solvers of an audit with their slots, and where the results go.

    seconds_between_parts: what is done is written once so much time has passed, and when the work ends or is ended.
    """

    def __init__(
        self,
        audit: Audit,
        solvers: Mapping[str, AnySolver],
        parts: Parts,
        seconds_between_parts: float = SECONDS_BETWEEN_PARTS,
    ) -> None:
        share = SHARE_OF_MEMORY / len(solvers)
        self._audit, self._parts, self._seconds = audit, parts, seconds_between_parts
        self._in_flight = {
            method: InFlight(solver, audit.slots or slots_by_default(solver, share))
            for method, solver in solvers.items()
        }

    def work(
        self,
        method: str,
        shards: Iterable[Shard],
        wanted: Mapping[Cell, frozenset[int]] | None,
        report: Callable[[Record], None],
        skip: Callable[[str], None],
        saved: Callable[[], None] = lambda: None,
    ) -> str:
        """Work on the shards, all of this method, and save what comes of them; returns how it was run.

        wanted: of which images to keep pictures, by cell; None: those that a gallery may choose by their errors.
        report: called with each record. skip: called with the message for each image that could not be read; it is
        left out. saved: called after each part file. Whatever ends the work early, what is done is saved.
        """
        in_flight = self._in_flight[method]
        saver = Saver(self._parts, wanted, self._audit.keep_images, self._seconds, saved)
        try:
            with (
                contextlib.closing(prefetch(self._samples(shards, skip), READ_AHEAD)) as samples,
                contextlib.closing(in_flight.stream(samples)) as stream,
            ):
                for finished in stream:
                    report(saver.add(finished.label, finished))
        finally:
            saver.save()
        return f"{in_flight.solver.backend}, {in_flight.execution}, {in_flight.slots} slots"

    def _samples(self, shards: Iterable[Shard], skip: Callable[[str], None]) -> Iterator[Sample]:
        audit = self._audit
        noise_std = 0.0 if audit.degraded else audit.noise_std  # what is degraded has its noise already
        for shard in shards:
            images, mask = audit.splits[shard.cell.split], audit.masks[shard.cell.mask]
            known_mask = mask if shard.cell.method == "known-mask" else None
            for index in shard.indices:
                try:
                    original = images[index]
                except ValueError as error:
                    skip(str(error))
                    continue
                degraded = erase(original[None], mask, noise_std, audit.settings.seed, first_index=index)[0]
                truth = None if audit.degraded else _Truth(original, mask)
                job = _Job(shard.cell, images.names[index], images.sha256[index], degraded, truth)
                yield Sample(index, degraded, known_mask, label=job)


class Saver:
    """Gathers what is done, and writes it to part files from time to time."""

    def __init__(
        self,
        parts: Parts,
        wanted: Mapping[Cell, frozenset[int]] | None,
        keep_images: int,
        seconds: float,
        saved: Callable[[], None],
    ) -> None:
        self._parts, self._wanted, self._keep_images = parts, wanted, keep_images
        self._seconds, self._saved = seconds, saved
        self._done: dict[Cell, list[_Done]] = {}
        self._last = time.monotonic()

    def add(self, job: _Job, finished: Finished) -> Record:
        """One more image is done."""
        record = _record(job, finished)
        done = self._done.setdefault(job.cell, [])
        done.append(_Done(record, job, finished))
        if len(done) % _MOST_WITH_PIXELS == 0:
            self._drop_pixels(job.cell)
        too_many = len(done) % _MOST_WITH_PIXELS == 0 and self._waiting_pixels(job.cell) >= 2 * _MOST_WITH_PIXELS
        if too_many or len(done) >= _MOST_WAITING or time.monotonic() - self._last >= self._seconds:
            self.save()
        return record

    def save(self) -> None:
        """Write what was gathered. An interruption (Ctrl-C) waits until that is done."""
        with _not_interrupted():
            for cell in list(self._done):
                self._drop_pixels(cell)
                self._parts.write(cell, [one.row() for one in self._done[cell]])
                del self._done[cell]
            self._last = time.monotonic()
        self._saved()

    def _waiting_pixels(self, cell: Cell) -> int:
        return sum(one.finished is not None for one in self._done[cell])

    def _drop_pixels(self, cell: Cell) -> None:
        """Of images that others of the cell are preferred to."""
        done = sorted(self._done[cell], key=lambda one: one.record.index)
        names = ("mse", "score", "diverged")
        found = errors({name: np.array([getattr(one.record, name) for one in done], np.float64) for name in names})
        kept = extremes(found, self._keep_images)
        if self._wanted is None:
            shown = gallery.candidates(found)
        else:
            wanted = self._wanted.get(cell, frozenset())
            shown = {position for position, one in enumerate(done) if one.record.index in wanted}
        self._done[cell] = [
            dataclasses.replace(
                one,
                finished=one.finished if position in kept | shown else None,
                job=one.job if position in shown else None,
                kept=position in kept,
            )
            for position, one in enumerate(done)
        ]


@dataclasses.dataclass(frozen=True)
class _Done:
    """A record, with the pixels that may be needed."""

    record: Record
    job: _Job | None
    """None: its picture is not shown."""
    finished: Finished | None
    kept: bool = False
    """Whether the estimate is kept."""

    def row(self) -> Row:
        if self.finished is None:
            return Row(self.record)
        image, mask = self.finished.image, self.finished.mask
        picture = None
        if self.job is not None:
            degraded, truth = self.job.degraded, self.job.truth
            picture = gallery.make_picture(degraded if truth is None else truth.image, degraded, image, mask)
        return Row(self.record, picture, *((image.numpy(), mask.numpy()) if self.kept else (None, None)))


@dataclasses.dataclass(frozen=True)
class _Truth:
    """What was degraded, and how."""

    image: Tensor
    mask: Tensor


@dataclasses.dataclass(frozen=True)
class _Job:
    """What is known of an image before it is recovered."""

    cell: Cell
    name: str
    sha256: str
    degraded: Tensor
    truth: _Truth | None


def _record(job: _Job, one: Finished) -> Record:
    diverged = one.status == Status.DIVERGED
    mse = psnr = accurate = approximate = wrong_mask_share = None
    if job.truth is not None:
        mse = metrics.mse(one.image[None], job.truth.image[None]).item()
        psnr = min(metrics.clipped_psnr(one.image[None], job.truth.image[None]).item(), MOST_PSNR)
        accurate = not diverged and mse < metrics.ACCURATE_MSE
        approximate = not diverged and mse < metrics.APPROXIMATE_MSE
        if job.cell.method in BLIND:
            wrong_mask_share = (one.mask != job.truth.mask).float().mean().item()
    return Record(
        index=one.index,
        name=job.name,
        sha256=job.sha256,
        split=job.cell.split,
        mask=job.cell.mask,
        method=job.cell.method,
        mse=mse,
        psnr=psnr,
        accurate=accurate,
        approximate=approximate,
        diverged=diverged,
        status=one.status.name,
        outer_iterations=one.outer_iterations,
        evaluations=one.evaluations,
        residual=one.residual,
        wrong_mask_share=wrong_mask_share,
        fixed_point_mse=one.fixed_point_mse,
        misfit=one.misfit,
        explained=one.explained,
        score=one.score,
        gamma=None if math.isnan(one.gamma) else one.gamma,
        attempts=one.attempts,
        accepted=one.accepted,
        rejected=one.rejected,
        mask_changes=one.mask_changes,
    )


def _pieces(indices: Iterable[int], size: int) -> Iterator[tuple[int, ...]]:
    iterator = iter(indices)
    while piece := tuple(itertools.islice(iterator, size)):
        yield piece


@contextlib.contextmanager
def _not_interrupted() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt after the block, not inside. Only the main thread gets it in the first place."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[tuple[int, FrameType | None]] = []
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, lambda number, frame: held.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)  # None: not set from Python
    if held and callable(before):
        before(*held[0])
