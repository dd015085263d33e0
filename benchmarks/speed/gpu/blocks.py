"""A block of each solver against its forward passes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed.gpu.device import Device, Share, Times, compare
from benchmarks.speed.gpu.speed import BYTES_PER_PIXEL, STATE_BYTES, Speeds, run_passes
from memrecon_fast import Settings, reference
from memrecon_fast.autoencoders import FullyConnected, UNet
from memrecon_fast.common.errors import is_out_of_memory
from memrecon_fast.engine.cuda_graph import Work
from memrecon_fast.engine.samples import Sample
from memrecon_fast.engine.solver import Solver
from memrecon_fast.ops.admm import AdmmState
from memrecon_fast.ops.anderson import Anderson, AndersonState
from memrecon_fast.recovery import prepare_recover
from memrecon_fast.results import RUNNING
from memrecon_fast.settings import MAX_ITERATIONS, MAX_STALL
from memrecon_fast.solvers.accelerated import AcceleratedSolver

ENDLESS = Settings(
    tolerance=0.0,
    max_outer_iterations=MAX_ITERATIONS,
    stall=MAX_STALL,
    settled_counts=1,
    settle=0,
    solver="accelerated",
)
"""No image is ever done, and each is extrapolated from the beginning on."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """`batches`: rows of a block. `inner`: inner iterations of the paper's solver. `memory`: of the accelerated one."""

    batches: tuple[int, ...]
    inner: int
    memory: int
    models: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]]


REAL = Sizes(
    batches=(1, 64, 600, 4096),
    inner=40,
    memory=ENDLESS.memory,
    models={
        "FC 10 × 1024, 64×64×3": (lambda: FullyConnected((3, 64, 64), 1024, 10), (3, 64, 64)),
        "FC 20 × 1024, 64×64×3": (lambda: FullyConnected((3, 64, 64), 1024, 20), (3, 64, 64)),
        "U-Net 16–128, 32×32×3": (lambda: UNet((3, 32, 32), (16, 32, 64, 128)), (3, 32, 32)),
    },
)
REHEARSAL = Sizes(
    batches=(1, 2),
    inner=3,
    memory=1,
    models={"U-Net 4–8, 8×8×3": (lambda: UNet((3, 8, 8), (4, 8)), (3, 8, 8))},
)


def passes_of_block(settings: Settings) -> int:
    """Applications of the autoencoder in a block."""
    return settings.inner_iterations - 1 if settings.solver == "paper" else settings.mask_period


def measure_blocks(device: Device, share: Share, speeds: Speeds) -> dict[str, Any]:
    """One block of each solver, for each network, batch and number format."""
    sizes = REHEARSAL if device.rehearsal else REAL
    rows: list[dict[str, Any]] = []
    cells = [(solver, name, batch) for name in sizes.models for batch in sizes.batches for solver in BYTES_PER_PIXEL]
    for number, (solver, name, batch) in enumerate(cells):
        what = f"blocks of {solver}, {name}, {batch} images"
        if share.has(1.0, what):
            try:
                cell = functools.partial(_Cell, device, sizes, solver, name, batch)
                rows += _measure_cell(cell, share, what, share.left() / (len(cells) - number), speeds)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                share.skipped.append(f"{what}: out of memory")
        device.release()
    return {"rows": rows, "targets": [target for row in rows for target in _targets(row, sizes)]}


def _measure_cell(
    make: Callable[[], _Cell], share: Share, what: str, seconds: float, speeds: Speeds
) -> list[dict[str, Any]]:
    """Its memory is free again afterwards."""
    cell = make()
    if cell.device.free_bytes() < cell.needed_bytes:
        share.skipped.append(f"{what}: need {cell.needed_bytes / 2**30:.0f} GiB")
        return []
    return cell.measure(seconds, speeds)


class _Cell:
    """A solver, a network and a number of images: what is timed, and the checks that it did its work."""

    def __init__(self, device: Device, sizes: Sizes, solver: str, name: str, batch: int) -> None:
        build, shape = sizes.models[name]
        self.device = device
        self.solver = solver
        self.name = name
        self.model = build().eval().to(device.torch)
        own = {"inner_iterations": sizes.inner} if solver == "paper" else {"memory": sizes.memory}
        self.settings = dataclasses.replace(ENDLESS.with_solver(solver), **own)  # type: ignore[arg-type]
        self.passes = passes_of_block(self.settings)
        self.solvers = {
            number_format: prepare_recover(
                self.model,
                shape,
                dataclasses.replace(self.settings, precision=number_format),
                backend="triton",
                device=device.torch,
            )
            for number_format in device.formats
        }
        self.images = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0))
        self.flops_per_image = _flops_per_image(device, self.model, shape)
        prox = self.solvers[device.formats[0]].prox
        state = 150 + STATE_BYTES[solver] * len(device.formats)  # with room for what comes and goes
        self.needed_bytes = batch * (len(device.formats) * prox.bytes_per_row + state * prox.pixels)

    @torch.inference_mode()
    def measure(self, seconds: float, speeds: Speeds) -> list[dict[str, Any]]:
        """A row for each format."""
        variants: dict[str, Work] = {}
        blocks = []
        for number_format, solver in self.solvers.items():
            if solver.prox.why_not_captured:
                raise RuntimeError(f"not captured: {solver.prox.why_not_captured}")
            slots = solver.allocate(len(self.images))
            solver.admit(slots, [solver.stage(Sample(i, image)) for i, image in enumerate(self.images)])
            first = solver.prox.as_images(slots.s.clone())  # what enters the first pass of a block
            block = _PaperBlock(solver, slots) if self.solver == "paper" else _AcceleratedBlock(solver, slots)
            counted = _Counted(block.run)
            blocks.append((counted, block))
            variants[f"block {number_format}"] = counted.replayed(self.device)
            bare = functools.partial(run_passes, solver.prox.apply, first, self.passes)
            variants[f"bare {number_format}"] = self.device.captured(bare)
            if self.solver == "paper" and number_format == self.device.formats[0]:
                variants["eager"] = functools.partial(run_passes, self.model, first, self.passes)
                y, theta = (solver.prox.to_images(rows.clone()) for rows in (slots.y, slots.mask))
                arguments = (self.model, y, theta, self.settings.gammas[0], self.passes + 1)
                _finite(reference.admm(*arguments))
                variants["plain loop"] = functools.partial(_without_result, reference.admm, arguments)
        times = compare(self.device, variants, seconds * 0.6)  # the rest goes into loading, warming up and captures
        for counted, block in blocks:
            _finite(block.slots.x)
            if not (block.done() == counted.calls).all():
                raise RuntimeError(f"not every block did its work: {block.done().tolist()[:3]} of {counted.calls}")
        return [self._row(number_format, times, speeds) for number_format in self.solvers]

    def _row(self, number_format: str, times: dict[str, Times], speeds: Speeds) -> dict[str, Any]:
        batch = len(self.images)
        block, bare = times[f"block {number_format}"], times[f"bare {number_format}"]
        width = 2 if number_format == "bfloat16" else 4
        weights = sum(parameter.numel() for parameter in self.model.parameters()) * width
        flops = self.passes * batch * self.flops_per_image
        moved = batch * self.solvers[number_format].prox.pixels * self._bytes_per_pixel()
        row: dict[str, Any] = {
            "solver": self.solver,
            "model": self.name,
            "images": batch,
            "format": number_format,
            "rounds": len(block.rounds),
            "block ms": block.percentiles(),
            "bare ms": bare.percentiles(),
            "floor of the weights, ms": self.passes * weights / speeds.bytes_per_second * 1e3,
            "floor of the FLOPs, ms": flops / speeds.flops_per_second[number_format] * 1e3,
            "block / bare": block.over(bare),
            "block / bare at full bandwidth": 1 + moved / speeds.bytes_per_second * 1e3 / bare.median,
        }
        for name in ("eager", "plain loop"):
            if name in times and number_format == self.device.formats[0]:
                row |= {f"{name} ms": times[name].percentiles(), f"{name} / block": times[name].over(block)}
        return row

    def _bytes_per_pixel(self) -> int:
        """Of the operations between the passes of a block."""
        of = BYTES_PER_PIXEL[self.solver]
        if self.solver == "paper":
            return self.passes * of["step"]
        return self.passes * (of["measure"] + of["mix"]) + of["estimate"]


class _PaperBlock:
    """A block in which every image takes part: one that is done would be passed over."""

    def __init__(self, solver: Solver, slots: AdmmState) -> None:
        self.solver = solver
        self.slots = slots

    def run(self) -> None:
        """The two fills count as ours."""
        self.slots.status.fill_(RUNNING)
        self.slots.iterations.zero_()
        self.solver.advance(self.slots)

    def done(self) -> Tensor:
        """How many blocks each image took part in."""
        return self.slots.blocks


class _AcceleratedBlock:
    """A block in which every image is extrapolated from a full ring, in each evaluation."""

    def __init__(self, solver: Any, slots: AndersonState) -> None:
        self.solver: AcceleratedSolver = dataclasses.replace(
            solver, ops=dataclasses.replace(solver.ops, anderson=_FullRing(solver.ops.anderson, slots))
        )
        self.slots = slots

    def run(self) -> None:
        """Nothing is restored: no image is ever done."""
        self.solver.advance(self.slots)

    def done(self) -> Tensor:
        """How many blocks each image was extrapolated in; the first extrapolation is accepted in the second
        evaluation."""
        return (self.slots.accepted + 1) / self.solver.settings.mask_period


class _FullRing:
    """The operations where most is to be done: `measure` finds all residuals known, and `weigh` those that are of one
    size and at right angles. Then it solves the largest system, and goes on from the mean of all steps.

    How often that comes about by itself hangs on the network, which is not trained here: its mask may never hold
    still.
    """

    def __init__(self, anderson: Anderson, slots: AndersonState) -> None:
        self.anderson = anderson
        for ring in (slots.steps, slots.residuals):  # all of it is read, also what was never written
            ring.zero_()
        gram = torch.eye(slots.places, dtype=torch.float64, device=slots.device).expand_as(slots.gram).contiguous()
        filled = torch.full_like(slots.filled, slots.places - 1)
        self.measured = dataclasses.replace(slots, filled=filled)
        extrapolated = torch.zeros_like(slots.extrapolated)
        self.weighed = dataclasses.replace(slots, gram=gram, filled=filled, extrapolated=extrapolated)
        self.estimate = anderson.estimate
        self.stop = anderson.stop
        self.mix = anderson.mix

    def measure(self, _: AndersonState, v: Tensor) -> None:
        """As it is, but for `filled`."""
        self.anderson.measure(self.measured, v)

    def weigh(self, _: AndersonState, *, settle: int) -> None:
        """As it is, but for `gram`, `filled` and `extrapolated`."""
        self.anderson.weigh(self.weighed, settle=settle)


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
    """The ratios that matter, each with what it should be; there are none for the accelerated solver."""
    if row["solver"] != "paper":
        return []
    few = sizes.batches[: max(1, len(sizes.batches) // 2)]
    found = [("block / bare", "≤", 1.04)] if row["format"] == "float32" else []
    if "eager / block" in row:
        if row["images"] in few:
            found += [("eager / block", ">", 1.0), ("plain loop / block", "≥", 2.5)]
        elif row["images"] == sizes.batches[-1]:
            found += [("plain loop / block", "≥", 1.2)]
    answers = []
    for what, sign, target in found:
        ratio = row[what]["p50"]
        met = ratio <= target if sign == "≤" else ratio >= target
        about = {name: row[name] for name in ("model", "images", "format")}
        answers.append({**about, "what": what, "ratio": ratio, "target": f"{sign} {target:g}", "met": met})
    return answers
