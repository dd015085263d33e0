"""How every benchmark here measures: the variants interleaved in one run, with percentiles and ratios."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.registry import RESULTS

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture  # the GPU benchmark runs without

SUBJECT = "memrecon_fast"


@dataclasses.dataclass(frozen=True)
class Compare:
    """Measures a subject against others that do the same work; one round runs each of them once."""

    benchmark: BenchmarkFixture
    rows: list[dict[str, Any]]
    quick: bool

    def __call__(
        self, subject: Callable[[], object], others: dict[str, Callable[[], object]], *, rounds: int, **about: object
    ) -> None:
        """Time `subject` and the `others`; `about` says what was measured and goes into the results."""
        seconds: dict[str, list[float]] = {name: [] for name in others}

        def others_once() -> None:
            for name, other in others.items():
                begin = time.perf_counter()
                other()
                seconds[name].append(time.perf_counter() - begin)

        self.benchmark.pedantic(subject, setup=others_once, rounds=1 if self.quick else rounds, warmup_rounds=1)
        stats = self.benchmark.stats
        assert stats is not None
        skipped = 1  # the warm-up round
        measured = {SUBJECT: list(stats.stats.data)}
        measured |= {name: values[skipped:] for name, values in seconds.items()}
        row = {
            "benchmark": self.benchmark.name,
            **about,
            "rounds": len(measured[SUBJECT]),
            "seconds": {name: percentiles(values) for name, values in measured.items()},
            "ratio_to_memrecon_fast": {
                name: statistics.median(values) / statistics.median(measured[SUBJECT])
                for name, values in measured.items()
                if name != SUBJECT
            },
        }
        self.benchmark.extra_info.update(row["ratio_to_memrecon_fast"])
        self.rows.append(row)


def taking_turns(
    ways: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.thread_time
) -> dict[str, list[float]]:
    """Seconds of each way in each round. They take turns, so that what else the machine does falls on all of them; a
    round before warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            began = clock()
            way()
            if turn:
                seconds[name].append(clock() - began)
    return seconds


def where() -> dict[str, object]:
    """The machine, the versions and the commit."""
    describe = ["git", "describe", "--always", "--abbrev=12", "--dirty=, with uncommitted changes"]
    commit = subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
    }


def processor() -> str:
    """Its name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def results_path(name: str, out: Path | None, quick: bool) -> Path:
    """Of the results, without a suffix: `out`, or their place in benchmarks/results; of a quick run, a new folder."""
    if out is not None:
        return out
    return (Path(tempfile.mkdtemp(prefix="benchmark-")) if quick else RESULTS) / name


def write_results(path: Path, results: object, page: str) -> None:
    """Write `path`.json and, for people, `path`.md; makes the folder, and says where they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f"{path.name}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    path.with_name(f"{path.name}.md").write_text(page, encoding="utf-8")
    print(f"The results: {path}.json, .md")


def lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The results for a person."""
    for row in rows:
        yield f"{row['benchmark']}: {SUBJECT} {row['seconds'][SUBJECT]['p50'] * 1e3:.4g} ms"
        for name, ratio in row["ratio_to_memrecon_fast"].items():
            yield f"    {name} {row['seconds'][name]['p50'] * 1e3:.4g} ms, {ratio:.3f} times"


def percentiles(values: list[float]) -> dict[str, float]:
    """p20, p50 and p80."""
    return {f"p{p}": float(np.percentile(values, p)) for p in (20, 50, 80)}
