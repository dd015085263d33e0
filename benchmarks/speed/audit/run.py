"""An audit of 25,000 images: how fast it is, where its time goes, what memory it takes, and what workers add.

    python -m benchmarks.speed.audit.run             all parts; about three quarters of an hour on two cores of an EPYC
    python -m benchmarks.speed.audit.run --only workers,reference
    python -m benchmarks.speed.audit.run --quick     tiny sizes, in half a minute, to see that it works

Parts: throughput (half an hour), memory (the same audit of a tenth of the images: its peak is held against
that of throughput), workers (needs Ray), reference. Each adds to what OUT.json holds of the others and writes OUT.md
anew, so that they can be measured at different times; nothing else should run on the machine. No tests for pytest.
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
from pathlib import Path
from typing import Any

from benchmarks.speed.audit.crops import write_crops
from benchmarks.speed.audit.parts import PARTS, Task, images_path, model_path
from benchmarks.speed.audit.report import render, targets
from memrecon_fast import autoencoders
from memrecon_fast.audit.plan import SPLITS

ROOT = Path(__file__).resolve().parents[3]
OUT = ROOT / "benchmarks" / "results" / "cpu-audit"
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


def main() -> None:
    """Measure the parts that are asked for."""
    arguments = _parse()
    threads = arguments.threads or len(os.sched_getaffinity(0))
    task = dataclasses.replace(QUICK if arguments.quick else Task(), threads=threads)
    if arguments.images is not None:
        task = dataclasses.replace(task, images=arguments.images)
    out = arguments.out or (Path(tempfile.mkdtemp(prefix="bench-audit-")) / "quick" if arguments.quick else OUT)
    results = _results_so_far(out, task, arguments.quick)
    with tempfile.TemporaryDirectory(prefix="bench-audit-") as folder:
        _prepare(task, Path(folder))
        for name in arguments.only:
            print(f"{name} …", flush=True)
            begin = time.perf_counter()
            results["parts"][name] = _measure(name, Path(folder), task)
            print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)
            results["targets"] = targets(results["parts"])
            _with_suffix(out, ".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            _with_suffix(out, ".md").write_text(render(results), encoding="utf-8")
    print(f"written: {_with_suffix(out, '.json')}, {_with_suffix(out, '.md')}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=_names, default=list(PARTS), help=f"of {','.join(PARTS)}")
    parser.add_argument("--images", type=int, help=f"at least 100; {Task().images} without it")
    parser.add_argument("--threads", type=int, help="of all parts but the workers; all cores without it")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, results to a temporary folder")
    parser.add_argument("--out", type=Path, help=f"results, without suffix; {OUT.relative_to(ROOT)} without it")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(PARTS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: the parts are {', '.join(PARTS)}")
    return names


def _results_so_far(out: Path, task: Task, quick: bool) -> dict[str, Any]:
    """What the file holds, if it is of the same task."""
    path = _with_suffix(out, ".json")
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


def _with_suffix(out: Path, suffix: str) -> Path:
    return out.with_name(out.name + suffix)


if __name__ == "__main__":
    main()
