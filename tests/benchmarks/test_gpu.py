"""The rehearsal of the GPU benchmark, so that nothing runs for the first time on a GPU that can be run without."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

from benchmarks.registry import RESULTS
from benchmarks.speed.gpu.brief import MOST, brief
from benchmarks.speed.gpu.device import Rehearsal
from benchmarks.speed.gpu.run import WATCHDOG, _parse, _Run, folder_of_results, main

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
    if done.returncode == 2 and "does not interpret kernels" in done.stderr:
        assert len(done.stderr.splitlines()) == 1
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "times mean nothing" in done.stdout
    assert "## Predictions" not in done.stdout
    assert brief(json.loads((folder / "gpu-rehearsal.json").read_text())) in done.stdout
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


def repeated(known: list[dict[str, Any]], count: int, **others: Any) -> list[dict[str, Any]]:
    """As many rows as there are on a GPU, each as long as it may be."""
    return [{**known[number % len(known)], **others} for number in range(count)]


def test_what_is_printed_fits_and_begins_with_what_matters(results: dict[str, Any]) -> None:
    """28 operations, 72 blocks of which none meets its target, 40 checks of which many fail."""
    sections = results["sections"]
    long = "FC 20 × 1024, 64×64×3"
    blocks = sections["blocks"]
    grown = {
        **results,
        "errors": ["audit: RuntimeError: " + "it went wrong; " * 100],
        "sections": {
            **sections,
            "checks": {**sections["checks"], "rows": repeated(sections["checks"]["rows"], 40, passed=False)},
            "bandwidth": {"rows": repeated(sections["bandwidth"]["rows"], 28, rows=4096, d=12288)},
            "blocks": {
                "rows": [
                    {**row, "model": f"{long} {number // 6}", "images": 4096}
                    for number, row in enumerate(repeated(blocks["rows"], 72))
                ],
                "targets": repeated(blocks["targets"], 60, met=False, model=long, images=4096),
            },
        },
    }
    printed = brief(grown)
    assert len(printed) <= MOST
    assert printed.index("ERROR audit") < printed.index("FAILED") < printed.index("[targets]")
    assert printed.splitlines()[-1].endswith("more lines, see the files")
    whole = brief(results)
    assert all(f"[{section}]" in whole for section in (*SECTIONS, "targets"))
    assert "more lines" not in whole


def test_results_go_where_they_are_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    assert folder_of_results(tmp_path / "named", rehearsal=False) == tmp_path / "named"
    assert folder_of_results(None, rehearsal=False) == tmp_path / "out"
    assert folder_of_results(None, rehearsal=True) not in (tmp_path / "out", RESULTS)
    monkeypatch.delenv("OUT")
    assert folder_of_results(None, rehearsal=False) == RESULTS


def test_a_failed_check_ends_nothing_and_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran: list[str] = []

    def section(name: str, passed: bool) -> Callable[[Any, Any], dict[str, Any]]:
        def run(device: Any, share: Any) -> dict[str, Any]:
            ran.append(name)
            return {"rows": [{"check": "sums", "passed": passed, "seen": "3, not 4"}], "images": "", "passed": passed}

        return run

    def write(_: Any) -> Path:
        return tmp_path / "gpu.md"

    monkeypatch.setattr(_Run, "_sections", lambda _: {name: section(name, False) for name in ("checks", "profile")})
    monkeypatch.setattr(_Run, "_write", write)
    monkeypatch.setattr("benchmarks.speed.gpu.brief._SECTIONS", ())
    device = Rehearsal()
    options = _parse(["--quick", "--out", str(tmp_path)])
    assert _Run(device, options, time.perf_counter()).all_sections() == 1
    assert ran == ["checks", "profile"]


def test_the_watchdog_leaves_room_before_ten_minutes() -> None:
    assert 60 * _parse([]).minutes + WATCHDOG <= 540


def test_where_nothing_is_interpreted_one_line_and_exit_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")  # put back at the end
    monkeypatch.setattr("memrecon_fast.ops.launch.why_not_interpreted", lambda: "Triton 3.6.0 does not, with numpy 2.4")
    assert main(["--quick"]) == 2
    printed = capsys.readouterr()
    assert printed.err == "Triton 3.6.0 does not, with numpy 2.4\n"
    assert printed.out == ""


def test_without_a_gpu_one_line_and_exit_status_2() -> None:
    done = run()
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "--quick" in done.stderr
    assert done.stdout == ""
