"""The work of an audit: shards of images through the slots of a method, and what came of them into part files."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from memrecon_fast.audit.analysis.given_out import COLUMNS as GIVEN_OUT
from memrecon_fast.audit.analysis.given_out import choose_given_out
from memrecon_fast.audit.analysis.sheet import Leaders
from memrecon_fast.audit.analysis.statistics import candidates, errors, extremes, something_erased
from memrecon_fast.audit.plan import Audit
from memrecon_fast.audit.recording import Job, Truth, records_of
from memrecon_fast.audit.store.parts import Parts, Row
from memrecon_fast.audit.store.pictures import make_picture, make_thumbnail
from memrecon_fast.audit.store.records import NEAR_MSE, Cell, Record
from memrecon_fast.common.errors import AutoencoderChangedError
from memrecon_fast.degradation import erase
from memrecon_fast.engine.prefetch import prefetch
from memrecon_fast.engine.samples import Finished, Sample
from memrecon_fast.images.nearest import Nearest
from memrecon_fast.methods import METHODS, Open

IMAGES_IN_SHARD = 64
READ_AHEAD = 64
"""So many images are decoded and degraded by a thread before there is a slot for them ..."""
BYTES_READ_AHEAD = 256 * 2**20
"""... and, beyond the first one, no more than fit into this."""
SECONDS_BETWEEN_PARTS = 5.0
COMPARED_AT_ONCE = 64
"""So many estimates wait to be compared with all members, each of which is gone through for all of them at once ..."""
SECONDS_WAITING = 1.0
"""... but for no longer than this."""
_MAX_WITH_PIXELS = 64  # images of a cell: beyond, the pixels that are not needed are dropped
_MAX_WAITING = 2048  # records of a cell: beyond, they are written before it is time


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


def _warn(doubt: str) -> None:
    warnings.warn(f"{doubt}: what was done is in doubt", RuntimeWarning, stacklevel=2)


@dataclasses.dataclass(frozen=True)
class Listener:
    """Who is told what comes of the work."""

    show: Callable[[Record], None]
    """Called with each record, once it is saved where workers do the work."""
    skip: Callable[[str], None]
    """Called with the message for each image that could not be read."""
    doubt: Callable[[str], None]
    """Called with why what was done is in doubt: the model does not answer as it did."""


class Workbench:
    """The methods of an audit, and where the results go.

    streams: of `Audit.prepare`; each is opened when it is its turn, so that it has all the memory.
    seconds_between_parts: what is done is written once so much time has passed, and when the work ends or is ended.
    """

    def __init__(
        self,
        audit: Audit,
        streams: Mapping[str, Open],
        parts: Parts,
        seconds_between_parts: float = SECONDS_BETWEEN_PARTS,
    ) -> None:
        self._audit, self._parts, self._seconds = audit, parts, seconds_between_parts
        self._streams = streams
        self._members: Nearest | None = None

    def work(
        self,
        method: str,
        shards: Iterable[Shard],
        wanted: Mapping[Cell, frozenset[int]] | None,
        report: Callable[[Record], None],
        skip: Callable[[str], None],
        saved: Callable[[], None] = lambda: None,
        doubt: Callable[[str], None] = _warn,
    ) -> str:
        """Work on the shards, all of this method, and save what comes of them; returns how it was run.

        wanted: of which images to keep pictures, by cell; None: those that a gallery may choose by their errors, and
        thumbnails of the members that the contact sheet may show.
        report: called with each record. skip: called with the message for each image that could not be read; it is
        left out. saved: called after each part file. doubt: called in the end, however it came, where the model does
        not answer as it did: with why. Whatever ends the work early, what is done is saved.
        """
        members = self._all_members()
        stream = self._streams[method](self._audit.most_at_a_time)
        bytes_of_image = 2 * 4 * math.prod(self._audit.image_shape)  # with its degraded copy
        ahead = max(1, min(READ_AHEAD, BYTES_READ_AHEAD // bytes_of_image))
        ended = False
        saver = Saver(self._parts, wanted, self._audit.keep_images, self._seconds, saved, members)
        waiting: list[Finished] = []
        recorded: collections.deque[tuple[Finished, Record]] = collections.deque()

        def record() -> None:
            recorded.extend(zip(waiting, records_of(waiting, members), strict=True))
            waiting.clear()
            while recorded:
                saver.add(*(one := recorded.popleft()))
                report(one[1])

        try:
            with (
                contextlib.closing(prefetch(self._samples(shards, skip), ahead)) as samples,
                contextlib.closing(stream.batches(samples)) as batches,
            ):
                last = time.monotonic()
                for batch in batches:
                    waiting += batch
                    if len(waiting) >= COMPARED_AT_ONCE or time.monotonic() - last >= min(
                        SECONDS_WAITING, self._seconds
                    ):
                        record()
                        last = time.monotonic()
            ended = True
        finally:
            try:
                if not recorded:  # otherwise it was a record that ended the work
                    record()
            finally:
                saver.save()
            try:
                stream.check()
            except AutoencoderChangedError as error:
                if ended or error.__cause__ is None:  # one that failed before may just fail again
                    doubt(str(error))
                    saved()
        return stream.how

    def _all_members(self) -> Nearest | None:
        """What the estimates are compared with, made when it is first needed: it reads all members. None where they are
        not the images that the model was trained on, but degraded copies."""
        if self._members is None and not self._audit.degraded:
            try:
                self._members = Nearest(self._audit.splits["members"], within=NEAR_MSE)
            except ValueError as error:  # without one of them, what is recorded would be wrong
                raise ValueError(f"every estimate is compared with all members, but {error}") from error
        return self._members

    def _samples(self, shards: Iterable[Shard], skip: Callable[[str], None]) -> Iterator[Sample]:
        audit = self._audit
        noise_std = 0.0 if audit.degraded else audit.noise_std  # what is degraded has its noise already
        for shard in shards:
            images, mask = audit.splits[shard.cell.split], audit.masks[shard.cell.mask]
            known_mask = mask if METHODS[shard.cell.method].mask == "given" else None
            for index in shard.indices:
                try:
                    original = images[index]
                except ValueError as error:
                    skip(str(error))
                    continue
                degraded = erase(original[None], mask, noise_std, audit.settings.seed, first_index=index)[0]
                truth = None if audit.degraded else Truth(original, mask)
                job = Job(shard.cell, images.names[index], images.sha256[index], degraded, truth)
                yield Sample(index, degraded, known_mask, noise_std=audit.noise_std, label=job)


class Saver:
    """Gathers what is done, and writes it to part files from time to time."""

    def __init__(
        self,
        parts: Parts,
        wanted: Mapping[Cell, frozenset[int]] | None,
        keep_images: int,
        seconds: float,
        saved: Callable[[], None],
        members: Nearest | None = None,
    ) -> None:
        self._parts, self._wanted, self._keep_images = parts, wanted, keep_images
        self._members = members
        self._seconds, self._saved = seconds, saved
        self._done: dict[Cell, _Done] = {}
        self._leaders: dict[Cell, Leaders] = {}
        self._last = time.monotonic()

    def add(self, finished: Finished, record: Record) -> None:
        """One more image is done."""
        cell = finished.label.cell
        done = self._done.setdefault(cell, _Done())
        done.pixels[len(done.records)] = finished
        done.records.append(record)
        count = len(done.records)
        too_many = False
        if count % _MAX_WITH_PIXELS == 0:
            self._choose_pixels(cell)
            too_many = len(done.pixels) >= 2 * _MAX_WITH_PIXELS
        if too_many or count >= _MAX_WAITING or time.monotonic() - self._last >= self._seconds:
            self.save()

    def save(self) -> None:
        """Write what was gathered. An interruption (Ctrl-C) waits until that is done."""
        with _not_interrupted():
            for cell in list(self._done):
                self._parts.write(cell, self._rows(cell))
                del self._done[cell]
            self._last = time.monotonic()
        self._saved()

    def _rows(self, cell: Cell) -> list[Row]:
        kept, shown = self._choose_pixels(cell)
        done = self._done[cell]
        rows = [Row(record) for record in done.records]
        for position, finished in done.pixels.items():
            picture = image = mask = None
            if position in shown:
                nearest = done.records[position].nearest_member
                member = None if self._members is None or nearest is None else self._members[nearest]
                degraded = finished.label.degraded
                picture = make_picture(_original(finished), degraded, finished.image, finished.mask, member)
            if position in kept:
                image, mask = finished.image.numpy(), finished.mask.numpy()
            rows[position] = Row(done.records[position], picture, image, mask)
        for position, thumbnail in done.thumbnails.items():
            rows[position] = dataclasses.replace(rows[position], thumbnail=thumbnail)
        return rows

    def _add_thumbnail(self, cell: Cell, position: int, error: float) -> None:
        """Make the thumbnail of an image that the contact sheet may show, as far as this worker knows."""
        done = self._done[cell]
        leaders = self._leaders.setdefault(cell, Leaders())
        if position not in done.thumbnails and leaders.add(error, done.records[position].index):
            finished = done.pixels[position]
            done.thumbnails[position] = make_thumbnail(_original(finished), finished.image)

    def _choose_pixels(self, cell: Cell) -> tuple[set[int], set[int]]:
        """Drop those of images that others of the cell are preferred to, once their thumbnails are made; returns whose
        estimates are kept, and which are shown, by their position among the records.

        Those that were dropped before need not be looked at again: what is preferred to them is still there.
        """
        done = self._done[cell]
        positions = sorted(done.pixels, key=lambda position: done.records[position].index)
        records = [done.records[position] for position in positions]
        columns = {
            name: np.array([getattr(one, name) for one in records], np.float64)
            for name in ("index", "mse", "score", "diverged", *GIVEN_OUT)
        }
        found = errors(columns)
        kept = {positions[at] for at in extremes(found, self._keep_images)}
        if self._wanted is None:
            counted = np.flatnonzero(something_erased(columns))
            shown = {positions[counted[at]] for at in candidates(found[counted])}
            for at in counted if cell.split == "members" else ():
                self._add_thumbnail(cell, positions[at], float(found[at]))
        else:
            wanted = self._wanted.get(cell, frozenset())
            shown = {position for position in positions if done.records[position].index in wanted}
        shown |= {positions[at] for at in choose_given_out(columns)}
        done.pixels = {position: done.pixels[position] for position in positions if position in kept | shown}
        return kept, shown


@dataclasses.dataclass
class _Done:
    """What is done of a cell and not written yet."""

    records: list[Record] = dataclasses.field(default_factory=list)
    pixels: dict[int, Finished] = dataclasses.field(default_factory=dict)
    """Of the images whose pixels may be needed, by the position of their record."""
    thumbnails: dict[int, NDArray[np.uint8]] = dataclasses.field(default_factory=dict)
    """The same for the contact sheet."""


def _original(finished: Finished) -> Tensor:
    """What was degraded, or where that is unknown, what was given."""
    job: Job = finished.label
    return job.degraded if job.truth is None else job.truth.image


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
