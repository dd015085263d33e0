"""What an image costs the host: what bounds an audit where the device is fast.

    python -m benchmarks host             a few minutes
    python -m benchmarks host --quick     tiny, to see that it works

The autoencoder and the solver do next to nothing here: every image is done after one block. All else is what happens to
an image on its way: reading, degrading, the initial mask, slots, the score, the record, part files; with two groups of
slots, late flags and reading threads, as on a GPU. What a GPU does itself (moving images into slots and out of them,
the operations of the score) is done by the processor here, and counts: an upper bound. How much that is, of the way in
flight, torch's profiler says: the time in `OF_THE_DEVICE` (bytes are divided by 255 here too, which is the benchmark's
own). The images are crops of photographs: an audit compares each estimate with all members, and noise, which is in no
low frequencies, makes that several times as slow. Nothing else should run on the machine. Writes
benchmarks/results/host.json and .md.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.profiler import ProfilerActivity, profile

from benchmarks.measuring import percentiles, results_path, where, write_results
from benchmarks.registry import make_parser
from benchmarks.speed.audit.crops import write_crops
from memrecon_fast import Settings, Status, degradation
from memrecon_fast.audit.plan import Audit
from memrecon_fast.audit.session import run_audit
from memrecon_fast.audit.store.folder import Folder
from memrecon_fast.audit.store.parts import Parts
from memrecon_fast.audit.worker import Workbench
from memrecon_fast.engine.inflight import InFlight, Schedule
from memrecon_fast.engine.samples import Sample
from memrecon_fast.images.scan import scan
from memrecon_fast.images.sources import from_array
from memrecon_fast.methods import Open
from memrecon_fast.ops.anderson import AndersonState
from memrecon_fast.recovery import prepare_recover
from memrecon_fast.solvers.accelerated import AcceleratedSolver

SETTINGS = Settings(solver="accelerated", gamma=0.5)
AS_ON_A_GPU = Schedule(groups=2, lag=1, ahead=256, make_capture=None)
SLOTS = 1024
OF_THE_DEVICE = frozenset(
    f"aten::{name}" for name in ("where", "index_select", "index_copy_", "masked_fill_", "div", "fill_", "cat")
)
"""torch's operations, of those that take time here, that are on slots and on batches that leave them."""
Images = NDArray[np.uint8]


class Instant(AcceleratedSolver):
    """Is done with every image at once."""

    def advance(self, slots: AndersonState) -> None:
        """One block."""
        slots.iterations.add_(1)
        slots.status.fill_(int(Status.CONVERGED))


def crops(count: int, size: int) -> Images:
    """(count, 3, size, size)."""
    with tempfile.TemporaryDirectory(prefix="bench-host-") as folder:
        path = Path(folder) / "crops.npy"
        write_crops([path], count, size)
        return np.ascontiguousarray(np.load(path).transpose(0, 3, 1, 2))


def _instant(images: Images) -> Instant:
    solver = prepare_recover(torch.clone, images.shape[1:], SETTINGS)
    return Instant(**{field.name: getattr(solver, field.name) for field in dataclasses.fields(AcceleratedSolver)})


def in_flight(images: Images) -> None:
    """From tensors to estimates, as in `recover()`."""
    degraded = torch.from_numpy(images).float() / 255
    samples = (Sample(i, image) for i, image in enumerate(degraded))
    done = sum(1 for _ in InFlight(_instant(images), SLOTS, AS_ON_A_GPU).stream(samples))
    assert done == len(images)


def audit(images: Images) -> None:
    """From an array of pictures to the records."""
    masks = {"center": degradation.make_mask("center", images.shape[1:])}
    audit = Audit({"members": scan(from_array(images))}, masks, ("accelerated",), SETTINGS, slots=SLOTS)
    records: list[Any] = []
    with tempfile.TemporaryDirectory(prefix="bench-host-") as path:
        folder = Folder(Path(path), Parts(str(Path(path) / "records")))
        instant = _instant(images)
        streams: dict[str, Open] = {"accelerated": lambda slots: InFlight(instant, slots, AS_ON_A_GPU)}
        bench = Workbench(audit, streams, folder.parts)
        run_audit(
            audit, folder, lambda method, shards, wanted: bench.work(method, shards, wanted, records.append, print)
        )
    assert len(records) == len(images)


WAYS: dict[str, Callable[[Images], None]] = {"in flight": in_flight, "audit": audit}


def measure(sizes: tuple[int, ...], count: int, rounds: int) -> Iterator[dict[str, Any]]:
    """A row for each size and way; the ways take turns."""
    for size in sizes:
        images = crops(count, size)
        wall: dict[str, list[float]] = {name: [] for name in WAYS}
        main: dict[str, list[float]] = {name: [] for name in WAYS}
        for name, way in [*WAYS.items()] * (rounds + 1):
            began, used = time.perf_counter(), time.thread_time()
            way(images)
            wall[name].append((time.perf_counter() - began) / count * 1e6)
            main[name].append((time.thread_time() - used) / count * 1e6)
        for name in WAYS:  # the first round warms up
            of_device = {"microseconds of the device": _of_device(images)} if name == "in flight" else {}
            yield {
                **of_device,
                "way": name,
                "size": size,
                "images": count,
                "microseconds": percentiles(wall[name][1:]),
                "microseconds of the main thread": percentiles(main[name][1:]),
            }


def _of_device(images: Images) -> float:
    """Microseconds per image that a GPU would take over, of the way in flight."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        in_flight(images)
    taken = (one.self_cpu_time_total for one in profiled.key_averages() if one.key in OF_THE_DEVICE)
    return float(sum(taken)) / len(images)


def render(about: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The results for a person."""
    lines = [
        "# What an image costs the host",
        "",
        "Written by `python -m benchmarks host`, which says what is measured: microseconds per image, medians. The",
        "processor does here what a GPU would do itself, too: these are upper bounds.",
        f"{about['processor']}, {about['cores']} cores, one of them for torch's operations, Python {about['python']},",
        f"torch {about['torch']}, {about['date']}, commit {about['commit']}.",
        "",
        "| | images | all threads | the main thread's processor time | of it, what a GPU does itself "
        "| images per second |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        all_threads, main = (row[name]["p50"] for name in ("microseconds", "microseconds of the main thread"))
        size = f"{row['size']}×{row['size']}×3"
        device = row.get("microseconds of the device")
        of_device = "" if device is None else f"{device:.0f}"
        cells = (row["way"], size, f"{all_threads:.0f}", f"{main:.0f}", of_device, f"{1e6 / all_threads:,.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Measure and write."""
    parser = make_parser("host", __doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, results to a temporary folder")
    parser.add_argument("--out", type=Path, help="results, without suffix; benchmarks/results/host without it")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    about = where()
    rows = list(measure((8,), 300, 1) if options.quick else measure((32, 64), 8192, 5))
    text = render(about, rows)
    print(text)
    write_results(results_path("host", options.out, options.quick), {"where": about, "rows": rows}, text)
