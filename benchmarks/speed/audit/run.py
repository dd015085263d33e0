"""An audit of 25,000 images: how fast it is, where its time goes, what memory it takes, and what workers add.

    python -m benchmarks audit             all parts; about three quarters of an hour on two cores of an EPYC
    python -m benchmarks audit --only workers,reference
    python -m benchmarks audit --quick     tiny sizes, in half a minute, to see that it works

Parts: throughput (half an hour), memory (the same audit of a tenth of the images: its peak is held against
that of throughput), workers (needs Ray), reference. Each adds to what OUT.json holds of the others and writes OUT.md
anew, so that they can be measured at different times; nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring import results_path, write_results
from benchmarks.registry import ROOT, make_parser
from benchmarks.speed.audit.crops import write_crops
from benchmarks.speed.audit.parts import PARTS, Task, images_path, model_path
from benchmarks.speed.audit.report import render, targets
from memrecon_fast import autoencoders
from memrecon_fast.audit.plan import SPLITS

NAME = "cpu-audit"
"""Of the results."""
QUICK = Task(
    images=320,
    images_for_workers=256,
    sample=16,
    size=16,
    width=64,
    depth=4,
    rounds=1,
    rounds_of_workers=1,
    seconds_of_bare_passes=0.2,
)


def main(arguments: Sequence[str]) -> None:
    """Measure the parts that are asked for."""
    options = _parse(arguments)
    threads = options.threads or len(os.sched_getaffinity(0))
    task = dataclasses.replace(QUICK if options.quick else Task(), threads=threads)
    if options.images is not None:
        task = dataclasses.replace(task, images=options.images)
    out = results_path(NAME, options.out, options.quick)
    results = _results_so_far(out, task, options.quick)
    with tempfile.TemporaryDirectory(prefix="bench-audit-") as folder:
        _prepare(task, Path(folder))
        for name in options.only:
            print(f"{name} …", flush=True)
            begin = time.perf_counter()
            results["parts"][name] = _measure(name, Path(folder), task)
            print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)
            results["targets"] = targets(results["parts"])
            write_results(out, results, render(results))
    print(f"written: {out}.json and .md")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = make_parser("audit", __doc__)
    parser.add_argument("--only", type=_names, default=list(PARTS), help=f"of {','.join(PARTS)}")
    parser.add_argument("--images", type=int, help=f"at least 100; {Task().images} without it")
    parser.add_argument("--threads", type=int, help="of all parts but the workers; all cores without it")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, results to a temporary folder")
    parser.add_argument("--out", type=Path, help=f"results, without suffix; benchmarks/results/{NAME} without it")
    return parser.parse_args(arguments)


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(PARTS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: the parts are {', '.join(PARTS)}")
    return names


def _results_so_far(out: Path, task: Task, quick: bool) -> dict[str, Any]:
    """What the file holds, if it is of the same task."""
    path = out.with_name(f"{out.name}.json")
    new: dict[str, Any] = {"quick": quick, "task": dataclasses.asdict(task), "targets": [], "parts": {}}
    if not path.exists():
        return new
    before: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if before["task"] != new["task"]:
        raise SystemExit(f"{path} holds measurements of another task, {before['task']}: give another --out")
    return before


def _prepare(task: Task, folder: Path) -> None:
    """The images and the model that all parts work on."""
    print("making images and model …", flush=True)
    count = max(task.images, task.images_for_workers, 2 * task.sample) // 2
    write_crops([images_path(folder, split) for split in SPLITS], count, task.size)
    model = autoencoders.FullyConnected((3, task.size, task.size), task.width, task.depth, "leaky_relu")
    autoencoders.save(model.eval(), model_path(folder))


def _measure(name: str, folder: Path, task: Task) -> dict[str, Any]:
    """One part, in a process of its own."""
    threads = 1 if name == "workers" else task.threads
    result = folder / f"{name}.json"
    (folder / "task.json").write_text(json.dumps(dataclasses.asdict(task)))
    subprocess.run(
        [sys.executable, "-m", "benchmarks.speed.audit.parts", name, str(folder / "task.json"), str(result)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)},  # Ray's workers import from there
        check=True,
    )
    measured: dict[str, Any] = json.loads(result.read_text())
    return measured
