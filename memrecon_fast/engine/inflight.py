"""In-flight batching: images stream through fixed slots, finished ones leave, waiting ones take their place.

An image's result does not depend on its slot, its neighbours or the order of arrival; on a GPU as long as the number of
rows that go through the autoencoder stays the same: until no image waits any more (`Prox.block_sizes`).

On a GPU nothing waits for the device but the reading of the flags that say which images are done. They are copied to
pinned memory at the end of a block and read while another block runs: that of a second group of slots where there are
many, or, once no image waits for a slot, the next block of the same slots. (While images wait for one group, the GPU
waits for the host between two blocks: to run ahead would cost a block for each image.) A slot whose image is done
stays as it is.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import gc
import itertools
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator

import torch

from memrecon_fast.common.checks import check_integer
from memrecon_fast.common.errors import is_out_of_memory
from memrecon_fast.engine.cuda_graph import Capture, make_capture
from memrecon_fast.engine.memory import ARRIVALS, Need, groups_of, slots_by_default
from memrecon_fast.engine.prefetch import prefetch
from memrecon_fast.engine.prox import Prox
from memrecon_fast.engine.review import Review
from memrecon_fast.engine.rows import in_rows
from memrecon_fast.engine.samples import Batch, Finished, Sample, Staged
from memrecon_fast.engine.solver import Solver
from memrecon_fast.engine.table import Group
from memrecon_fast.engine.transfer import on_one_stream, on_this_stream
from memrecon_fast.engine.width import Width
from memrecon_fast.results import Status


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How the host keeps up with the device."""

    groups: int
    """The slots are divided into so many tables, which take turns."""
    lag: int
    """Once no image waits, the reading of the flags stays so many blocks behind."""
    ahead: int
    """So many samples are read ahead by a thread; 0: none, and no thread."""
    make_capture: Callable[[torch.device], Capture] | None
    """Makes what captures blocks in graphs, where there are graphs."""


def make_schedule(device: torch.device, slots: int) -> Schedule:
    """On a GPU so that it need not wait for the host; on a CPU, which does both, one after the other."""
    if device.type != "cuda":
        return Schedule(groups=1, lag=0, ahead=0, make_capture=None)
    return Schedule(groups_of(device, slots), lag=1, ahead=min(slots, ARRIVALS), make_capture=make_capture)


class InFlight:
    """The slots of a solver, for any number of streams of images, one after the other.

    slots: how many images are worked on at a time. None: as many as half of the free memory should hold, and at most
        4096 on a GPU; on a CPU 64, 128 or 256, whichever is fastest of those that fit, see `Width`. Raises ValueError,
        with the number that would fit, where there is too little memory.
    schedule: None: that of `make_schedule`.

    reviewed: whether estimates are scored, and bad ones tried again, see `review`.
    images: how many will come, where that is known: there are no more slots than that.

    When memory runs out, the number of slots is halved, with a RuntimeWarning; the images in the slots start anew.
    """

    def __init__(
        self,
        solver: Solver,
        slots: int | None = None,
        schedule: Schedule | None = None,
        reviewed: bool = True,
        images: int | None = None,
    ) -> None:
        if slots is not None:
            check_integer("slots", slots, low=1)
        self.solver = solver
        most = slots_by_default(solver) if slots is None else slots
        self.slots = min(most, solver.prox.most_rows, most if images is None else max(images, 1))
        """As given, or less if the autoencoder takes no more at a time, fewer images come, or memory ran out."""
        Need(solver).check(self.slots)
        self._schedule = schedule or make_schedule(solver.prox.device, self.slots)
        self._width = Width(self.slots, found=slots is None and _may_be_found(solver.prox))
        self._groups: list[Group] = []
        self._busy = False
        self._reviewed = reviewed
        self._early = None
        if solver.early is not None:
            self._early = InFlight(solver.early, slots, self._schedule, reviewed=False, images=self.slots)
            # what comes from there is computed, not read
            self._schedule = dataclasses.replace(self._schedule, ahead=0)

    @property
    def _batch(self) -> int:
        """So many estimates are reviewed at a time."""
        return min(self._width.now, ARRIVALS)

    @property
    def execution(self) -> str:
        """How the blocks were run: "eager", "CUDA graph", or "eager: " and why they were not captured."""
        groups = self._groups + (self._early._groups if self._early is not None else [])
        graphs = [group.graphs for group in groups if group.graphs is not None]
        for reason in (one.why_not for one in graphs if one.why_not):
            return f"eager: {reason}"
        return "CUDA graph" if any(one.captured for one in graphs) else "eager"

    @property
    def how(self) -> str:
        """How it runs, in a few words: backend, execution and slots, and how many layers have packed weights."""
        packed = self.solver.prox.packed_weights
        said = f"{self.solver.ops.backend}, {self.execution}, {self._width.now} slots"
        return f"{said}, {packed} layers packed" if packed else said

    def stream(self, samples: Iterable[Sample]) -> Generator[Finished, None, None]:
        """Pass `samples` through the slots; yields each image some time after it is done.

        No more samples are taken from the iterable than there are slots free, and those that are read ahead. Raises
        ValueError for a sample whose shape is not that of the others, or where the autoencoder was changed or is in
        training mode, and RuntimeError while another stream goes through the same slots. What the autoencoder raises
        passes through, and the images yielded before are not lost. Raises AutoencoderChangedError at the end, after
        all images, as `check`.
        """
        for batch in self.estimates(samples):
            yield from batch.unpack()
        self.check()

    def check(self) -> None:
        """Raise AutoencoderChangedError where the autoencoder was changed, or does not answer as it did when it was
        tried and when the first estimates were scored: it may be random now and then, or since a while."""
        self.solver.prox.check_same()

    def batches(self, samples: Iterable[Sample]) -> Generator[list[Finished], None, None]:
        """As `stream`, in lists of the images that are reviewed together, and without the check at the end."""
        for batch in self.estimates(samples):
            yield list(batch.unpack())

    def estimates(
        self, samples: Iterable[Sample], pixels: bool = True, on_done: Callable[[int], None] | None = None
    ) -> Generator[Batch, None, None]:
        """As `batches`, before they are unpacked.

        pixels: False: images and masks stay on the device, in views of the shape of images. Work that is given to
            torch's current stream from then on may read them.
        on_done: is told how many more images are done, as soon as the host knows of them: before they are handed out.
        """
        return on_one_stream(self._estimates(samples, pixels, on_done), self.solver.prox.device)

    def _estimates(
        self, samples: Iterable[Sample], pixels: bool, on_done: Callable[[int], None] | None
    ) -> Generator[Batch, None, None]:
        if self._busy:
            raise RuntimeError("these slots are in use by another stream")
        self.solver.prox.check_unchanged()
        self._busy = True
        try:
            with self._open(samples) as source:
                review = Review(self.solver, pixels) if self._reviewed else None
                passing = _Passing(source, review, self.solver.prox, pixels, on_done)
                while True:
                    try:
                        yield from self._run(passing)
                        return
                    except Exception as error:
                        least = self.solver.prox.block_sizes(1)[0]
                        if source.failed or not is_out_of_memory(error) or self.slots <= least:
                            yield from self._all_done(passing)
                            raise
                    self._halve(source)  # here the error is gone, and with it the memory that it kept
        finally:
            self._busy = False

    @contextlib.contextmanager
    def _open(self, samples: Iterable[Sample]) -> Iterator[_Source]:
        """The samples on their way to the slots."""
        with contextlib.ExitStack() as opened:
            if self._early is not None:
                samples = _with_first_masks(opened.enter_context(contextlib.closing(self._early.estimates(samples))))
            staged: Iterator[Staged] = (self._stage(sample) for sample in samples)
            if self._schedule.ahead:
                device = self.solver.prox.device
                staged = in_rows(staged, self._schedule.ahead, pinned=device.type == "cuda")
                staged = on_this_stream(staged, device)
                staged = opened.enter_context(contextlib.closing(prefetch(staged, self._schedule.ahead)))
            yield _Source(staged)

    def _stage(self, sample: Sample) -> Staged:
        shape = self.solver.prox.image_shape
        for what, tensor in (("", sample.degraded), ("the mask of ", sample.mask)):
            if tensor is not None and tuple(tensor.shape) != shape:
                raise ValueError(f"{what}image {sample.index} is of shape {tuple(tensor.shape)}, not {shape}")
        return self.solver.stage(sample)

    def _run(self, passing: _Passing) -> Iterator[Batch]:
        """Let the groups take turns until no image is left."""
        if not self._groups:
            share = -(-self.slots // self._schedule.groups)
            make = self._schedule.make_capture
            capture = make(self.solver.prox.device) if make is not None else None
            self._groups = [Group(self.solver, share, capture) for _ in range(self._schedule.groups)]
        for group in self._groups:
            group.vacate()
        source = passing.source
        for group in itertools.cycle(self._groups):
            while len(group.unread) > (self._schedule.lag if source.exhausted else 0):
                passing.add(group.read_flags())
                if not self._schedule.lag:  # otherwise the next block is to be launched first
                    yield from self._hand_out(passing)
            while (arriving := source.take(self._room(group))) and group.admit(arriving):
                passing.add(group.read_flags())
            if group.occupied:
                begin = time.perf_counter()
                group.launch()
                self._width.note(group.occupied, time.perf_counter() - begin)
            at_work = any(other.occupied for other in self._groups)
            yield from self._hand_out(passing, wait=not at_work)
            if not at_work and source.exhausted:
                return

    def _room(self, group: Group) -> int:
        return max(0, min(group.free, self._width.now - group.occupied))

    def _hand_out(self, passing: _Passing, wait: bool = False) -> Iterator[Batch]:
        """The images that are on the host, or all, once they are reviewed; some are tried again instead."""
        review = passing.review
        if review is None:
            passing.send()
            yield from passing.arrived(wait)
            return
        # many at a time; fewer, where a slot waits for one that is tried again, or at the end
        last = passing.source.exhausted and (wait or review.tries_again)
        while review.waiting >= self._batch or (last and review.waiting):
            passing.leaving.append(review.score(self._batch))
        for scored in passing.arrived(wait):
            done, again = review.decide(scored)
            passing.source.put_back([self._stage(sample) for sample in again])
            if done.samples:
                if review.tries_again:
                    passing.tell(len(done.samples))
                yield done

    def _all_done(self, passing: _Passing) -> Iterator[Batch]:
        """After an error: the images that are done, as far as they can be reviewed."""
        if passing.source.failed:  # the device goes on
            for group in self._groups:
                while group.unread:
                    passing.add(group.read_flags())
        review = passing.review
        if review is None:
            passing.send()
            yield from passing.arrived(wait=True)
            return
        # if the autoencoder fails for good, the error that ended the work says so
        with contextlib.suppress(Exception):
            while review.waiting:
                passing.leaving.append(review.score(self._batch))
        for scored in passing.arrived(wait=True):
            yield review.decide(scored)[0]

    def _halve(self, source: _Source) -> None:
        source.put_back(
            [self._stage(seat.sample) for group in self._groups for seat in group.seats if seat is not None]
        )
        self._groups.clear()
        gc.collect()
        if self.solver.prox.device.type == "cuda":
            torch.cuda.empty_cache()
        before, self.slots = self.slots, self.slots // 2
        self._width = Width(min(self.slots, self._width.now), found=False)
        message = f"memory ran out with {before} slots; going on with {self.slots}"
        warnings.warn(message, RuntimeWarning, stacklevel=4)


def _may_be_found(prox: Prox) -> bool:
    """Whether how many rows are given to f changes no bit: what is found by time must not."""
    return prox.device.type == "cpu" and not prox.most_rows % prox.row_multiple


def _with_first_masks(early: Iterator[Batch]) -> Iterator[Sample]:
    """The samples, with the masks and the states that the early solver ended with; as they were where it diverged."""
    for sample, finished in itertools.chain.from_iterable(
        zip(batch.samples, batch.unpack(), strict=True) for batch in early
    ):
        mask = None if finished.status == Status.DIVERGED else finished.mask
        yield dataclasses.replace(
            sample,
            initial_mask=mask,
            initial_state=None if mask is None else finished.image,
            iterations_before=finished.outer_iterations,
            evaluations_before=finished.evaluations,
        )


class _Source:
    """The samples that wait."""

    def __init__(self, staged: Iterator[Staged]) -> None:
        self.failed = False
        """Whether it raised an error: then no more can be had."""
        self._staged = staged
        self._ended = False
        self._again: list[Staged] = []

    @property
    def exhausted(self) -> bool:
        """Whether no sample waits."""
        return self._ended and not self._again

    def take(self, count: int) -> list[Staged]:
        """As many as are asked for, or all that are left."""
        taken, self._again = self._again[:count], self._again[count:]
        missing = count - len(taken)
        if missing and not self._ended:
            try:
                taken += itertools.islice(self._staged, missing)
            except BaseException:
                self.failed = True
                raise
            self._ended = len(taken) < count
        return taken

    def put_back(self, staged: list[Staged]) -> None:
        """These wait again, before all others."""
        self._again = staged + self._again


class _Passing:
    """The samples of one stream, on their way in and out."""

    def __init__(
        self, source: _Source, review: Review | None, prox: Prox, pixels: bool, on_done: Callable[[int], None] | None
    ) -> None:
        self.source = source
        self.review = review
        self.leaving: collections.deque[Batch] = collections.deque()
        """On their way to the host."""
        self._done: collections.deque[Batch] = collections.deque()
        self._prox = prox
        self._pixels = pixels
        self._on_done = on_done

    def tell(self, count: int) -> None:
        """So many more are done for good."""
        if self._on_done is not None:
            self._on_done(count)

    def add(self, done: Batch | None) -> None:
        """These left their slots, if any did."""
        if done is None:
            return
        if self.review is None:
            self._done.append(done)
        else:
            self.review.add(done)
        if self.review is None or not self.review.tries_again:
            self.tell(len(done.samples))

    def send(self) -> None:
        """Without a review: send those that left their slots to the host."""
        while self._done:
            self.leaving.append(self._done[0].to_host(self._prox, self._pixels))
            self._done.popleft()  # not before: memory may run out

    def arrived(self, wait: bool) -> Iterator[Batch]:
        """Those that are on the host, or all. One is there again if memory runs out before the next is asked for."""
        while self.leaving and (wait or self.leaving[0].arrived()):
            self.leaving[0].wait()
            yield self.leaving[0]
            self.leaving.popleft()
