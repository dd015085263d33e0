"""What is asked of a GPU, with one command: no step stops the next one, and what is printed and written stays small."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STEPS = ["smoke", "build", "bench", "tests", "probe"]
FAKE = """#!/bin/sh
case "$*" in
    *--why-not*) exit 0 ;;
    *"import pybind11"*) exit "${NO_PYBIND11:-0}" ;;
    *gpu.smoke*) echo "a recovery" ;;
    *setup.py*) echo "error: no compiler" >&2; exit 1 ;;
    *"benchmarks gpu"*) echo "begun"; touch "$OUT/gpu-fake.json" "$OUT/gpu-fake.md"; sleep "${SLEEP:-0}" ;;
    *"-m pytest"*) i=0; while [ $i -lt 2000 ]; do i=$((i + 1)); echo "FAILED test_gpu.py::test_$i - ü"; done; exit 1 ;;
    *"benchmarks products"*) touch "$OUT/products.json" "$OUT/products.md"; echo "ieee 12.0 us" ;;
esac
"""
pytestmark = pytest.mark.skipif(
    any(shutil.which(command) is None for command in ("bash", "timeout", "awk")), reason="needs a Unix shell"
)


def session(out: Path, path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", "benchmarks/speed/gpu/session.sh", *arguments]
    own = {"OUT": str(out), "PATH": f"{path}{os.pathsep}{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=ROOT, env=os.environ | own | environment, capture_output=True, text=True)


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A folder with a python3 that stands in for all that is run, and an nvidia-smi."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in (("python3", FAKE), ("nvidia-smi", "#!/bin/sh\necho NVIDIA\n")):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    return folder


def heads(printed: str) -> list[str]:
    return [line.split(",")[0].removeprefix("== ") for line in printed.splitlines() if line.startswith("== ")]


def test_no_step_stops_the_next_one(tmp_path: Path, fake: Path) -> None:
    done = session(tmp_path / "out", fake, "300")
    assert done.returncode == 1
    *steps, last = heads(done.stdout)
    assert steps == ["smoke: rc 0", "build: rc 1", "bench: rc 0", "tests: rc 1", "probe: rc 0"]
    assert last.endswith("s in all")
    assert "error: no compiler" in done.stdout
    assert "ieee 12.0 us" in done.stdout


def test_what_the_kernels_cannot_be_built_without_is_said(tmp_path: Path, fake: Path) -> None:
    done = session(tmp_path / "out", fake, "300", "build", "probe", NO_PYBIND11="1", CXX="no-such-compiler")
    assert heads(done.stdout)[:2] == ["build: rc 3", "probe: rc 0"]
    assert "the C++ kernels are not built; missing: pybind11 C++-compiler" in done.stdout


def test_what_is_printed_fits_and_the_files_are_few(tmp_path: Path, fake: Path) -> None:
    done = session(tmp_path / "out", fake, "300", "smoke", "build", "tests", "probe")
    assert len(done.stdout) < 12_000
    assert "FAILED test_gpu.py::test_2000 - ü" in done.stdout
    assert "FAILED test_gpu.py::test_1 " in (tmp_path / "out" / "session.log").read_text()
    session(tmp_path / "out", fake, "300")
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["gpu-fake.json", "gpu-fake.md", "products.json", "products.md", "session.log"]


def test_a_step_that_hangs_is_ended_before_the_time_is_over(tmp_path: Path, fake: Path) -> None:
    done = session(tmp_path / "out", fake, "16", "bench", "probe", SLEEP="60")
    bench, probe, last = heads(done.stdout)
    assert bench == "bench: rc 124"
    assert "out of time" in done.stdout
    assert "begun" in done.stdout
    assert probe == "probe: left out"
    assert int(last.split()[0]) <= 18


def test_without_a_gpu_each_step_says_so_in_one_line(tmp_path: Path) -> None:
    """As .ci/run rehearses it."""
    done = session(tmp_path / "out", Path(sys.executable).parent)
    assert done.returncode == 1
    *lines, last = done.stdout.splitlines()
    why_not = "torch finds no CUDA GPU" if importlib.util.find_spec("triton") else "torch and triton are needed: "
    assert all(f": left out, {why_not}" in line for line in lines)
    assert [line.split(":")[0] for line in lines] == [f"== {step}" for step in STEPS]
    assert last.endswith("s in all")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["session.log"]
