"""An audit's stream of images through the slots, and what the device does meanwhile."""

from __future__ import annotations

import bisect
import collections
import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.speed.gpu.blocks import passes_of_block
from benchmarks.speed.gpu.checks import make_images, random_fields
from benchmarks.speed.gpu.device import Device, Share
from memrecon_fast import Settings, degradation, metrics
from memrecon_fast.autoencoders import FullyConnected, train
from memrecon_fast.engine.cuda_graph import Capture, Work
from memrecon_fast.engine.inflight import InFlight, Schedule
from memrecon_fast.engine.memory import slots_by_default
from memrecon_fast.engine.samples import Finished, Sample
from memrecon_fast.engine.solver import Solver
from memrecon_fast.recovery import prepare_recover


@dataclasses.dataclass(frozen=True)
class Sizes:
    """`photographs`: of which half are members; mirrored ones come on top. `seconds`: of training and of a profile."""

    photographs: int
    side: int
    width: int
    depth: int
    steps: int
    learning_rate: float
    images: int
    settings: dict[str, Settings]
    slots: int | None
    training_seconds: float
    profile_seconds: float
    masks: tuple[str, ...] = degradation.MASKS


REAL = Sizes(
    photographs=200,
    side=64,
    width=1024,
    depth=10,
    steps=8000,
    learning_rate=2e-4,  # at the usual 1e-3 the loss of so wide a net rises again: 0.06 after 220 steps, against 0.02
    images=25_000,
    settings={"paper": Settings(solver="paper", max_outer_iterations=40), "accelerated": Settings()},
    slots=None,  # as many as the package chooses
    training_seconds=25.0,
    profile_seconds=2.0,
)
REHEARSAL = Sizes(
    photographs=4,
    side=8,
    width=48,
    depth=3,
    steps=200,
    learning_rate=1e-3,
    images=8,
    settings={
        "paper": Settings(solver="paper", inner_iterations=3, max_outer_iterations=4),
        "accelerated": Settings(gamma=0.5, memory=1, mask_period=1, max_outer_iterations=2),
    },
    slots=4,
    training_seconds=0.5,
    profile_seconds=0.2,
    masks=("center",),
)


@dataclasses.dataclass(frozen=True)
class Task:
    """A network, and the images that are audited: members first, then as many controls."""

    model: nn.Module
    pool: NDArray[np.uint8]
    sizes: Sizes
    about: str


def make_task(device: Device, share: Share) -> Task:
    """Train the network on the members, for as many steps as the time allows."""
    sizes = REHEARSAL if device.rehearsal else REAL
    images, source = make_images(sizes.photographs, sizes.side)
    half = len(images) // 2
    both = [torch.cat([part, part.flip(-1)]) for part in (images[:half], images[half:])]  # mirrored: as many again
    members = both[0]
    model = FullyConnected(tuple(images.shape[1:]), sizes.width, sizes.depth).to(device.torch)
    on_device = members.to(device.torch)
    seconds = min(sizes.training_seconds, share.left() / 4)
    train(model, on_device, 1e-12, max_steps=3)  # to warm up
    a_few = train(model, on_device, 1e-12, max_steps=20)
    steps = max(20, min(sizes.steps, int(seconds / (a_few.seconds / a_few.steps))))
    model = FullyConnected(tuple(images.shape[1:]), sizes.width, sizes.depth).to(device.torch)
    result = train(model, on_device, 1e-9, max_steps=steps, learning_rate=sizes.learning_rate)
    about = (
        f"FC {sizes.depth} × {sizes.width}, {sizes.side}×{sizes.side}×3, trained on {len(members)} images, half of "
        f"them mirrored ({source}; {result.steps} steps, {result.seconds:.0f} s, loss {result.loss:.1e}); as many "
        f"controls"
    )
    return Task(model.eval(), _as_bytes(torch.cat(both)), sizes, about)


def _as_bytes(images: Tensor) -> NDArray[np.uint8]:
    array: NDArray[np.uint8] = (images * 255).round().to(torch.uint8).numpy()
    return array


class Feed:
    """Degraded images from a uint8 array, over and over, each round with another mask; ends early at the deadline."""

    def __init__(self, task: Task, count: int, seconds: float) -> None:
        self._pool = task.pool
        self._count = count
        self._seconds = seconds
        shape = task.pool.shape[1:]
        self._masks = [degradation.make_mask(name, shape) for name in task.sizes.masks]
        self.taken = 0
        self.ended = float("nan")
        """When the last image was read."""

    def __iter__(self) -> Iterator[Sample]:
        deadline = time.perf_counter() + self._seconds
        while self.taken < self._count and time.perf_counter() < deadline:
            index = self.taken
            self.taken += 1
            self.ended = time.perf_counter()
            yield Sample(index, torch.where(self._masks[self.mask_of(index)], self.original(index), 0.0))

    def original(self, index: int) -> Tensor:
        """The image as it was, float32."""
        return torch.from_numpy(self._pool[index % len(self._pool)]).float().div_(255)

    def mask_of(self, index: int) -> int:
        """The number of the mask."""
        return index // len(self._pool) % len(self._masks)

    def is_member(self, index: int) -> bool:
        """Whether the network was trained on it."""
        return index % len(self._pool) < len(self._pool) // 2


@dataclasses.dataclass
class _Block:
    """A captured block; `rows`: of the slots that it advances, known once its solver was asked to."""

    rows: int = 0


class _Watch:
    """Notes the rows of every block that the slots run, and when each replay began and ended on the device.

    It stands between the slots and two things that they are given: the solver, whose `advance` is a block, and the
    schedule, whose `make_capture` makes graphs of blocks.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.rows_given = 0
        self.preparing_seconds = 0.0
        """Of the host, in captures and in blocks that are not replays: the first ones."""
        self._replays: list[tuple[_Block, Any, Any]] = []
        self._block: _Block | None = None
        """The one that is being captured or replayed."""

    def solver(self, solver: Solver) -> Solver:
        """The same solver, watched, and the one before it."""
        return cast(Solver, _WatchedSolver(solver, self))

    def schedule(self, schedule: Schedule) -> Schedule:
        """The same schedule; what its graphs do is watched."""
        make = schedule.make_capture
        if make is None:
            return schedule
        return dataclasses.replace(schedule, make_capture=lambda device: self._watched(make(device)))

    @contextlib.contextmanager
    def advancing(self, rows: int) -> Iterator[None]:
        """Around each time that the solver is asked to advance so many slots."""
        if self._block is not None:
            self._block.rows = rows
            yield
            return
        self.rows_given += rows
        with self._preparing():
            yield

    def milliseconds(self) -> list[tuple[int, float]]:
        """Of each replay, with its rows; once the device is done."""
        return [(block.rows, begin.elapsed_time(end)) for block, begin, end in self._replays]

    def _watched(self, capture: Capture) -> Capture:
        def watched(work: Work) -> Work:
            block = _Block()
            with self._preparing(), self._inside(block):
                replay = capture(work)

            def timed() -> None:
                begin = self.device.mark()
                with self._inside(block):
                    replay()
                self._replays.append((block, begin, self.device.mark()))
                self.rows_given += block.rows

            return timed

        return watched

    @contextlib.contextmanager
    def _inside(self, block: _Block) -> Iterator[None]:
        self._block = block
        try:
            yield
        finally:
            self._block = None

    @contextlib.contextmanager
    def _preparing(self) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.preparing_seconds += time.perf_counter() - begin


class _WatchedSolver:
    """A solver that tells the watch what it advances, and is the solver otherwise."""

    def __init__(self, solver: Solver, watch: _Watch) -> None:
        self._solver, self._watch = solver, watch
        self.early = None if solver.early is None else watch.solver(solver.early)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._solver, name)

    def advance(self, slots: Any) -> None:
        with self._watch.advancing(len(slots.status)):
            self._solver.advance(slots)


def measure_audit(device: Device, share: Share, task: Task) -> dict[str, Any]:
    """All the images with each solver and precision, or as many as the time allows."""
    cells = [("paper", precision) for precision in (*device.formats, "progressive")]
    cells += [("accelerated", precision) for precision in (device.formats[0], "progressive")]
    rows = []
    for number, (solver, precision) in enumerate(cells):
        what = f"audit with {solver} in {precision}"
        if share.has(1.0, what):
            rows.append(_stream(device, task, solver, precision, share.left() / (len(cells) - number)))
            if rows[-1]["images"] < task.sizes.images:
                share.skipped.append(f"{what}: {rows[-1]['images']} of {task.sizes.images} images")
        device.release()
    return {"rows": rows, "about": task.about}


def _prepare(device: Device, task: Task, solver: str, precision: str) -> Solver:
    settings = dataclasses.replace(task.sizes.settings[solver], precision=precision)
    return prepare_recover(task.model, task.pool.shape[1:], settings, backend="triton", device=device.torch)


def _slots(task: Task, solver: Solver) -> int:
    return task.sizes.slots or slots_by_default(solver)


def _stream(device: Device, task: Task, solver: str, precision: str, seconds: float) -> dict[str, Any]:
    watch, prepared = _Watch(device), _prepare(device, task, solver, precision)
    slots = _slots(task, prepared)
    in_flight = InFlight(watch.solver(prepared), slots, watch.schedule(device.schedule(slots)))
    feed = Feed(task, task.sizes.images, 0.6 * seconds)  # the rest is for the images that are still in the slots
    device.synchronize()
    begin = time.perf_counter()
    finished = list(in_flight.stream(feed))
    device.synchronize()
    end = time.perf_counter()
    milliseconds = watch.milliseconds()
    most = max((rows for rows, _ in milliseconds), default=0)
    full = [value for rows, value in milliseconds if rows == most]
    passes = passes_of_block(task.sizes.settings[solver])
    return {
        "solver": solver,
        "precision": precision,
        "images": len(finished),
        "slots": in_flight.slots,
        "execution": in_flight.execution,
        "seconds": end - begin,
        "images per second": len(finished) / (end - begin),
        "tail, seconds": end - feed.ended,
        "occupancy": sum(one.evaluations for one in finished) / (watch.rows_given * passes),
        "in blocks": sum(value for _, value in milliseconds) / 1e3 / (end - begin),
        "first runs and captures, seconds": watch.preparing_seconds,
        "rows of a full block": most,
        "full block, ms": float(np.median(full)) if full else None,
        "evaluations, mean": float(np.mean([one.evaluations for one in finished])),
        "outer iterations, mean": float(np.mean([one.outer_iterations for one in finished])),
        **_rates(feed, finished),
    }


def _rates(feed: Feed, finished: list[Finished]) -> dict[str, float]:
    """Accurately and approximately recovered, of the members and of the controls."""
    errors: dict[bool, list[float]] = {True: [], False: []}
    for one in finished:
        error = metrics.mse(one.image[None], feed.original(one.index)[None])
        errors[feed.is_member(one.index)].append(float(error))
    limits = {"accurate": metrics.ACCURATE_MSE, "approximate": metrics.APPROXIMATE_MSE}
    return {
        f"{whose}, {name}": metrics.recovery_rate(torch.tensor(errors[member], dtype=torch.float64), limit)
        for whose, member in (("members", True), ("controls", False))
        for name, limit in limits.items()
    }


# The profile


@dataclasses.dataclass(frozen=True)
class _Kernel:
    begin: float
    end: float
    """Microseconds."""
    name: str


def measure_profile(device: Device, share: Share, task: Task, trace: Path | None) -> dict[str, Any]:
    """What runs on the device in the steady state of an audit, and when nothing does."""
    # before anything is captured: a graph that was captured earlier may hide its kernels from the profiler
    with torch.profiler.profile(activities=[device.activity]):
        random_fields(1, 8).to(device.torch)
        device.synchronize()
    rows = []
    for precision in (device.formats[0], device.formats[-1]):
        if share.has(3 * task.sizes.profile_seconds, f"profile in {precision}"):
            kernels = _profile(device, task, precision, trace if precision == device.formats[0] else None)
            if len(kernels) < 3:
                share.skipped.append(f"profile in {precision}: the profiler recorded no kernels")
            else:
                rows.append({"precision": precision, **_analyse(device, kernels)})
        device.release()
    return {"rows": rows}


def _profile(device: Device, task: Task, precision: str, trace: Path | None) -> list[_Kernel]:
    """The kernels of a few seconds, once as many images have left as there are slots."""
    solver = _prepare(device, task, "paper", precision)
    slots = _slots(task, solver)
    in_flight = InFlight(solver, slots, device.schedule(slots))
    seconds = task.sizes.profile_seconds
    stream = in_flight.stream(Feed(task, 10**9, float("inf")))
    profiler = torch.profiler.profile(activities=[device.activity])
    with contextlib.closing(stream):
        _take(stream, most=in_flight.slots, seconds=10 * seconds)
        with profiler:
            _take(stream, most=10**9, seconds=seconds)
            device.synchronize()
    if trace is not None:
        profiler.export_chrome_trace(str(trace))
    events: Any = profiler.events()
    found = [
        _Kernel(event.time_range.start, event.time_range.end, event.name)
        for event in events
        if event.device_type.name == device.kernel_type and not event.name.startswith(("Memcpy", "Memset"))
    ]
    return sorted(found, key=lambda kernel: kernel.begin)


def _take(stream: Iterator[Finished], most: int, seconds: float) -> None:
    """Let images leave, for so long or until so many have."""
    end = time.perf_counter() + seconds
    for number, _ in enumerate(stream, 1):
        if number >= most or time.perf_counter() > end:
            return


def _analyse(device: Device, kernels: list[_Kernel]) -> dict[str, Any]:
    """Where no kernel runs; without the first and the last tenth, in which the profiler starts and stops."""
    first, last = kernels[0].begin, max(kernel.end for kernel in kernels)
    margin = (last - first) / 10
    kernels = [kernel for kernel in kernels if first + margin <= kernel.begin and kernel.end <= last - margin]
    gaps = _gaps(kernels)
    window = max(kernel.end for kernel in kernels) - kernels[0].begin
    idle = sum(end - begin for begin, end in gaps)
    boundaries = _boundaries(device, kernels, gaps)
    by_name: dict[str, list[float]] = collections.defaultdict(list)
    for kernel in kernels:
        by_name[kernel.name].append(kernel.end - kernel.begin)
    total = sum(map(sum, by_name.values()))
    top = sorted(by_name.items(), key=lambda item: -sum(item[1]))[:8]
    return {
        "seconds": window / 1e6,
        "kernels": len(kernels),
        "idle": idle / window,
        "longest gap, µs": max((end - begin for begin, end in gaps), default=0.0),
        "gaps above 20 µs": sum(end - begin > 20 for begin, end in gaps),
        "block boundaries": len(boundaries),
        "idle at a boundary, µs": float(np.median(boundaries)) if boundaries else None,
        "longest idle at a boundary, µs": max(boundaries, default=None),
        "idle at boundaries": sum(boundaries) / window,
        "top": [
            {"kernel": name, "share": sum(values) / total, "calls": len(values), "µs": float(np.median(values))}
            for name, values in top
        ],
    }


def _gaps(kernels: list[_Kernel]) -> list[tuple[float, float]]:
    """Begin and end of each time in which no kernel runs, between the first and the last."""
    gaps, busy_until = [], kernels[0].end
    for kernel in kernels:
        if kernel.begin > busy_until:
            gaps.append((busy_until, kernel.begin))
        busy_until = max(busy_until, kernel.end)
    return gaps


def _boundaries(device: Device, kernels: list[_Kernel], gaps: list[tuple[float, float]]) -> list[float]:
    """The idle time of each boundary: from the end of a block to the first step of the next one, a pass in between."""
    ends = [kernel.end for kernel in kernels if device.last_kernel in kernel.name]
    begins = [kernel.begin for kernel in kernels if device.first_kernel in kernel.name]
    idle = []
    for end in ends:
        after = bisect.bisect_left(begins, end)
        if after < len(begins):
            idle.append(sum(b - a for a, b in _within(gaps, end, begins[after])))
    return idle


def _within(gaps: list[tuple[float, float]], begin: float, end: float) -> list[tuple[float, float]]:
    first = bisect.bisect_left(gaps, (begin, begin))
    last = bisect.bisect_left(gaps, (end, end))
    return gaps[first:last]
