"""How fast the machine is, the operations against copies of as many bytes, and a block against its forward passes."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_checks import Buffers, launch, random_buffers
from benchmarks.gpu_device import Device, Share, Times, compare
from memrecon_fast import Settings, reference
from memrecon_fast.autoencoders import FullyConnected, UNet
from memrecon_fast.cuda_graph import Work
from memrecon_fast.errors import is_out_of_memory
from memrecon_fast.ops import plain
from memrecon_fast.ops import triton as kernels
from memrecon_fast.precision import in_format
from memrecon_fast.recovery import prepare_recover
from memrecon_fast.settings import MOST_ITERATIONS, RUNNING
from memrecon_fast.solvers.paper import PaperSlots
from memrecon_fast.solvers.protocol import AnySolver
from memrecon_fast.solvers.samples import Sample

BYTES_PER_PIXEL = {"start": 9, "step": 17, "close": 27, "advance": 12}
"""Read and written; float32 are 4, a mask is 1. The anchor is seldom written."""
STATE_BYTES = 18
"""Per pixel: s, v, y, x and two masks."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """`shapes`: rows and pixels for the operations. `batches`: rows of a block. `inner`: inner iterations of one."""

    copied_bytes: int
    matmul: int
    shapes: tuple[tuple[int, int], ...]
    batches: tuple[int, ...]
    inner: int
    models: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]]


REAL = Sizes(
    copied_bytes=2**31,
    matmul=8192,
    shapes=((64, 768), (64, 12288), (600, 12288), (4096, 12288)),
    batches=(1, 64, 600, 4096),
    inner=40,
    models={
        "FC 10 × 1024, 64×64×3": (lambda: FullyConnected((3, 64, 64), 1024, 10), (3, 64, 64)),
        "FC 20 × 1024, 64×64×3": (lambda: FullyConnected((3, 64, 64), 1024, 20), (3, 64, 64)),
        "U-Net 16–128, 32×32×3": (lambda: UNet((3, 32, 32), (16, 32, 64, 128)), (3, 32, 32)),
    },
)
REHEARSAL = Sizes(
    copied_bytes=2**16,
    matmul=32,
    shapes=((4, 48), (3, 768)),
    batches=(1, 8),
    inner=4,
    models={
        "FC 3 × 16, 4×4×3": (lambda: FullyConnected((3, 4, 4), 16, 3), (3, 4, 4)),
        "U-Net 4–8, 8×8×3": (lambda: UNet((3, 8, 8), (4, 8)), (3, 8, 8)),
    },
)


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
            products[number_format] = device.captured(functools.partial(_pass, multiply, a.to(dtype), 1))
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


def _pass(function: Callable[[Tensor], Tensor], images: Tensor, count: int) -> None:
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
    shapes = _sizes(device).shapes
    for number, (images, d) in enumerate(shapes):
        what = f"bandwidth of {images} × {d}"
        sets = max(2, math.ceil(8 * device.cache_bytes / (images * d * STATE_BYTES)))
        needed = images * d * (sets * (STATE_BYTES + BYTES_PER_PIXEL["close"]) + 60)  # 60: what plain torch makes
        if device.free_bytes() < 1.2 * needed:
            share.skipped.append(f"{what}: needs {needed / 2**30:.0f} GiB")
        elif share.has(1.0, what):
            with torch.inference_mode():
                rows += _measure_shape(device, images, d, sets, share.left() / (len(shapes) - number))
        device.release()
    return {"rows": rows}


def _measure_shape(device: Device, images: int, d: int, sets: int, seconds: float) -> list[dict[str, Any]]:
    buffers = [_running_buffers(device, images, d) for _ in range(sets)]
    pairs = [_pair(device, images * d * BYTES_PER_PIXEL["close"]) for _ in range(sets)]
    calls = max(sets, 8)
    rows = []
    for name, of_pixel in BYTES_PER_PIXEL.items():
        operation = (name, True) if name == "close" else (name,)
        moved = images * d * of_pixel
        smaller = [(source[: moved // 8], target[: moved // 8]) for source, target in pairs]
        variants = _copies(device, smaller, calls)
        for key, ops in (("kernel", kernels), ("plain torch", plain)):
            variants[key] = device.captured(functools.partial(_launch_all, ops, operation, buffers, calls))
        times = compare(device, variants, seconds / len(BYTES_PER_PIXEL) / 2)  # half goes into captures
        for one in buffers:
            if not all(one[image].isfinite().all() for image in ("s", "x", "residual")):
                raise ArithmeticError(f"{name} made NaN or infinity")
        copy = min((value for key, value in times.items() if key.startswith("copy")), key=lambda value: value.median)
        rows.append(
            {
                "operation": name,
                "rows": images,
                "d": d,
                "bytes": moved,
                "sets of buffers": sets,
                "microseconds": {key: _scaled(value, 1e3 / calls) for key, value in times.items()},
                "GB/s": moved * calls / times["kernel"].median / 1e6,
                "share of copy": copy.over(times["kernel"]),
                "plain torch": times["plain torch"].over(times["kernel"]),
            }
        )
    return rows


def _running_buffers(device: Device, rows: int, d: int) -> Buffers:
    """Random images, all rows running, and no anchor to be renewed."""
    buffers = {name: torch.rand(rows, d, device=device.torch) for name in "svyx"}
    for name in ("mask", "anchor"):
        buffers[name] = torch.rand(rows, d, device=device.torch) < 0.5
    vectors = random_buffers(rows, 1)
    for name in ("coefficients", "residual", "settled", "recurs", "renew", "status"):
        buffers[name] = vectors[name].to(device.torch)
    buffers["renew"].zero_()
    buffers["status"].fill_(RUNNING)
    return buffers


def _launch_all(ops: Any, operation: tuple[Any, ...], buffers: list[Buffers], calls: int) -> None:
    for i in range(calls):
        launch(ops, operation, buffers[i % len(buffers)])


def _scaled(times: Times, factor: float) -> dict[str, float]:
    return {name: value * factor for name, value in times.percentiles().items()}


# A block


def measure_blocks(device: Device, share: Share, speeds: Speeds) -> dict[str, Any]:
    """One outer iteration of the paper's solver, for each network, batch and number format."""
    sizes = _sizes(device)
    rows: list[dict[str, Any]] = []
    cells = [(name, batch) for name in sizes.models for batch in sizes.batches]
    for number, (name, batch) in enumerate(cells):
        what = f"blocks of {name}, {batch} images"
        if share.has(1.0, what):
            try:
                rows += _measure_cell(device, share, speeds, name, batch, share.left() / (len(cells) - number))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                share.skipped.append(f"{what}: out of memory")
        device.release()
    return {"rows": rows, "targets": [target for row in rows for target in _targets(row, sizes)]}


def _measure_cell(
    device: Device, share: Share, speeds: Speeds, name: str, batch: int, seconds: float
) -> list[dict[str, Any]]:
    build, shape = _sizes(device).models[name]
    cell = _Cell(device, build().eval().to(device.torch), shape, batch, _sizes(device).inner)
    if device.free_bytes() < cell.needed_bytes:
        share.skipped.append(f"blocks of {name}, {batch} images: need {cell.needed_bytes / 2**30:.0f} GiB")
        return []
    return cell.measure(seconds, speeds, name)


class _Cell:
    """A network and a number of images: what is timed, and the checks that it did its work."""

    def __init__(self, device: Device, model: nn.Module, shape: tuple[int, int, int], batch: int, inner: int) -> None:
        self.device = device
        self.model = model
        self.passes = inner - 1
        self.settings = Settings(
            solver="paper", tolerance=0.0, max_outer_iterations=MOST_ITERATIONS, inner_iterations=inner
        )
        self.solvers = {
            name: prepare_recover(
                model, shape, dataclasses.replace(self.settings, precision=name), backend="triton", device=device.torch
            )
            for name in device.formats
        }
        self.images = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0))
        self.flops_per_image = _flops_per_image(device, model, shape)
        prox = self.solvers[device.formats[0]].prox
        self.needed_bytes = batch * (len(device.formats) * prox.bytes_per_row + 200 * prox.pixels)

    @torch.inference_mode()
    def measure(self, seconds: float, speeds: Speeds, name: str) -> list[dict[str, Any]]:
        """A row for each format."""
        exact = self.device.formats[0]
        variants: dict[str, Work] = {}
        watched = {}
        for number_format, solver in self.solvers.items():
            if solver.prox.why_not_captured:
                raise RuntimeError(f"not captured: {solver.prox.why_not_captured}")
            slots = solver.allocate(len(self.images))
            solver.load(slots, [solver.stage(Sample(i, image)) for i, image in enumerate(self.images)])
            first = solver.prox.as_images(slots.s.clone())  # what enters the first pass of a block
            block = _Counted(functools.partial(_block, solver, slots))
            watched[number_format] = (block, slots)
            variants[f"block {number_format}"] = block.replayed(self.device)
            bare = functools.partial(_pass, solver.prox.apply, first, self.passes)
            variants[f"bare {number_format}"] = self.device.captured(bare)
            if number_format == exact:
                variants["eager"] = functools.partial(_pass, self.model, first, self.passes)
                y, theta = (solver.prox.to_images(rows) for rows in (slots.y, slots.mask))
                arguments = (self.model, y, theta, self.settings.gammas[0], self.passes + 1)
                _finite(reference.admm(*arguments))
                variants["plain loop"] = functools.partial(_without_result, reference.admm, arguments)
        times = compare(self.device, variants, seconds * 0.6)  # the rest goes into loading, warming up and captures
        for block, slots in watched.values():
            _finite(slots.x)
            if slots.blocks.tolist() != [block.calls] * len(self.images):
                raise RuntimeError(f"not every block did its work: {slots.blocks.tolist()[:3]} of {block.calls}")
        return [self._row(number_format, times, speeds, name) for number_format in self.solvers]

    def _row(self, number_format: str, times: dict[str, Times], speeds: Speeds, name: str) -> dict[str, Any]:
        solver, batch = self.solvers[number_format], len(self.images)
        block, bare = times[f"block {number_format}"], times[f"bare {number_format}"]
        width = 2 if number_format == "bfloat16" else 4
        weights = sum(parameter.numel() for parameter in self.model.parameters()) * width
        flops = self.passes * batch * self.flops_per_image
        steps = self.passes * batch * solver.prox.pixels * BYTES_PER_PIXEL["step"]
        row: dict[str, Any] = {
            "model": name,
            "images": batch,
            "format": number_format,
            "rounds": len(block.rounds),
            "block ms": block.percentiles(),
            "bare ms": bare.percentiles(),
            "floor of the weights, ms": self.passes * weights / speeds.bytes_per_second * 1e3,
            "floor of the FLOPs, ms": flops / speeds.flops_per_second[number_format] * 1e3,
            "block / bare": block.over(bare),
            "block / bare at full bandwidth": 1 + steps / speeds.bytes_per_second * 1e3 / bare.median,
        }
        if number_format == self.device.formats[0]:
            row |= {"eager ms": times["eager"].percentiles(), "plain loop ms": times["plain loop"].percentiles()}
            row |= {"eager / block": times["eager"].over(block), "plain loop / block": times["plain loop"].over(block)}
        return row


def _block(solver: AnySolver, slots: PaperSlots) -> None:
    """A block in which every image takes part: one that is done would be passed over. The two fills count as ours."""
    slots.status.fill_(RUNNING)
    slots.iterations.zero_()
    solver.advance(slots)


class _Counted:
    """A block, and how often it ran."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.calls = 0

    def replayed(self, device: Device) -> Work:
        replay = device.captured(self.work)
        self.calls = 1  # to warm up

        def run() -> None:
            self.calls += 1
            replay()

        return run


def _without_result(function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    function(*arguments)


def _finite(images: Tensor) -> None:
    if not images.isfinite().all():
        raise ArithmeticError("NaN or infinity: what was timed is not a recovery")


def _flops_per_image(device: Device, model: nn.Module, shape: tuple[int, ...]) -> int:
    image = torch.zeros(1, *shape, device=device.torch)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    return int(counter.get_total_flops())


def _targets(row: dict[str, Any], sizes: Sizes) -> list[dict[str, Any]]:
    """The ratios that matter, each with what it should be."""
    few = sizes.batches[: max(1, len(sizes.batches) // 2)]
    found = [("block / bare", "≤", 1.03)]
    if "eager / block" in row:
        if row["images"] in few:
            found += [("eager / block", ">", 1.0), ("plain loop / block", "≥", 5.0)]
        elif row["images"] == sizes.batches[-1]:
            found += [("plain loop / block", "≥", 1.2)]
    answers = []
    for what, sign, target in found:
        ratio = row[what]["p50"]
        met = ratio <= target if sign == "≤" else ratio >= target
        about = {name: row[name] for name in ("model", "images", "format")}
        answers.append({**about, "what": what, "ratio": ratio, "target": f"{sign} {target:g}", "met": met})
    return answers
