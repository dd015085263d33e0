"""What differs between a GPU and its rehearsal on a CPU, and how everything is timed.

`Gpu` and `Rehearsal` offer the same. Beside the sizes, which are smaller in a rehearsal, nothing else in the benchmark
asks on which of the two it runs.
"""

from __future__ import annotations

import abc
import dataclasses
import gc
import math
import os
import platform
import subprocess
import time
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
import triton
from torch.profiler import ProfilerActivity

from benchmarks.measuring import percentiles, processor
from benchmarks.registry import ROOT
from memrecon_fast.engine.cuda_graph import Capture, Work, make_capture
from memrecon_fast.engine.inflight import Schedule, make_schedule


class Device(abc.ABC):
    """What both have in common, made of the few things that each of them defines."""

    rehearsal: ClassVar[bool]
    formats: ClassVar[tuple[str, ...]]
    """The number formats that it has, the exact one first."""
    shortest_ms: ClassVar[float]
    """A measurement is repeated until it takes this long."""
    most_rounds: ClassVar[int]
    activity: ClassVar[ProfilerActivity]
    kernel_type: ClassVar[str]
    """Of the profiler's events: those that are the device's work."""
    first_kernel: ClassVar[str]
    """Part of the name of what runs early in a block, and nowhere else ..."""
    last_kernel: ClassVar[str]
    """... and of what runs at its end."""
    torch: torch.device
    name: str
    cache_bytes: int
    """Of the largest cache: what is measured in memory must not fit."""

    @abc.abstractmethod
    def new_mark(self) -> Any:
        """A point in the device's work: `record()` sets it, `elapsed_time(other)` tells the milliseconds between."""

    @abc.abstractmethod
    def synchronize(self) -> None:
        """Wait until the device has done all its work."""

    @abc.abstractmethod
    def capture_function(self) -> Capture:
        """What captures work, with memory of its own for what it captures."""

    @abc.abstractmethod
    def schedule(self, slots: int) -> Schedule:
        """For `InFlight`."""

    @abc.abstractmethod
    def free_bytes(self) -> int:
        """Memory that is left."""

    @abc.abstractmethod
    def describe(self) -> dict[str, object]:
        """The device and its driver."""

    def mark(self) -> Any:
        """A mark that is set now."""
        mark = self.new_mark()
        mark.record()
        return mark

    def captured(self, work: Work) -> Work:
        """The work, run once to compile and to warm up, and then captured, which does not run it."""
        work()
        self.synchronize()
        return _Replay(self.capture_function()(work), work)

    def release(self) -> None:
        """Give back the memory of what is not used any more, that of dropped graphs included."""
        gc.collect()
        if self.torch.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()


@dataclasses.dataclass(frozen=True)
class _Replay:
    """A graph, and the work that it repeats: what that reads and writes must stay in memory as long as the graph."""

    replay: Work
    work: Work

    def __call__(self) -> None:
        self.replay()


class Gpu(Device):
    """The CUDA GPU that is the current one."""

    rehearsal = False
    formats = ("float32", "tf32", "bfloat16")
    shortest_ms = 10.0
    most_rounds = 25
    activity = ProfilerActivity.CUDA
    kernel_type = "CUDA"
    first_kernel = "_step"
    last_kernel = "_stop"

    def __init__(self) -> None:
        self.torch = torch.device("cuda", torch.cuda.current_device())
        properties = torch.cuda.get_device_properties(self.torch)
        self.name = properties.name
        self.cache_bytes = int(getattr(properties, "L2_cache_size", 0)) or 64 * 2**20

    def new_mark(self) -> Any:
        """A CUDA event."""
        return torch.cuda.Event(enable_timing=True)

    def synchronize(self) -> None:
        """Wait for all streams."""
        torch.cuda.synchronize(self.torch)

    def capture_function(self) -> Capture:
        """The package's own."""
        return make_capture(self.torch)

    def schedule(self, slots: int) -> Schedule:
        """The package's own."""
        return make_schedule(self.torch, slots)

    def free_bytes(self) -> int:
        """What the driver and torch's allocator have left."""
        cached = torch.cuda.memory_reserved(self.torch) - torch.cuda.memory_allocated(self.torch)
        return torch.cuda.mem_get_info(self.torch)[0] + cached

    def describe(self) -> dict[str, object]:
        """As torch and nvidia-smi tell."""
        properties = torch.cuda.get_device_properties(self.torch)
        return {
            "gpu": self.name,
            "gpu memory, GiB": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
            "L2 cache, MiB": round(self.cache_bytes / 2**20),
            "driver": _first_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
            "power limit": _first_line("nvidia-smi", "--query-gpu=power.limit", "--format=csv,noheader"),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }


class Rehearsal(Device):
    """A CPU that stands in for a GPU: a graph is the function itself, an event a look at the clock."""

    rehearsal = True
    formats = ("float32", "bfloat16")
    shortest_ms = 0.0
    most_rounds = 1
    activity = ProfilerActivity.CPU
    kernel_type = "CPU"
    first_kernel = "aten::linear"
    last_kernel = "aten::clone"

    def __init__(self) -> None:
        self.torch = torch.device("cpu")
        self.name = "rehearsal"
        self.cache_bytes = 2**12

    def new_mark(self) -> Any:
        """The clock."""
        return _Clock()

    def synchronize(self) -> None:
        """All is done when it returns."""

    def capture_function(self) -> Capture:
        """Not captured."""
        return lambda work: work

    def schedule(self, slots: int) -> Schedule:
        """As on a GPU: two groups of slots, flags read late, samples read ahead, blocks captured."""
        return Schedule(groups=2, lag=1, ahead=4, make_capture=lambda _: self.capture_function())

    def free_bytes(self) -> int:
        """Enough."""
        return 2**34

    def describe(self) -> dict[str, object]:
        """No GPU."""
        return {"gpu": "none: rehearsal on a CPU", "driver": "none", "cuda": "none"}


class _Clock:
    """What stands in for a CUDA event."""

    at = math.nan

    def record(self) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, end: _Clock) -> float:
        return (end.at - self.at) * 1e3


class Share:
    """The time that a section of the benchmark may take, and what it left out for want of it."""

    def __init__(self, seconds: float) -> None:
        self._end = time.perf_counter() + seconds
        self.skipped: list[str] = []

    def left(self) -> float:
        """Seconds."""
        return self._end - time.perf_counter()

    def has(self, seconds: float, what: str) -> bool:
        """Whether so much is left; if not, `what` is noted as skipped."""
        if self.left() >= seconds:
            return True
        self.skipped.append(f"{what}: no time left")
        return False


@dataclasses.dataclass(frozen=True)
class Times:
    """Milliseconds of one variant, one value for each round."""

    rounds: list[float]

    def percentiles(self) -> dict[str, float]:
        """p20, p50 and p80."""
        return percentiles(self.rounds)

    @property
    def median(self) -> float:
        """Milliseconds."""
        return float(np.median(self.rounds))

    def over(self, other: Times) -> dict[str, float]:
        """The ratio to the other, round by round: a clock that slows down takes both along."""
        return percentiles([a / b for a, b in zip(self.rounds, other.rounds, strict=True)])


MIN_ROUNDS = 3


def compare(device: Device, variants: dict[str, Work], seconds: float) -> dict[str, Times]:
    """Time the variants in turns: at least three rounds, then as many as the time allows, each in another order."""
    repeats = {name: _repeats(device, work) for name, work in variants.items()}
    names = list(variants)
    measured: dict[str, list[float]] = {name: [] for name in names}
    end = time.perf_counter() + seconds
    for number in range(device.most_rounds):
        if number >= MIN_ROUNDS and time.perf_counter() > end:
            break
        first = number % len(names)
        for name in names[first:] + names[:first]:
            measured[name].append(_milliseconds(device, variants[name], repeats[name]))
    return {name: Times(values) for name, values in measured.items()}


def _repeats(device: Device, work: Work) -> int:
    """How often in a row the work is done for one measurement; also warms up."""
    work()
    once = _milliseconds(device, work, 1)
    return min(1000, max(1, math.ceil(device.shortest_ms / max(once, 1e-3))))


def _milliseconds(device: Device, work: Work, repeats: int) -> float:
    """For doing the work once. No copy of it is timed that the device had to wait for."""
    device.synchronize()
    if repeats > 1:
        work()  # while the device is busy with this, the host gets ahead, as it is in a long run of such work
    begin = device.mark()
    for _ in range(repeats):
        work()
    end = device.mark()
    device.synchronize()
    return float(begin.elapsed_time(end)) / repeats


def why_no_gpu() -> str:
    """Why there is nothing to measure; empty where there is a GPU."""
    if torch.version.hip is not None or not torch.cuda.is_available():
        return "torch finds no CUDA GPU"
    return ""


def where(device: Device, commit: str) -> dict[str, object]:
    """The machine, the versions and the commit."""
    described = _first_line("git", "describe", "--always", "--abbrev=12", "--dirty=, with uncommitted changes")
    return {
        **device.describe(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "numpy": np.__version__,
        "commit": commit or described,
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def _first_line(*command: str) -> str:
    try:
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return (run.stdout.strip().splitlines() or ["unknown"])[0]


Section = Callable[[Device, Share], dict[str, Any]]
"""Measures and answers what goes into the results: "rows" and whatever else the report shows."""
