"""What must be right on a GPU before any time means something: the kernels, whole recoveries, graphs, the order."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import memrecon_fast as mf
from benchmarks.registry import ROOT
from benchmarks.speed.gpu.device import Device, Share
from benchmarks.speed.gpu.operations import FILES, OPERATIONS, Failed, bits, compare_operation, must_equal
from memrecon_fast import Settings, autoencoders, degradation, metrics
from memrecon_fast.engine.cuda_graph import Graphs
from memrecon_fast.engine.inflight import InFlight
from memrecon_fast.engine.samples import Finished, Sample
from memrecon_fast.recovery import prepare_recover


@dataclasses.dataclass(frozen=True)
class Sizes:
    """`shapes`: for the operations of each solver, rows and pixels, and places in the ring. The others: of the network
    that is trained for the recoveries, and of these."""

    shapes: dict[str, tuple[tuple[int, ...], ...]]
    side: int
    members: int
    width: int
    depth: int
    steps: int
    settings: dict[str, Settings]
    masks: tuple[str, ...]
    slots: int


REAL = Sizes(
    shapes={
        "paper": ((64, 768), (64, 12288), (600, 12288), (61, 12289), (5, 769), (16, 70), (130, 1), (1, 1)),
        # each number of places takes kernels of its own, and time to compile them
        "accelerated": ((64, 768, 6), (200, 12288, 6), (61, 12289, 6), (16, 70, 33), (130, 1, 1)),
    },
    side=16,
    members=30,
    width=384,
    depth=6,
    steps=3000,
    settings={"paper": Settings(solver="paper", max_outer_iterations=60), "accelerated": Settings()},
    masks=("center", "random-80"),
    slots=16,  # the only number of rows, also when few images are left: another one may mean other last bits
)
REHEARSAL = Sizes(
    shapes={
        "paper": ((2, 768), (3, 769), (2, 70), (5, 1)),
        "accelerated": ((3, 768, 6), (2, 769, 3), (4, 70, 2), (5, 1, 1)),
    },
    side=8,
    members=2,
    width=96,
    depth=4,
    steps=1500,
    settings={
        "paper": Settings(solver="paper", inner_iterations=4, max_outer_iterations=6),
        "accelerated": Settings(gamma=0.5, memory=1, mask_period=1, max_outer_iterations=6),
    },
    masks=("center",),
    slots=2,
)


def run_checks(device: Device, share: Share) -> dict[str, Any]:
    """All checks; a row for each, with whether it was passed and what was seen."""
    sizes = REHEARSAL if device.rehearsal else REAL
    rows: list[dict[str, Any]] = []

    def check(what: str, function: Callable[..., str], *arguments: Any) -> None:
        try:
            rows.append({"check": what, "passed": True, "seen": function(*arguments)})
        except Exception as error:
            if not isinstance(error, Failed):
                traceback.print_exc()
            rows.append({"check": what, "passed": False, "seen": f"{type(error).__name__}: {error}"})
        print(f"  {'passed' if rows[-1]['passed'] else 'FAILED'}: {what}: {rows[-1]['seen']}", flush=True)

    for solver, operations in OPERATIONS.items():
        for operation in operations:
            what = f"{operation[0]}{operation[1:] or ''} as {FILES[solver]}, bit for bit"
            check(what, compare_operation, device, solver, operation, sizes.shapes[solver])
    images, source = make_images(2 * sizes.members, sizes.side)
    task = _Task(device, sizes, images)
    check("the network memorised", task.train)
    unet = autoencoders.UNet(tuple(images.shape[1:]), (8, 16)).eval().to(device.torch)
    with tempfile.TemporaryDirectory() as folder:
        why_not = build_cpp(Path(folder))
        if why_not:
            share.skipped.append(f"the comparison with the C++ kernels: {why_not}")
        for solver in sizes.settings:
            check(f"{solver}: members are recovered", task.recovers, solver)
            check(f"{solver}: verdicts of triton and torch are the same", task.triton_as_torch, solver)
            if not why_not:
                check(f"{solver}: verdicts of triton and of cpp on the CPU are the same", task.triton_as_cpp, solver)
            progressive = f"{solver}: verdicts of progressive precision and of float32 are the same"
            check(progressive, task.progressive_as_float32, solver)
            for name, model in (("fully connected", task.model), ("U-Net", unet)):
                captured = f"{solver}: captured blocks are eager ones, bit for bit ({name})"
                check(captured, task.captured_as_eager, solver, model)
            check(f"{solver}: the order of the images in {sizes.slots} slots changes nothing", task.any_order, solver)
    device.release()
    return {"rows": rows, "images": source, "passed": all(row["passed"] for row in rows)}


class _Task:
    """Members and controls, and the network that memorised the members."""

    def __init__(self, device: Device, sizes: Sizes, images: Tensor) -> None:
        self.device = device
        self.sizes = sizes
        self.images = images
        self.shape = tuple(images.shape[1:])
        self.model = autoencoders.FullyConnected(self.shape, sizes.width, sizes.depth).eval().to(device.torch)
        self._recovered: dict[tuple[str, str, Settings], tuple[mf.Recovery, Tensor]] = {}

    def train(self) -> str:
        members = self.images[: self.sizes.members]
        result = autoencoders.train(self.model, members, 1e-9, max_steps=self.sizes.steps)
        if not result.loss < 1e-4:
            raise Failed(f"the loss is {result.loss:.1e} after {result.steps} steps")
        return f"loss {result.loss:.1e} in {result.seconds:.1f} s"

    def recovers(self, solver: str) -> str:
        """Otherwise there is nothing to compare."""
        approximate = [self._recover("triton", mask, self.sizes.settings[solver])[1][:, 1] for mask in self.sizes.masks]
        members, controls = torch.stack(approximate, dim=1).split(self.sizes.members)
        if not members.any():
            raise Failed("no member is recovered")
        return (
            f"approximately recovered: {int(members.sum())} of {members.numel()} members, "
            f"{int(controls.sum())} of {controls.numel()} controls"
        )

    def triton_as_torch(self, solver: str) -> str:
        """The same forward passes. With "paper" every bit should agree, and the verdicts must; "accelerated" sums in
        another order, and its extrapolations make more of that: as for cpp."""
        return self._compare(solver, "torch", "float32", exact=solver == "paper")

    def triton_as_cpp(self, solver: str) -> str:
        """The forward passes are rounded differently: an image on the edge between two attractors may change sides."""
        return self._compare(solver, "cpp", "float32")

    def progressive_as_float32(self, solver: str) -> str:
        """The masks that float32 begins with are others: as for cpp."""
        return self._compare(solver, "triton", "progressive")

    def captured_as_eager(self, solver: str, model: nn.Module) -> str:
        """Four blocks: the second call captures, and three of them are replays."""
        device, rows = self.device, self.sizes.slots
        settings = self.sizes.settings[solver]
        if solver == "accelerated":
            settings = dataclasses.replace(settings, settle=0)  # extrapolated from the beginning on
        prepared = prepare_recover(model, self.shape, settings, backend="triton", device=device.torch)
        samples = [Sample(i, y) for i, y in enumerate(self._degraded(self.sizes.masks[0])[:rows])]
        eager, again, captured = (prepared.allocate(rows) for _ in range(3))
        with torch.inference_mode():
            for slots in (eager, again, captured):
                prepared.admit(slots, [prepared.stage(sample) for sample in samples])
            graphs = Graphs(lambda count: prepared.advance(captured.narrow(count)), device.capture_function())
            for _ in range(4):
                prepared.advance(eager)
                prepared.advance(again)
                graphs(rows)
        device.synchronize()
        if not graphs.captured:
            raise Failed(f"nothing was captured: {graphs.why_not}")
        for name, tensor in eager.tensors().items():
            if not torch.equal(bits(tensor), bits(again.tensors()[name])):
                return f"not decided: {name} of two eager runs differs, the autoencoder is not the same in every call"
            must_equal(name, captured.tensors()[name], tensor)
        return f"{rows} images, {len(eager.tensors())} buffers after 4 blocks"

    def any_order(self, solver: str) -> str:
        """Forwards, backwards, and at random."""
        # one γ: the order decides which images share the slots, and that does not hang on how often one is tried
        settings = dataclasses.replace(self.sizes.settings[solver], gamma=0.5)
        prepared = prepare_recover(self.model, self.shape, settings, backend="triton", device=self.device.torch)
        samples = [Sample(i, y) for i, y in enumerate(self._degraded(self.sizes.masks[-1]))]
        shuffled = torch.randperm(len(samples), generator=torch.Generator().manual_seed(3)).tolist()
        results: list[dict[int, Finished]] = []
        for order in (samples, samples[::-1], [samples[i] for i in shuffled]):
            in_flight = InFlight(prepared, self.sizes.slots, self.device.schedule(self.sizes.slots))
            results.append({one.index: one for one in in_flight.stream(order)})
        for other in results[1:]:
            for index, one in results[0].items():
                must_equal(f"image {index}", other[index].image, one.image)
                must_equal(f"mask {index}", other[index].mask, one.mask)
                if (one.status, one.outer_iterations) != (other[index].status, other[index].outer_iterations):
                    raise Failed(f"image {index} ended otherwise")
        return f"{len(samples)} images in 3 orders; {in_flight.execution}"

    def _compare(self, solver: str, backend: str, precision: str, exact: bool = False) -> str:
        """Verdicts of Triton's kernels in float32, and of something else; where not `exact`, a few may differ."""
        settings = self.sizes.settings[solver]
        total = len(self.sizes.masks) * len(self.images)
        allowed = 0 if exact else max(1, total // 50)
        differ: list[str] = []
        same = 0
        for mask in self.sizes.masks:
            one, verdicts = self._recover("triton", mask, settings)
            other, others = self._recover(backend, mask, dataclasses.replace(settings, precision=precision))
            differ += [f"{mask} {i}" for i in (verdicts != others).any(dim=1).nonzero().flatten().tolist()]
            same += int((one.images.cpu() == other.images.cpu()).flatten(1).all(dim=1).sum())
        if len(differ) > allowed:
            raise Failed(f"{len(differ)} of {total} verdicts differ, of {', '.join(differ)}")
        return (
            f"{len(differ)} of {total} recoveries differ ({allowed} would be tolerated), {same} are the same image "
            f"bit for bit; {other.execution}"
        )

    def _recover(self, backend: str, mask: str, settings: Settings) -> tuple[mf.Recovery, Tensor]:
        """The recovery, made once, and for each image whether it is accurate, and approximate."""
        key = (backend, mask, settings)
        if key not in self._recovered:
            where = torch.device("cpu") if backend == "cpp" else self.device.torch
            model = copy.deepcopy(self.model).to(where)
            recovered = mf.recover(model, self._degraded(mask).to(where), settings=settings, backend=backend)
            if recovered.backend != backend:
                raise Failed(f"{backend} was asked for, and {recovered.backend} used")
            mse = metrics.mse(recovered.images.cpu(), self.images)
            verdicts = torch.stack([mse < metrics.ACCURATE_MSE, mse < metrics.APPROXIMATE_MSE], dim=1)
            self._recovered[key] = recovered, verdicts
        return self._recovered[key]

    def _degraded(self, mask: str) -> Tensor:
        return degradation.erase(self.images, degradation.make_mask(mask, self.shape))


def build_cpp(folder: Path) -> str:
    """Have the C++ kernels of this checkout, built in `folder` where those that there are, if any, are older than it.

    Returns why there are none; empty if there are.
    """
    built = importlib.util.find_spec("memrecon_fast._C")
    sources = [*(ROOT / "csrc").glob("*.cpp"), *(ROOT / "csrc").glob("*.h")]
    newest = max(path.stat().st_mtime for path in sources)
    if built is not None and built.origin is not None and Path(built.origin).stat().st_mtime > newest:
        return ""
    command = [sys.executable, "setup.py", "-q", "build_ext"]
    command += ["--build-lib", str(folder), "--build-temp", str(folder / "objects")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        mf.__path__.insert(0, str(folder / "memrecon_fast"))  # before anything has imported them
    available = mf.backends()["cpp"]
    return "" if available == "available" else f"{available}; {next(_errors(done.stderr), 'they were not built')}"


def _errors(output: str) -> Iterator[str]:
    return (line for line in output.splitlines() if "rror" in line)


def make_images(count: int, side: int) -> tuple[Tensor, str]:
    """float32 (count, 3, side, side) in [0, 1], and what they are: photographs, where scikit-image has that many."""
    try:
        from memrecon_fast.images.photographs import make_photographs

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
