"""How much memory does a reconstruction take, with V stored, and with V drawn again wherever it is needed?

    OMP_NUM_THREADS=1 python -m benchmarks reconstruction-memory            about ten minutes on one core
    python -m benchmarks reconstruction-memory --quick                      tiny, to see that it works

20 random inputs of 192 numbers, random features (ReLU) with V drawn by Philox, p of 10^5 and 10^6; `mf.reconstruct` is
told n. Each measurement is a process of its own. "Peak": the most memory that it held at any time until the end, less
what it held before V was made (Python and torch). V is stored in float32. Seconds are of processor time, on one thread.

Writes benchmarks/results/reconstruction-memory.json and .md.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

import memrecon_fast as mf
from benchmarks.measuring import results_path, where, write_results
from benchmarks.registry import ROOT, make_parser
from memrecon_fast.reconstruction import RandomFeatures, compare
from memrecon_fast.reconstruction.projected import onto_sphere

SEED = 7
PAGE = resource.getpagesize()


def inputs_of(n: int, d: int) -> Tensor:
    """On the sphere."""
    found = torch.randn(n, d, generator=Generator().manual_seed(1_000_000), dtype=torch.float64)
    return onto_sphere(found)


def fit(n: int, d: int, p: int, path: Path) -> None:
    """Write the parameters."""
    labels = torch.where(torch.rand(n, generator=Generator().manual_seed(2)) < 0.5, -1.0, 1.0)
    np.save(path, RandomFeatures.from_seed(p, d, SEED, generator="philox").fit(inputs_of(n, d), labels).numpy())


def held() -> int:
    """Bytes that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def measure(n: int, d: int, p: int, stored: bool, path: Path) -> dict[str, Any]:
    """One row, of a process that does nothing else."""
    theta, before = torch.from_numpy(np.load(path)), held()
    model = RandomFeatures.from_seed(p, d, SEED, generator="philox")
    if stored:
        model = RandomFeatures(model.weights[:])
    began = time.process_time()
    found = mf.reconstruct(model, theta, n)
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    compared = compare(inputs_of(n, d), found.inputs)
    return {
        "V": "stored" if stored else "drawn",
        "n": n,
        "d": d,
        "p": p,
        "bytes of V": 4 * p * d,
        "peak bytes": peak - before,
        "back": compared.recovered,
        "error": compared.error,
        "passes": found.passes,
        "seconds": seconds,
    }


def render(about: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        "# Memory of a reconstruction",
        "",
        "Written by `OMP_NUM_THREADS=1 python -m benchmarks reconstruction-memory`, which says what is measured.",
        f"{about['processor']}, one thread, torch {about['torch']}, {about['date']}, commit {about['commit']}.",
        "",
        "| V | n | d | p | V in float32, MB | peak, MB | of V's own | inputs back | ρ | passes | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['V']} | {row['n']} | {row['d']} | {row['p']} | {row['bytes of V'] / 1e6:.0f} | "
        f"{row['peak bytes'] / 1e6:.0f} | {row['peak bytes'] / row['bytes of V']:.2f} | {row['back']} | "
        f"{row['error']:.0e} | {row['passes']:.0f} | {row['seconds']:.0f} |"
        for row in rows
    ]
    return "\n".join([*lines, ""])


def elsewhere(*arguments: object) -> str:
    """What a process of this module prints."""
    command = [sys.executable, "-m", __name__, *map(str, arguments)]
    return subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout


def main(arguments: Sequence[str]) -> None:
    """Measure and write."""
    parser = make_parser("reconstruction-memory", __doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, results to a temporary folder")
    parser.add_argument("--out", type=Path, help="results, without suffix; benchmarks/results else")
    options = parser.parse_args(arguments)
    n, d, sizes = (2, 20, (400,)) if options.quick else (20, 192, (100_000, 1_000_000))
    about, rows = {**where(), "threads": 1}, []
    path = results_path("reconstruction-memory", options.out, options.quick)
    for p in sizes:
        with tempfile.TemporaryDirectory() as folder:
            theta = Path(folder) / "theta.npy"
            elsewhere("fit", n, d, p, theta)
            for stored in (True, False):
                rows.append(json.loads(elsewhere("stored" if stored else "drawn", n, d, p, theta)))
                print(rows[-1], flush=True)
                write_results(path, {"where": about, "rows": rows}, render(about, rows))
    print(render(about, rows))


def _main_elsewhere() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("fit", "stored", "drawn"))
    for name in ("n", "d", "p"):
        parser.add_argument(name, type=int)
    parser.add_argument("theta", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "fit":
        fit(options.n, options.d, options.p, options.theta)
    else:
        print(json.dumps(measure(options.n, options.d, options.p, options.what == "stored", options.theta)))


if __name__ == "__main__":
    _main_elsewhere()
