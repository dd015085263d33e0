"""A table of slots and the images in it: loading, a block of work, reading which are done."""

from __future__ import annotations

import bisect
import collections
import dataclasses
import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from memrecon_fast.engine.cuda_graph import Capture, Graphs
from memrecon_fast.engine.memory import arrivals_of, bytes_of_slot
from memrecon_fast.engine.precision import multiplying_in
from memrecon_fast.engine.samples import Batch, Sample, Staged
from memrecon_fast.engine.solver import Solver
from memrecon_fast.engine.transfer import record_event, to_device, to_host, working_on
from memrecon_fast.ops.admm import Estimates
from memrecon_fast.results import RUNNING


@dataclasses.dataclass
class Seat:
    """An image in its slot."""

    sample: Sample
    slot: int


@dataclasses.dataclass(frozen=True)
class Flags:
    """What the statuses were at the end of a block, and which image was where."""

    statuses: Tensor
    seats: list[Seat | None]
    event: torch.cuda.Event | None


def _advance(solver: Solver, table: Estimates, rows: int) -> None:
    with multiplying_in(solver.prox.number_format, solver.prox.device):  # once, and not for each pass
        solver.advance(table.narrow(rows))


class Group:
    """A table of slots, and the images in it."""

    def __init__(self, solver: Solver, slots: int, capture: Capture | None) -> None:
        self._solver = solver
        self._device = solver.prox.device
        self._sizes = solver.prox.block_sizes(slots)
        self._table: Estimates = solver.allocate(slots)
        self._arrivals: Estimates = solver.allocate(arrivals_of(bytes_of_slot(solver), slots))
        self.seats: list[Seat | None] = [None] * slots
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

    def admit(self, arriving: Sequence[Staged]) -> bool:
        """Give each a free slot. Says whether some of them may be done at once: then the flags are to be read."""
        free = [slot for slot, seat in enumerate(self.seats) if seat is None]
        for staged, slot in zip(arriving, free, strict=False):
            self.seats[slot] = Seat(staged.sample, slot)
        at_once = self._arrivals.rows
        for begin in range(0, len(arriving), at_once):
            some = arriving[begin : begin + at_once]
            arrivals = self._arrivals.narrow(len(some))
            with working_on(self._device):
                self._solver.admit(arrivals, some)
                self._table.put(self._indices(free[begin : begin + len(some)]), arrivals, begun=True)
        if self._solver.finishes_at_admission:
            self._note_flags(len(self.seats))
        return self._solver.finishes_at_admission

    def launch(self) -> None:
        """Begin a block."""
        rows = min(self._sizes[bisect.bisect_left(self._sizes, self.occupied)], len(self.seats))
        self._move_below(rows)
        with working_on(self._device):
            (self.graphs or self._advance)(rows)
        self._note_flags(rows)

    def read_flags(self) -> Batch | None:
        """Wait for the oldest block; its images that are done leave their slots. None where no image is done."""
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
            return None
        samples = [seat.sample for seat in done]
        with working_on(self._device):
            batch = self._solver.results(self._table, self._indices([seat.slot for seat in done]), samples)
        for seat in done:
            self.seats[seat.slot] = None
        return batch

    def _move_below(self, rows: int) -> None:
        """Move the images so that they are in the first `rows` slots."""
        above = [seat for seat in self.seats[rows:] if seat is not None]
        if not above:
            return
        free = [slot for slot, seat in enumerate(self.seats[:rows]) if seat is None][: len(above)]
        with working_on(self._device):
            moved = self._table.take(self._indices([seat.slot for seat in above]))
            self._table.put(self._indices(free), moved)
        for seat, slot in zip(above, free, strict=True):
            self.seats[seat.slot], self.seats[slot] = None, seat
            seat.slot = slot

    def _note_flags(self, rows: int) -> None:
        with working_on(self._device):
            statuses = to_host(self._table.status[:rows].clone())
        self.unread.append(Flags(statuses, self.seats[:rows], record_event(self._device)))

    def _indices(self, slots: list[int]) -> Tensor:
        return to_device(torch.tensor(slots, dtype=torch.int64, device="cpu"), self._device)
