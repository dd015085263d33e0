"""What must be right on a GPU before any time means something: the kernels, whole recoveries, graphs, the order."""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib.machinery
import importlib.util
import inspect
import subprocess
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import memrecon_fast as mf
from benchmarks.gpu_device import ROOT, Device, Share
from memrecon_fast import Settings, autoencoders, degradation, metrics
from memrecon_fast.cuda_graph import Graphs
from memrecon_fast.inflight import InFlight
from memrecon_fast.ops import plain
from memrecon_fast.ops import triton as kernels
from memrecon_fast.recovery import prepare_recover
from memrecon_fast.settings import RUNNING, Status
from memrecon_fast.solvers.samples import Finished, Sample
from memrecon_fast.solvers.slots import narrow, tensors

Buffers = dict[str, Tensor]
ARGUMENTS = {
    name: [p.name for p in inspect.signature(getattr(plain, name)).parameters.values() if p.annotation == "Tensor"]
    for name in ("start", "step", "close", "advance", "judge")
}
"""The buffers of each operation, in the order of its arguments; the numbers come after them."""
OPERATIONS: list[tuple[Any, ...]] = [
    *[("start",), ("step",), ("close", False), ("close", True), ("advance",)],
    *[("judge", tolerance, patience, 7, first) for tolerance, patience, first in ((0.3, 3, 2), (0.0, 1, 1))],
]
"""With their further arguments."""
MASKS = ("center", "random-80")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """`shapes`: rows and pixels for the operations. The others: of the network that is trained for the recoveries."""

    shapes: tuple[tuple[int, int], ...]
    side: int
    members: int
    width: int
    depth: int
    steps: int
    inner: int
    outer: int
    slots: int


REAL = Sizes(
    shapes=((64, 768), (64, 12288), (600, 12288), (61, 12289), (5, 769), (16, 70), (130, 1), (1, 1)),
    side=16,
    members=30,
    width=384,
    depth=6,
    steps=3000,
    inner=40,
    outer=60,
    slots=16,  # the only number of rows, also when few images are left: another one may mean other last bits
)
REHEARSAL = Sizes(
    shapes=((2, 768), (3, 769), (2, 70), (5, 1)),
    side=8,
    members=6,
    width=96,
    depth=4,
    steps=1500,
    inner=10,
    outer=24,
    slots=4,
)


class Failed(Exception):
    """A check that was not passed: how."""


def run_checks(device: Device, share: Share) -> dict[str, Any]:
    """All checks; a row for each, with whether it was passed and what was seen."""
    sizes = REHEARSAL if device.rehearsal else REAL
    rows: list[dict[str, Any]] = []

    def check(what: str, function: Callable[[], str]) -> None:
        try:
            rows.append({"check": what, "passed": True, "seen": function()})
        except Exception as error:
            if not isinstance(error, Failed):
                traceback.print_exc()
            rows.append({"check": what, "passed": False, "seen": f"{type(error).__name__}: {error}"})
        print(f"  {'passed' if rows[-1]['passed'] else 'FAILED'}: {what}: {rows[-1]['seen']}", flush=True)

    for operation in OPERATIONS:
        what = f"{operation[0]}{operation[1:] or ''} as ops/plain.py, bit for bit"
        check(what, functools.partial(_operation, device, operation, sizes.shapes))
    images, source = make_images(2 * sizes.members, sizes.side)
    task = _Task(device, sizes, images)
    check("the network memorised", task.train)
    check("verdicts of triton and torch are the same", task.triton_as_torch)
    with tempfile.TemporaryDirectory() as folder:
        why_not = make_cpp_available(Path(folder))
        if why_not:
            share.skipped.append(f"the comparison with the C++ kernels: {why_not}")
        else:
            check("verdicts of triton and of cpp on the CPU are the same", task.triton_as_cpp)
    check("verdicts of progressive precision and of float32 are the same", task.progressive_as_float32)
    unet = autoencoders.UNet(tuple(images.shape[1:]), (8, 16)).eval().to(device.torch)
    check("captured blocks are eager ones, bit for bit (fully connected)", lambda: task.captured_as_eager(task.model))
    check("captured blocks are eager ones, bit for bit (U-Net)", lambda: task.captured_as_eager(unet))
    check(f"the order of the images in {sizes.slots} slots changes nothing", task.any_order)
    device.release()
    return {"rows": rows, "images": source, "passed": all(row["passed"] for row in rows)}


def _operation(device: Device, operation: tuple[Any, ...], shapes: tuple[tuple[int, int], ...]) -> str:
    """Against plain torch on the device, and on the CPU."""
    for shape in shapes:
        before = random_buffers(*shape)
        got = {name: tensor.to(device.torch, copy=True) for name, tensor in before.items()}
        launch(kernels, operation, got)
        for where in (device.torch, torch.device("cpu")):
            expected = {name: tensor.to(where, copy=True) for name, tensor in before.items()}
            launch(plain, operation, expected)
            for name, tensor in expected.items():
                _compare(f"{name} {list(shape)} against {where}", got[name].cpu(), tensor.cpu(), name == "residual")
    return f"{len(shapes)} shapes, residual within 1 ulp"


def _compare(what: str, got: Tensor, expected: Tensor, is_residual: bool) -> None:
    """Bit for bit; a residual, which is summed in another order, to one unit in the last place."""
    if got.dtype == torch.float32:
        got, expected = (torch.where(t.isnan(), torch.nan, t).view(torch.int32).long() for t in (got, expected))
    wrong = (got - expected).abs() > 1 if is_residual else got != expected
    if wrong.any():
        raise Failed(
            f"{what}: {int(wrong.sum())} of {wrong.numel()} entries differ, first at {wrong.nonzero()[0].tolist()}"
        )


def launch(ops: Any, operation: tuple[Any, ...], buffers: Buffers) -> None:
    """Run an operation of `ops` in place."""
    name, *rest = operation
    getattr(ops, name)(*(buffers[argument] for argument in ARGUMENTS[name]), *rest)


def random_buffers(rows: int, d: int) -> Buffers:
    """Images, a γ of its own for each row, and counters; two of three rows are running."""
    generator = torch.Generator().manual_seed(rows + d)
    buffers = {name: torch.randn(rows, d, generator=generator) for name in "svyx"}
    for name in ("mask", "anchor"):
        buffers[name] = torch.rand(rows, d, generator=generator) < 0.5
    buffers["coefficients"] = plain.coefficients(0.05 + 3 * torch.rand(rows, generator=generator, dtype=torch.float64))
    buffers["residual"] = torch.rand(rows, generator=generator)
    for name in ("settled", "recurs", "renew"):
        buffers[name] = torch.rand(rows, generator=generator) < 0.5
    for name in ("iterations", "blocks", "below", "anchored", "period"):
        buffers[name] = torch.randint(7, (rows,), generator=generator, dtype=torch.int32)
    others = torch.randint(len(Status), (rows,), generator=generator, dtype=torch.int8)
    buffers["status"] = torch.where(torch.arange(rows) % 3 == 2, others, torch.tensor(RUNNING, dtype=torch.int8))
    return buffers


class _Task:
    """Members and controls, and the network that memorised the members."""

    def __init__(self, device: Device, sizes: Sizes, images: Tensor) -> None:
        self.device = device
        self.sizes = sizes
        self.images = images
        self.shape = tuple(images.shape[1:])
        self.settings = Settings(solver="paper", inner_iterations=sizes.inner, max_outer_iterations=sizes.outer)
        self.model = autoencoders.FullyConnected(self.shape, sizes.width, sizes.depth).eval().to(device.torch)

    def train(self) -> str:
        members = self.images[: self.sizes.members]
        result = autoencoders.train(self.model, members, 1e-9, max_steps=self.sizes.steps)
        if not result.loss < 1e-4:
            raise Failed(f"the loss is {result.loss:.1e} after {result.steps} steps")
        approximate, controls = 0, 0
        for mask in MASKS:
            verdicts = self._verdicts("triton", mask)[1][:, 1]
            approximate += int(verdicts[: self.sizes.members].sum())
            controls += int(verdicts[self.sizes.members :].sum())
        if not approximate:
            raise Failed(f"no member is recovered (loss {result.loss:.1e})")  # then there is nothing to compare
        total = len(MASKS) * self.sizes.members
        return (
            f"loss {result.loss:.1e} in {result.seconds:.1f} s; approximately recovered: {approximate} of {total} "
            f"members, {controls} of {len(MASKS) * (len(self.images) - self.sizes.members)} controls"
        )

    def triton_as_torch(self) -> str:
        """The same forward passes, so that every bit should agree; the verdicts must."""
        bits = total = 0
        for mask in MASKS:
            (one, verdicts), (other, others) = self._verdicts("triton", mask), self._verdicts("torch", mask)
            _same_verdicts(verdicts, others, allowed=0)
            bits += int((one.images == other.images).flatten(1).all(dim=1).sum())
            total += len(self.images)
        return f"{total} recoveries, {bits} of them the same image bit for bit; {one.execution}"

    def triton_as_cpp(self) -> str:
        """The forward passes are rounded differently: an image on the edge between two attractors may change sides."""
        return self._differing(
            lambda mask: self._verdicts("triton", mask)[1], lambda mask: self._verdicts("cpp", mask)[1]
        )

    def progressive_as_float32(self) -> str:
        """The masks that float32 begins with are others: as for cpp."""
        progressive = dataclasses.replace(self.settings, precision="progressive")
        return self._differing(
            lambda mask: self._verdicts("triton", mask)[1], lambda mask: self._verdicts("triton", mask, progressive)[1]
        )

    def captured_as_eager(self, model: nn.Module) -> str:
        """Four blocks: the second call captures, and three of them are replays."""
        device, rows = self.device, len(self.images)
        solver = prepare_recover(model, self.shape, self.settings, backend="triton", device=device.torch)
        samples = [Sample(i, y) for i, y in enumerate(self._degraded(MASKS[0]))]
        eager, again, captured = (solver.allocate(rows) for _ in range(3))
        with torch.inference_mode():
            for slots in (eager, again, captured):
                solver.load(slots, [solver.stage(sample) for sample in samples])
            graphs = Graphs(lambda count: solver.advance(narrow(captured, 0, count)), device.capture_function())
            for _ in range(4):
                solver.advance(eager)
                solver.advance(again)
                graphs(rows)
        device.synchronize()
        if not graphs.captured:
            raise Failed(f"nothing was captured: {graphs.why_not}")
        for name, tensor in tensors(eager).items():
            if not torch.equal(_bits(tensor), _bits(tensors(again)[name])):
                return f"not decided: {name} of two eager runs differs, the autoencoder is not the same in every call"
            _compare(name, tensors(captured)[name].cpu(), tensor.cpu(), is_residual=False)
        return f"{rows} images, {len(tensors(eager))} buffers after 4 blocks"

    def any_order(self) -> str:
        """Forwards, backwards, and at random."""
        solver = prepare_recover(self.model, self.shape, self.settings, backend="triton", device=self.device.torch)
        samples = [Sample(i, y) for i, y in enumerate(self._degraded(MASKS[1]))]
        shuffled = torch.randperm(len(samples), generator=torch.Generator().manual_seed(3)).tolist()
        results: list[dict[int, Finished]] = []
        for order in (samples, samples[::-1], [samples[i] for i in shuffled]):
            in_flight = InFlight(solver, self.sizes.slots, self.device.schedule(self.sizes.slots))
            results.append({one.index: one for one in in_flight.stream(order)})
        for other in results[1:]:
            for index, one in results[0].items():
                _compare(f"image {index}", other[index].image, one.image, is_residual=False)
                _compare(f"mask {index}", other[index].mask, one.mask, is_residual=False)
                if (one.status, one.outer_iterations) != (other[index].status, other[index].outer_iterations):
                    raise Failed(f"image {index} ended otherwise")
        return f"{len(samples)} images in 3 orders; {in_flight.execution}"

    def _differing(self, verdicts: Callable[[str], Tensor], others: Callable[[str], Tensor]) -> str:
        pairs = [(verdicts(mask), others(mask)) for mask in MASKS]
        allowed = max(1, len(MASKS) * len(self.images) // 50)
        one, other = (torch.cat(side) for side in zip(*pairs, strict=True))
        differ = _same_verdicts(one, other, allowed)
        return f"{differ} of {len(MASKS) * len(self.images)} recoveries differ ({allowed} would be tolerated)"

    def _verdicts(self, backend: str, mask: str, settings: Settings | None = None) -> tuple[mf.Recovery, Tensor]:
        """The recovery, and for each image whether it is accurate, and approximate."""
        where = torch.device("cpu") if backend == "cpp" else self.device.torch
        model = copy.deepcopy(self.model).to(where)
        recovered = mf.recover(
            model, self._degraded(mask).to(where), settings=settings or self.settings, backend=backend
        )
        if recovered.backend != backend:
            raise Failed(f"{backend} was asked for, and {recovered.backend} used")
        mse = metrics.mse(recovered.images.cpu(), self.images)
        return recovered, torch.stack([mse < metrics.ACCURATE_MSE, mse < metrics.APPROXIMATE_MSE], dim=1)

    def _degraded(self, mask: str) -> Tensor:
        return degradation.erase(self.images, degradation.make_mask(mask, self.shape))


def _same_verdicts(verdicts: Tensor, others: Tensor, allowed: int) -> int:
    """How many images differ; raises where those are too many."""
    differ = (verdicts != others).any(dim=1)
    count = int(differ.sum())
    if count > allowed:
        raise Failed(f"{count} of {len(differ)} verdicts differ, of images {differ.nonzero().flatten().tolist()}")
    return count


def _bits(tensor: Tensor) -> Tensor:
    return torch.where(tensor.isnan(), torch.nan, tensor).view(torch.int32) if tensor.dtype == torch.float32 else tensor


def make_images(count: int, side: int) -> tuple[Tensor, str]:
    """float32 (count, 3, side, side) in [0, 1], and what they are: photographs, where scikit-image has that many."""
    try:
        from memrecon_fast.audit.inputs.photographs import make_photographs

        return make_photographs(count, 0, size=side)[0], "crops of scikit-image's photographs"
    except Exception as error:  # not installed, too few, or not to be loaded: what matters is to have images
        return random_fields(count, side), f"smooth random fields ({type(error).__name__} from the photographs)"


def random_fields(count: int, side: int) -> Tensor:
    """Smooth colours with some detail, in 256 steps as photographs have them."""
    generator = torch.Generator().manual_seed(0)
    fields = torch.zeros(count, 3, side, side)
    for cells, weight in ((4, 0.5), (max(4, side // 4), 0.2)):
        coarse = torch.rand(count, 3, cells, cells, generator=generator)
        fields += weight * nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    return (fields + 0.15).mul(255).round().div(255)


def make_cpp_available(folder: Path) -> str:
    """Build the C++ kernels of this checkout in `folder`; why there are none, empty if there are.

    Those that the package may already have were perhaps built from other sources: they are the second choice.
    """
    why_not = _build_cpp(folder)
    if not why_not or mf.backends()["cpp"] == "available":
        return ""
    return why_not


def _build_cpp(folder: Path) -> str:
    try:
        import pybind11

        target = folder / f"_C{importlib.machinery.EXTENSION_SUFFIXES[0]}"
        includes = [f"-I{path}" for path in (pybind11.get_include(), sysconfig.get_paths()["include"])]
        # the flags of setup.py
        flags = ["-O3", "-std=c++17", "-ffp-contract=off", "-fno-trapping-math", "-fopenmp", "-fvisibility=hidden"]
        sources = [str(ROOT / "csrc" / name) for name in ("bindings.cpp", "kernels.cpp")]
        command = ["g++", "-shared", "-fPIC", *flags, *includes, *sources, "-o", str(target)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        _import_as("memrecon_fast._C", target)
    except subprocess.CalledProcessError as error:
        return "they do not compile: " + next(_errors(error.stderr), "no message")
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _errors(output: str) -> Iterator[str]:
    return (line for line in output.splitlines() if "error" in line)


def _import_as(name: str, path: Path) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module
    setattr(mf, name.rpartition(".")[2], module)
