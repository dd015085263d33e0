"""What the benchmark of audits measures: each part in a process of its own, so that memory and threads are clean.

    python -m benchmarks.speed.audit.parts NAME TASK RESULT

TASK and RESULT are JSON files; `run` starts it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

import memrecon_fast as mf
from benchmarks.measuring import percentiles, where
from benchmarks.speed.audit.watch import Watch, log_passes
from memrecon_fast import Settings, autoencoders, degradation, metrics, reference
from memrecon_fast.audit import cluster
from memrecon_fast.audit.plan import ALL_IMAGES, SPLITS, Audit, describe
from memrecon_fast.audit.progress import Output
from memrecon_fast.audit.session import Means, Session, begin
from memrecon_fast.audit.store.opening import IMAGES, OpenRun, open_run
from memrecon_fast.audit.store.records import RECORDS
from memrecon_fast.audit.worker import SECONDS_BETWEEN_PARTS
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.prox import CHECKS_AT_THE_END
from memrecon_fast.images.masks import open_masks
from memrecon_fast.images.scan import open_images, read_images

METHOD = "paper"
SLOTS = 64
"""Not those that are fastest here: what is counted is the same on every machine."""
TOLERANCE = 1e-3
"""Of a pixel of an image after so few outer iterations: the literal form rounds otherwise."""


@dataclasses.dataclass(frozen=True)
class Task:
    """Sizes; half of the images are members, half controls."""

    images: int = 25_000
    images_for_workers: int = 2048
    sample: int = 128
    """Images for the reference."""
    size: int = 64
    width: int = 1024
    depth: int = 20
    mask: str = "random-80"
    gamma: float = 0.1
    """Published for 20 layers."""
    outer_iterations: int = 2
    threads: int = 1
    """Of throughput, memory and reference."""
    rounds: int = 3
    rounds_of_workers: int = 1
    seconds_of_bare_passes: float = 3.0

    @property
    def settings(self) -> Settings:
        """Of the recoveries."""
        return Settings(solver="paper", gamma=self.gamma, max_outer_iterations=self.outer_iterations)

    @property
    def passes_of_an_image(self) -> int:
        """At most, see `PaperSolver`."""
        return self.outer_iterations * (self.settings.inner_iterations - 1)


def images_path(folder: Path, split: str) -> Path:
    return folder / f"{split}.npy"


def model_path(folder: Path) -> Path:
    return folder / "model.safetensors"


def measure_throughput(task: Task, folder: Path) -> dict[str, Any]:
    """The audit of all images: images per second, and where the time goes."""
    return _watch_audit(task, folder, task.images)


def measure_memory(task: Task, folder: Path) -> dict[str, Any]:
    """The same audit of a tenth of the images, for its peak of memory."""
    return _watch_audit(task, folder, task.images // 10)


def _watch_audit(task: Task, folder: Path, images: int) -> dict[str, Any]:
    watch = Watch(images)
    model = autoencoders.load(model_path(folder))
    assert isinstance(model, nn.Module)
    bare = _bare_pass(model, task)
    watch.note_memory("model loaded")
    begin = time.perf_counter()
    with contextlib.ExitStack() as opened:
        with watch.count("reading the images"):
            audit = _plan(task, folder, images)
        watch.note_memory("images read")
        with watch.count("preparing, opening the run"), watch.preparing():
            session = opened.enter_context(_begun(audit, model, folder))
        watch.note_memory("run opened")
        began_work = time.perf_counter()
        with watch.working(model):
            session.work()
        end = time.perf_counter()
        watch.note_memory("report")
        run = session.opened
        execution, near = run.description["sessions"][-1]["execution"], _near_duplicates(run)
    bare_after = _bare_pass(model, task)
    seconds = end - begin
    work = end - began_work - watch.seconds["report"]
    median = float(np.median([*bare, *bare_after]))
    return {
        "images": images,
        "execution": execution[METHOD],
        "near duplicates": near,
        "seconds": seconds,
        "images per second": images / seconds,
        "seconds of the work": work,
        "images per second of the work": images / work,
        "seconds by what": {**watch.seconds, "all else": seconds - sum(watch.seconds.values())},
        "share in forward passes": watch.seconds["forward passes"] / seconds,
        "share in forward passes, of the work": watch.seconds["forward passes"] / work,
        "forward passes": watch.passes,
        "rows": watch.rows,
        "evaluations": watch.evaluations,
        **watch.occupancy(SLOTS),
        "bare pass": {
            "rows": SLOTS,
            "seconds before": percentiles(bare),
            "seconds after": percentiles(bare_after),
            "GFLOP/s": SLOTS * _flops_of_a_row(model) / median / 1e9,
        },
        "TFLOP": watch.rows * _flops_of_a_row(model) / 1e12,
        "floor, seconds": watch.rows * median / SLOTS,
        "peak, MB": watch.peaks["report"],
        "resident, MB": watch.resident,
        "peak until then, MB": watch.peaks,
    }


def measure_workers(task: Task, folder: Path) -> dict[str, Any]:
    """One Ray worker against two, each of one thread."""
    rounds: list[dict[str, Any]] = []
    for number in range(task.rounds_of_workers):
        for workers in (1, 2):
            rounds.append({"workers": workers, **_run_workers(task, folder, workers)})
            print(f"  round {number + 1}: {workers}: {rounds[-1]['images per second']:.2f} images/s", flush=True)
    digests = {row.pop("records") for row in rounds}
    assert len(digests) == 1, "the records of one worker and of two differ"
    keys = ("images per second", "images per second, all at work")
    medians = {
        key: {str(n): float(np.median([row[key] for row in rounds if row["workers"] == n])) for n in (1, 2)}
        for key in keys
    }
    return {
        "images": task.images_for_workers,
        "records are equal": True,
        "rounds": rounds,
        **medians,
        "ratio": medians[keys[0]]["2"] / medians[keys[0]]["1"],
        "ratio, all at work": medians[keys[1]]["2"] / medians[keys[1]]["1"],
    }


def load_logged(path: Path, folder: Path, device: torch.device) -> nn.Module:
    """The model, with a log of its forward passes in the folder."""
    model = autoencoders.load(path, None, device)
    assert isinstance(model, nn.Module)
    log_passes(model, folder / f"{os.getpid()}.passes")
    return model


def _run_workers(task: Task, folder: Path, workers: int) -> dict[str, Any]:
    audit = _plan(task, folder, task.images_for_workers)
    model = autoencoders.load(model_path(folder))
    with tempfile.TemporaryDirectory(dir=folder) as logs, contextlib.ExitStack() as opened:
        began = time.monotonic()
        opened.enter_context(cluster.connected(None, workers))
        started = time.monotonic()
        means = Means(workers, output=opened.enter_context(_output()))
        run = opened.enter_context(_opened(audit, model, folder, means))
        load = functools.partial(load_logged, model_path(folder), Path(logs))
        job = cluster.make_task(audit, run, load, "cpu", SECONDS_BETWEEN_PARTS, threads=1)
        remark = means.output.remark
        Session(
            audit,
            run,
            means,
            workers,
            lambda listener: cluster.Crew(job, run.folder, workers, listener, remark).work,
            str,
        ).work()
        # without those of the trial and those of the check at the end
        passes = [np.loadtxt(path, ndmin=2)[8:-CHECKS_AT_THE_END] for path in Path(logs).iterdir()]
        records = _digest_of_records(run)
    worked = [log for log in passes if len(log)]
    first, last = min(log[0, 0] for log in worked), max(log[-1, 1] for log in worked)
    all_from, all_to = max(log[0, 0] for log in worked), min(log[-1, 1] for log in worked)
    rows = sum(log[(log[:, 0] >= all_from) & (log[:, 1] <= all_to), 2].sum() for log in worked)
    return {
        "records": records,
        "workers that had work": len(worked),  # of few images another may have taken all before one has begun
        "seconds to start Ray": started - began,
        "seconds from there to the first pass": first - started,
        "seconds of the work": last - first,
        "images per second": task.images_for_workers / (last - first),
        "images per second, all at work": float(rows) / task.passes_of_an_image / max(all_to - all_from, 1e-9),
        "seconds in passes": [float((log[:, 1] - log[:, 0]).sum()) for log in worked],
        "rows": [int(log[:, 2].sum()) for log in worked],
    }


def measure_reference(task: Task, folder: Path) -> dict[str, Any]:
    """The work of an audit, and `recover`, against the algorithm written down literally, on some images."""
    model = autoencoders.load(model_path(folder))
    audit = dataclasses.replace(_plan(task, folder, task.sample, splits=SPLITS[:1]), keep_images=ALL_IMAGES)
    originals, mask = audit.splits["members"].stack(), audit.masks[task.mask]
    degraded = degradation.erase(originals, mask)
    estimates: dict[str, Tensor] = {}

    def audited() -> float:
        with _begun(audit, model, folder) as session:
            run = session.work()
            estimates["audit"] = torch.from_numpy(np.load(next(run.path.glob("recovered/*.images.npy"))))
            return float(session.opened.description["sessions"][-1]["seconds"])

    def recovered() -> None:
        estimates["recover"] = mf.recover(model, degraded, settings=task.settings).images

    def literal() -> None:
        estimates["reference"] = reference.recover(model, degraded, settings=task.settings).images

    seconds: dict[str, list[float]] = {"audit": [], "recover": [], "reference": []}
    for number in range(task.rounds):
        seconds["audit"].append(audited())
        seconds["recover"].append(_seconds(recovered))
        seconds["reference"].append(_seconds(literal))
        print(f"  round {number + 1}: {', '.join(f'{k} {v[-1]:.2f} s' for k, v in seconds.items())}", flush=True)
    assert torch.equal(estimates["audit"], estimates["recover"]), "the audit is not what recover() gives"
    torch.testing.assert_close(estimates["audit"], estimates["reference"], rtol=TOLERANCE, atol=TOLERANCE)
    mse = {name: metrics.mse(images, originals) for name, images in estimates.items()}
    for threshold in (metrics.ACCURATE_MSE, metrics.APPROXIMATE_MSE):
        assert torch.equal(mse["audit"] < threshold, mse["reference"] < threshold), "other verdicts than the reference"
    median = {name: float(np.median(values)) for name, values in seconds.items()}
    return {
        "images": task.sample,
        "rounds": task.rounds,
        "seconds": {name: percentiles(values) for name, values in seconds.items()},
        "largest difference of a pixel": (estimates["audit"] - estimates["reference"]).abs().max().item(),
        "tolerance": TOLERANCE,
        "ratio": median["reference"] / median["audit"],
        "ratio of recover": median["reference"] / median["recover"],
    }


def _seconds(function: Callable[[], None]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def _plan(task: Task, folder: Path, images: int, splits: tuple[str, ...] = SPLITS) -> Audit:
    """The audit of so many images."""
    shape = (3, task.size, task.size)
    opened = {split: open_images(images_path(folder, split), shape, limit=images // len(splits)) for split in splits}
    masks = open_masks([task.mask], shape)
    return Audit(opened, masks, methods=(METHOD,), settings=task.settings, slots=SLOTS)


@contextlib.contextmanager
def _begun(audit: Audit, model: Autoencoder, folder: Path) -> Iterator[Session]:
    """A session in this process on a new run, which is removed afterwards."""
    with (
        tempfile.TemporaryDirectory(dir=folder) as out,
        _output() as output,
        begin(audit, model, Path(out) / "run", Means(output=output)) as session,
    ):
        yield session


@contextlib.contextmanager
def _opened(audit: Audit, model: Autoencoder, folder: Path, means: Means) -> Iterator[OpenRun]:
    """A new run for workers of one thread each, which `begin` has only on a cluster that is there already."""
    sources = {split: str(images_path(folder, split)) for split in audit.splits}
    with tempfile.TemporaryDirectory(dir=folder) as out:
        description = describe(audit, model, "cpu", str(model_path(folder)), sources, None)
        with open_run(audit.splits, description, Path(out) / "run", False, means.output.remark) as run:
            yield run


@contextlib.contextmanager
def _output() -> Iterator[Output]:
    """As on a terminal, so that the bar costs what it costs there."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        yield Output(Console(file=nowhere, force_terminal=True))


def _digest_of_records(run: OpenRun) -> str:
    """Of the record files, byte for byte."""
    digest = hashlib.sha256()
    for path in sorted((run.folder.path / RECORDS).glob("*.parquet")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _near_duplicates(run: OpenRun) -> int:
    return sum(name is not None for name in read_images(run.folder.path / IMAGES)["near_duplicate_of"])


def _flops_of_a_row(model: nn.Module) -> int:
    """Of the matrix products."""
    return 2 * sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, nn.Linear))


def _bare_pass(model: nn.Module, task: Task) -> list[float]:
    """Seconds of forward passes with nothing between them."""
    images = torch.rand(SLOTS, 3, task.size, task.size, generator=torch.Generator().manual_seed(0))
    seconds: list[float] = []
    with torch.inference_mode():
        for _ in range(3):
            model(images)
        end = time.perf_counter() + task.seconds_of_bare_passes
        while time.perf_counter() < end:
            seconds.append(_seconds(lambda: model(images)))
    return seconds


PARTS: dict[str, Callable[[Task, Path], dict[str, Any]]] = {
    "throughput": measure_throughput,
    "memory": measure_memory,
    "workers": measure_workers,
    "reference": measure_reference,
}


def measure(name: str, task: Task, folder: Path) -> dict[str, Any]:
    """One part, and on what it was measured; `folder` holds the images and the model."""
    return {"where": where(), **PARTS[name](task, folder)}


def main() -> None:
    """Measure one part."""
    name, task_path, result_path = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    task = Task(**json.loads(task_path.read_text()))
    torch.set_num_threads(1 if name == "workers" else task.threads)
    result_path.write_text(json.dumps(measure(name, task, task_path.parent)))


if __name__ == "__main__":
    main()
