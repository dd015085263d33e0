"""A table of slots and the images in it: loading, a block of work, reading which are done, handing them out."""

from __future__ import annotations

import bisect
import collections
import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from memrecon_fast.cuda_graph import Capture, Graphs
from memrecon_fast.settings import RUNNING, Status
from memrecon_fast.solvers.protocol import AnySolver
from memrecon_fast.solvers.samples import Finished, Sample, Staged
from memrecon_fast.solvers.slots import Slots, narrow, put, take

ARRIVALS = 256
"""At most so many images are loaded at a time, and read ahead on a GPU."""


@dataclasses.dataclass
class Seat:
    """An image in its slot."""

    staged: Staged
    slot: int


@dataclasses.dataclass(frozen=True)
class Flags:
    """What the statuses were at the end of a block, and which image was where."""

    statuses: Tensor
    seats: list[Seat | None]
    event: torch.cuda.Event | None


@dataclasses.dataclass(frozen=True)
class Leaving:
    """Images that are done, on their way to the host."""

    samples: list[Sample]
    tensors: dict[str, Tensor]
    event: torch.cuda.Event | None

    def arrived(self) -> bool:
        """Whether `images` would not have to wait."""
        return self.event is None or self.event.query()

    def images(self) -> Iterator[tuple[Sample, Finished]]:
        """Each sample with what came of it."""
        if self.event is not None:
            self.event.synchronize()
        values = {name: tensor.tolist() for name, tensor in self.tensors.items() if tensor.dim() == 1}
        for i, sample in enumerate(self.samples):
            of_image = {name: column[i] for name, column in values.items()}
            of_image["outer_iterations"] += sample.iterations_before
            of_image["evaluations"] += sample.evaluations_before
            of_image["status"] = Status(of_image["status"])
            finished = Finished(
                index=sample.index,
                image=self.tensors["images"][i].clone(),  # the others of its batch need not stay in memory with it
                mask=self.tensors["masks"][i].clone(),
                label=sample.label,
                **of_image,
            )
            yield sample, finished


def _advance(solver: AnySolver, table: Slots, rows: int) -> None:
    solver.advance(narrow(table, 0, rows))


class Group:
    """A table of slots, and the images in it."""

    def __init__(self, solver: AnySolver, slots: int, capture: Capture | None) -> None:
        self._solver = solver
        self._device = solver.prox.device
        self._sizes = solver.prox.block_sizes(slots)
        capacity = self._sizes[-1]
        self._table: Slots = solver.allocate(capacity)
        self._arrivals: Slots = solver.allocate(min(capacity, ARRIVALS))
        self.seats: list[Seat | None] = [None] * capacity
        self.unread: collections.deque[Flags] = collections.deque()
        self._advance = functools.partial(_advance, solver, self._table)
        self.graphs = Graphs(self._advance, capture, solver.prox.why_not_captured) if capture is not None else None

    @property
    def occupied(self) -> int:
        """The number of images."""
        return len(self.seats) - self.free

    @property
    def free(self) -> int:
        """The number of slots without an image."""
        return self.seats.count(None)

    def vacate(self) -> None:
        """Forget the images."""
        self.seats = [None] * len(self.seats)
        self.unread.clear()

    def load(self, arriving: Sequence[Staged]) -> bool:
        """Give each a free slot. Says whether some of them may be done at once: then the flags are to be read."""
        free = [slot for slot, seat in enumerate(self.seats) if seat is None]
        for staged, slot in zip(arriving, free, strict=False):
            self.seats[slot] = Seat(staged, slot)
        for begin in range(0, len(arriving), ARRIVALS):
            some = arriving[begin : begin + ARRIVALS]
            arrivals = narrow(self._arrivals, 0, len(some))
            with _working_on(self._device):
                self._solver.load(arrivals, some)
                put(arrivals, self._table, self._indices(free[begin : begin + len(some)]))
        if self._solver.finishes_at_load:
            self._note_flags(len(self.seats))
        return self._solver.finishes_at_load

    def launch(self) -> None:
        """Begin a block."""
        rows = self._sizes[bisect.bisect_left(self._sizes, self.occupied)]
        self._move_below(rows)
        with _working_on(self._device):
            (self.graphs or self._advance)(rows)
        self._note_flags(rows)

    def read_flags(self) -> list[Leaving]:
        """Wait for the oldest block; its images that are done leave: one batch or none."""
        flags = self.unread.popleft()
        if flags.event is not None:
            flags.event.synchronize()
        statuses = flags.statuses.tolist()
        done = [
            seat
            for seat, status in zip(flags.seats, statuses, strict=True)
            if seat is not None and status != RUNNING and self.seats[seat.slot] is seat
        ]
        if not done:
            return []
        with _working_on(self._device):
            taken = take(self._table, self._indices([seat.slot for seat in done]))
            results = self._solver.results(taken)
            tensors = {field.name: getattr(results, field.name) for field in dataclasses.fields(results)}
            for name in ("images", "masks"):
                tensors[name] = self._solver.prox.to_images(tensors[name])
            on_host = {name: self._to_host(tensor) for name, tensor in tensors.items() if tensor is not None}
        for seat in done:
            self.seats[seat.slot] = None
        return [Leaving([seat.staged.sample for seat in done], on_host, self._event())]

    def _move_below(self, rows: int) -> None:
        """Move the images so that they are in the first `rows` slots."""
        above = [seat for seat in self.seats[rows:] if seat is not None]
        if not above:
            return
        free = [slot for slot, seat in enumerate(self.seats[:rows]) if seat is None][: len(above)]
        with _working_on(self._device):
            put(take(self._table, self._indices([seat.slot for seat in above])), self._table, self._indices(free))
        for seat, slot in zip(above, free, strict=True):
            self.seats[seat.slot], self.seats[slot] = None, seat
            seat.slot = slot

    def _note_flags(self, rows: int) -> None:
        with _working_on(self._device):
            statuses = self._to_host(self._table.status[:rows].clone())
        self.unread.append(Flags(statuses, self.seats[:rows], self._event()))

    def _indices(self, slots: list[int]) -> Tensor:
        """On the device, without waiting for it."""
        indices = torch.tensor(slots, dtype=torch.int64, device="cpu", pin_memory=self._device.type == "cuda")
        return indices.to(self._device, non_blocking=True)

    def _to_host(self, tensor: Tensor) -> Tensor:
        """On its way to the host: there once an event that is recorded now has happened."""
        if tensor.device.type == "cpu":
            return tensor
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
        return pinned.copy_(tensor, non_blocking=True)

    def _event(self) -> torch.cuda.Event | None:
        if self._device.type != "cuda":
            return None
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        return event


@contextlib.contextmanager
def _working_on(device: torch.device) -> Iterator[None]:
    """Without autograd, and with this GPU the current one: kernels are launched on that."""
    with torch.inference_mode(), torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        yield
