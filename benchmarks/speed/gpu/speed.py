"""How fast the machine is, and the operations against copies of as many bytes."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed.gpu.device import Device, Share, Times, compare
from benchmarks.speed.gpu.operations import KERNELS, OF_PIXELS, ORDERS, PLAIN, Buffers, prepare, random_buffers
from memrecon_fast import Settings
from memrecon_fast.engine.cuda_graph import Work
from memrecon_fast.engine.precision import in_format
from memrecon_fast.results import RUNNING

PLACES = Settings().memory + 1
"""In the ring of the accelerated solver."""
BYTES_PER_PIXEL = {
    "paper": {
        "start": 4 + 1 + 4,  # y, mask; s
        "step": 3 * 4 + 1 + 4,  # s, v, y, mask; s
        "close": 4 * 4 + 2 * 1 + 2 * 4 + 1,  # s, v, y, x, mask, anchor; s, x, mask: the anchor is seldom written
        "advance": 2 * 4 + 4,  # x, v; x
    },
    "accelerated": {
        "measure": 3 * 4 + 1 + (PLACES - 1) * 4 + 2 * 4,  # s, v, y, mask, the residuals before; a step, a residual
        "estimate": 4 * 4 + 1 + 4 + 1,  # s, v, y, x, mask; x, mask: 10 more, not measured, where it is the best so far
        "mix": PLACES * 4 + 4,  # the steps, none of which has the weight 0; s
    },
}
"""By solver: read; written. float32 are 4, a mask is 1."""
STATE_BYTES = {"paper": 4 * 4 + 2 * 1, "accelerated": 5 * 4 + 2 * 1 + 2 * PLACES * 4}
"""Per pixel, by solver: s, v, y, x and two masks; best and the ring."""
_PLAIN_BYTES = {"paper": 60, "accelerated": 300}
"""Per pixel, at most: what plain torch makes on its way."""
_FIXED = {"status": RUNNING, "renew": False, "filled": PLACES - 1, "best_score": 0.0, "weights": 0.1}
"""All rows are running; no anchor is renewed, the ring is full, and no estimate is the best so far."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """`shapes`: rows and pixels for the operations. `calls`: of an operation in a graph, at least."""

    copied_bytes: int
    matmul: int
    shapes: tuple[tuple[int, int], ...]
    calls: int


REAL = Sizes(copied_bytes=2**31, matmul=8192, shapes=((64, 768), (64, 12288), (600, 12288), (4096, 12288)), calls=8)
REHEARSAL = Sizes(copied_bytes=2**16, matmul=32, shapes=((2, 384), (1, 770)), calls=2)


def _sizes(device: Device) -> Sizes:
    return REHEARSAL if device.rehearsal else REAL


# The machine


@dataclasses.dataclass(frozen=True)
class Speeds:
    """What nothing can be faster than, measured."""

    bytes_per_second: float
    """Read and written, of a large copy."""
    flops_per_second: dict[str, float]
    """By number format, of a large product of matrices."""


def measure_machine(device: Device, share: Share) -> dict[str, Any]:
    """The bandwidth of a large copy, and the rate of a large product of matrices in each format."""
    sizes = _sizes(device)
    n, size = sizes.matmul, sizes.copied_bytes
    with torch.inference_mode():
        copies = _copies(device, [_pair(device, size)], calls=1)
        a, b = (torch.randn(n, n, device=device.torch) for _ in range(2))
        products: dict[str, Work] = {}
        for number_format in device.formats:
            dtype = torch.bfloat16 if number_format == "bfloat16" else torch.float32
            multiply = in_format(functools.partial(torch.matmul, b.to(dtype)), number_format, device.torch)[0]
            products[number_format] = device.captured(functools.partial(run_passes, multiply, a.to(dtype), 1))
        times = compare(device, copies | products, share.left() / 2)
    milliseconds = min(times[name].median for name in copies)
    rows = [{"what": f"copy of {size // 2} bytes, GB/s read and written", "rate": size / milliseconds / 1e6}]
    rows += [
        {"what": f"{n}³ matrix product, {name}, TFLOP/s", "rate": 2 * n**3 / times[name].median / 1e9}
        for name in products
    ]
    return {"rows": rows}


def speeds_from(machine: dict[str, Any], device: Device) -> Speeds:
    """What `measure_machine` answered."""
    copy, *products = (row["rate"] for row in machine["rows"])
    return Speeds(copy * 1e9, {name: rate * 1e12 for name, rate in zip(device.formats, products, strict=True)})


def run_passes(function: Callable[[Tensor], Tensor], images: Tensor, count: int) -> None:
    """As many forward passes of the same images."""
    for _ in range(count):
        function(images)


Pair = tuple[Tensor, Tensor]


def _pair(device: Device, size: int) -> Pair:
    """Source and target of a copy that reads and writes `size` bytes together."""
    source, target = (torch.randn(max(1, size // 8), device=device.torch) for _ in range(2))
    return source, target


def _copies(device: Device, pairs: list[Pair], calls: int) -> dict[str, Work]:
    """So many copies in a row, the pairs in turn: by the driver, and by a kernel as the operations are."""

    def by_driver() -> None:
        for i in range(calls):
            source, target = pairs[i % len(pairs)]
            target.copy_(source)

    def by_kernel() -> None:
        for i in range(calls):
            source, target = pairs[i % len(pairs)]
            torch.neg(source, out=target)

    return {"copy by the driver": device.captured(by_driver), "copy by a kernel": device.captured(by_kernel)}


# The operations


def measure_bandwidth(device: Device, share: Share) -> dict[str, Any]:
    """Each operation at each shape: a graph of many calls on buffers in turn, more of them than the caches hold."""
    rows: list[dict[str, Any]] = []
    cells = [(solver, *shape) for solver in BYTES_PER_PIXEL for shape in _sizes(device).shapes]
    for number, (solver, images, d) in enumerate(cells):
        what = f"bandwidth of {solver}, {images} × {d}"
        sets = max(2, math.ceil(8 * device.cache_bytes / (images * d * min(STATE_BYTES.values()))))
        most = STATE_BYTES[solver] + max(BYTES_PER_PIXEL[solver].values())
        needed = images * d * (sets * most + _PLAIN_BYTES[solver])
        if device.free_bytes() < 1.2 * needed:
            share.skipped.append(f"{what}: needs {needed / 2**30:.0f} GiB")
        elif share.has(1.0, what):
            with torch.inference_mode():
                rows += _measure_shape(device, solver, images, d, sets, share.left() / (len(cells) - number))
        device.release()
    return {"rows": rows}


def _measure_shape(device: Device, solver: str, images: int, d: int, sets: int, seconds: float) -> list[dict[str, Any]]:
    table = BYTES_PER_PIXEL[solver]
    buffers = [_running_buffers(device, solver, images, d) for _ in range(sets)]
    pairs = [_pair(device, images * d * max(table.values())) for _ in range(sets)]
    calls = max(sets, _sizes(device).calls)
    rows = []
    for name, of_pixel in table.items():
        operation = (name, True) if name in ("close", "estimate") else (name,)
        moved = images * d * of_pixel
        smaller = [(source[: moved // 8], target[: moved // 8]) for source, target in pairs]
        variants = _copies(device, smaller, calls)
        for key, functions in (("kernel", KERNELS), ("plain torch", PLAIN)):
            variants[key] = device.captured(
                functools.partial(_run_all, [prepare(functions, solver, operation, one) for one in buffers], calls)
            )
        times = compare(device, variants, seconds / len(table) / 2)  # half goes into captures
        for one in buffers:
            if not all(tensor.isfinite().all() for tensor in one.values()):
                raise ArithmeticError(f"{name} made NaN or infinity")
        copy = min((value for key, value in times.items() if key.startswith("copy")), key=lambda value: value.median)
        rows.append(
            {
                "operation": name,
                "solver": solver,
                "rows": images,
                "d": d,
                "bytes per pixel": of_pixel,
                "bytes": moved,
                "sets of buffers": sets,
                "microseconds": {key: _scaled(value, 1e3 / calls) for key, value in times.items()},
                "GB/s": moved * calls / times["kernel"].median / 1e6,
                "share of copy": copy.over(times["kernel"]),
                "plain torch": times["plain torch"].over(times["kernel"]),
            }
        )
    return rows


def _running_buffers(device: Device, solver: str, rows: int, d: int) -> Buffers:
    """What the operations of a solver take: random images, and all that makes them do their work in full."""
    small = random_buffers(rows, 1, PLACES)
    buffers: Buffers = {}
    for name in sorted(
        {argument for operation in BYTES_PER_PIXEL[solver] for argument in ORDERS[solver][operation].names}
    ):
        if name in OF_PIXELS:
            images = torch.rand(*small[name].shape[:-1], d, device=device.torch)
            buffers[name] = images < 0.5 if small[name].dtype == torch.bool else images
        else:
            buffers[name] = small[name].to(device.torch)
        if name in _FIXED:
            buffers[name].fill_(_FIXED[name])
    if "base" in buffers:  # `weigh` gives the one that the differences are to no weight
        buffers["weights"].scatter_(1, buffers["base"].long()[:, None], 0.0)
    return buffers


def _run_all(prepared: list[Callable[[], None]], calls: int) -> None:
    for i in range(calls):
        prepared[i % len(prepared)]()


def _scaled(times: Times, factor: float) -> dict[str, float]:
    return {name: value * factor for name, value in times.percentiles().items()}
