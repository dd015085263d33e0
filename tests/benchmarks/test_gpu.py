"""The rehearsal of the GPU benchmark, so that nothing runs for the first time on a GPU that can be run without."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is not installed")
ROOT = Path(__file__).parents[2]
SOLVERS = {"paper", "accelerated"}
OPERATIONS = {"start", "step", "close", "advance", "mean_squares", "stop", "measure", "estimate", "weigh", "mix"}
SECTIONS = ["checks", "machine", "bandwidth", "blocks", "audit", "profile"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """As on a machine without a GPU."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", "gpu", *arguments],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rehearsal")
    done = run("--quick", "--out", str(folder), "--trace", str(folder / "trace.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "times mean nothing" in done.stdout
    return folder


@pytest.fixture(scope="module")
def results(rehearsed: Path) -> dict[str, Any]:
    return json.loads((rehearsed / "gpu-rehearsal.json").read_text())  # type: ignore[no-any-return]


def test_every_section_ran_and_nothing_was_skipped(results: dict[str, Any]) -> None:
    assert results["finished"]
    assert results["rehearsal"]
    assert list(results["sections"]) == SECTIONS
    assert all(section["rows"] for section in results["sections"].values())
    assert results["skipped"] == results["errors"] == []
    assert {"gpu", "driver", "cuda", "python", "torch", "triton", "numpy", "commit"} <= set(results["where"])


def test_every_check_was_passed(results: dict[str, Any]) -> None:
    checks = results["sections"]["checks"]
    assert checks["passed"]
    assert [row["check"] for row in checks["rows"] if not row["passed"]] == []
    names = [row["check"] for row in checks["rows"]]
    assert {name.split()[0].split("(")[0] for name in names if "plain.py" in name} == OPERATIONS
    for solver in SOLVERS:
        assert len([name for name in names if name.startswith(f"{solver}: ")]) == 7


def test_both_solvers_are_measured(results: dict[str, Any]) -> None:
    sections = results["sections"]
    bandwidth = {(row["solver"], row["operation"]): row["bytes per pixel"] for row in sections["bandwidth"]["rows"]}
    assert {operation for _, operation in bandwidth} == OPERATIONS - {"mean_squares", "stop", "weigh"}
    assert bandwidth["accelerated", "measure"] == 41  # as the report explains
    for name in ("bandwidth", "blocks", "audit"):
        assert {row["solver"] for row in sections[name]["rows"]} == SOLVERS
    blocks = {solver: [row for row in sections["blocks"]["rows"] if row["solver"] == solver] for solver in SOLVERS}
    assert len(blocks["paper"]) == len(blocks["accelerated"]) == 4
    assert all(row["block / bare at full bandwidth"] > 1 for row in sections["blocks"]["rows"])
    audits = {(row["solver"], row["precision"]): row for row in sections["audit"]["rows"]}
    assert {("accelerated", "float32"), ("accelerated", "progressive")} < set(audits)
    assert all(row["evaluations, mean"] > 0 for row in audits.values())


def test_the_cpp_kernels_of_this_checkout_were_compared(results: dict[str, Any]) -> None:
    checks = [row["check"] for row in results["sections"]["checks"]["rows"]]
    assert len([check for check in checks if "cpp" in check]) == len(SOLVERS)


def test_all_that_was_measured_are_numbers(results: dict[str, Any]) -> None:
    sections = results["sections"]
    ratios = [
        row[key][p]
        for row in sections["bandwidth"]["rows"]
        for key in ("share of copy", "plain torch")
        for p in row[key]
    ]
    ratios += [target["ratio"] for target in sections["blocks"]["targets"]]
    ratios += [row[key] for row in sections["audit"]["rows"] for key in ("images per second", "occupancy", "in blocks")]
    ratios += [row["rate"] for row in sections["machine"]["rows"]]
    assert all(math.isfinite(ratio) and ratio > 0 for ratio in ratios)
    assert all(0 < row["occupancy"] <= 1 for row in sections["audit"]["rows"])
    assert all(0 <= row["idle"] <= 1 and row["block boundaries"] for row in sections["profile"]["rows"])


def test_a_report_for_people_and_the_trace(rehearsed: Path) -> None:
    report = (rehearsed / "gpu-rehearsal.md").read_text()
    assert all(f"## {name.capitalize()}" in report for name in SECTIONS)
    assert "**failed**" not in report
    assert json.loads((rehearsed / "trace.json").read_text())["traceEvents"]


def test_without_a_gpu_one_line_and_exit_status_2() -> None:
    done = run()
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "--quick" in done.stderr
    assert done.stdout == ""
