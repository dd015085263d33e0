"""The benchmark of audits at tiny sizes: that it runs, and that what it counts is right; nothing about time."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("filelock")
pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
pytest.importorskip("pyarrow")
pytest.importorskip("rich")
pytest.importorskip("safetensors")
pytest.importorskip("skimage")

from benchmarks.speed.audit import parts, run
from memrecon_fast.audit import cluster

PARTS = ["throughput", "memory", "reference"]
HAS_RAY = importlib.util.find_spec("ray") is not None
IN_PROCESS_OF_ITS_OWN = "throughput"


@pytest.fixture(scope="module", autouse=True)
def in_this_process() -> Iterator[None]:
    """All parts but one, to save the time that processes take to begin: what they measure is the same code."""
    measure = run._measure

    def measured(name: str, folder: Path, task: parts.Task) -> dict[str, Any]:
        return (measure if name == IN_PROCESS_OF_ITS_OWN else parts_measured)(name, folder, task)

    def parts_measured(name: str, folder: Path, task: parts.Task) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(json.dumps(parts.measure(name, task, folder)))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "_measure", measured)
        yield


def measure(out: Path, *arguments: str) -> None:
    run.main(["--quick", "--threads", "1", "--out", str(out), *arguments])


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("benchmark") / "quick"
    for names in ("throughput,memory", "reference"):  # one after the other: each adds to the file
        measure(path, "--only", names)
    return path


@pytest.fixture(scope="module")
def results(out: Path) -> dict[str, Any]:
    return json.loads(out.with_name("quick.json").read_text())  # type: ignore[no-any-return]


def test_every_part_is_there(results: dict[str, Any]) -> None:
    assert results["quick"]
    assert list(results["parts"]) == PARTS
    for part in results["parts"].values():
        assert {"processor", "python", "torch", "commit"} <= set(part["where"])
        assert part["where"]["threads"] == 1


@pytest.mark.parametrize(("name", "images"), [("throughput", 320), ("memory", 32)])
def test_passes_rows_and_images_are_counted(results: dict[str, Any], name: str, images: int) -> None:
    part = results["parts"][name]
    assert part["images"] == images
    assert part["evaluations"] == images * 2 * 39
    assert part["rows"] == part["evaluations"] + images  # full batches: no row is for nobody; one scores the estimate
    assert part["forward passes"] == -(-images // 64) * (2 * 39 + 1)
    assert part["rows used"] == part["rows used, to the end"] == pytest.approx(78 / 79)  # all but those that score
    assert part["slots busy"] == pytest.approx(min(1, images / 64) * 78 / 79)


def test_the_time_is_divided(results: dict[str, Any]) -> None:
    part = results["parts"]["throughput"]
    assert sum(part["seconds by what"].values()) == pytest.approx(part["seconds"])
    assert min(part["seconds by what"].values()) > 0
    assert 0 < part["share in forward passes"] < part["share in forward passes, of the work"] < 1
    assert {"forward passes", "steps between", "records", "report", "reading the images"} <= set(
        part["seconds by what"]
    )
    assert part["floor, seconds"] > 0
    assert part["TFLOP"] == pytest.approx(part["rows"] * 2 * (2 * 768 * 64 + 2 * 64 * 64) / 1e12)
    assert part["peak, MB"] == max(part["peak until then, MB"].values()) >= max(part["resident, MB"].values()) > 50


def test_the_audit_is_compared_with_the_reference(results: dict[str, Any]) -> None:
    part = results["parts"]["reference"]
    assert part["images"] == 16
    assert part["largest difference of a pixel"] <= part["tolerance"]
    assert set(part["seconds"]) == {"audit", "recover", "reference"}
    assert part["ratio"] > 0


def test_targets_and_a_report_for_people(out: Path, results: dict[str, Any]) -> None:
    in_passes, busy, memory, workers = results["targets"]
    throughput = results["parts"]["throughput"]
    assert in_passes["met"] == (throughput["share in forward passes"] >= 0.9)
    assert busy["met"]
    assert memory["value"] == throughput["peak, MB"] / results["parts"]["memory"]["peak, MB"]
    assert workers["met"] is None  # was not measured
    report = out.with_name("quick.md").read_text()
    assert all(f"## {name.capitalize()}" in report for name in PARTS)
    assert "times mean nothing" in report
    assert "not measured" in report


def test_measurements_of_another_task_are_not_mixed_in(out: Path) -> None:
    before = out.with_name("quick.json").read_bytes()
    with pytest.raises(SystemExit, match="another task"):
        measure(out, "--only", "memory", "--images", "640")
    assert out.with_name("quick.json").read_bytes() == before


@pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed")
def test_one_worker_against_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with cluster.connected(None, 2):  # once for both, to save the time that Ray takes to start
        monkeypatch.setattr(cluster, "connected", lambda address, workers: contextlib.nullcontext())
        measure(tmp_path / "quick", "--only", "workers")
    results = json.loads((tmp_path / "quick.json").read_text())
    part = results["parts"]["workers"]
    assert [row["workers"] for row in part["rounds"]] == [1, 2]
    assert all(sum(row["rows"]) == part["images"] * (2 * 39 + 1) for row in part["rounds"])
    assert part["records are equal"]
    assert results["targets"][3]["value"] == part["ratio"] > 0
