"""How setup.py compiles the kernels, seen by a compiler that writes down what it is asked for, and compiles nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pybind11")
pytest.importorskip("setuptools")
ROOT = Path(__file__).parents[1]
COMPILER = """#!/bin/sh
echo "$@" >> "$CALLS"
while [ "$1" != -o ]; do shift; done
touch "$2"
"""
EXACT = {"-ffp-contract=off", "-fno-trapping-math"}


def build(folder: Path, **variables: str) -> list[list[str]]:
    """The arguments of each call of the compiler, the linking last."""
    compiler, calls = folder / "compiler", folder / "calls"
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MEMRECON_FAST")}
    into = ["--build-lib", str(folder / "lib"), "--build-temp", str(folder / "objects")]
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", *into],
        cwd=ROOT,
        env=kept | {"CC": str(compiler), "CXX": str(compiler), "CALLS": str(calls)} | variables,
        check=True,
    )
    return [line.split() for line in calls.read_text().splitlines()] if calls.exists() else []


def test_every_source_is_compiled_rounding_each_operation_by_itself(tmp_path: Path) -> None:
    *compiled, linked = [call for call in build(tmp_path) if "-fopenmp" in call]
    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").glob("*.cpp"))
    assert sorted(argument for call in compiled for argument in call if argument.endswith(".cpp")) == sources
    for call in compiled:
        assert {"-O3", "-std=c++17", *EXACT} <= set(call)
        assert not any(argument.startswith("-fsanitize") for argument in call)
    assert len([argument for argument in linked if argument.endswith(".o")]) == len(sources)
    assert [path.parent.name for path in (tmp_path / "lib").rglob("_C.*")] == ["memrecon_fast"]


def test_the_sanitizers_look_at_the_same_arithmetic(tmp_path: Path) -> None:
    *compiled, linked = [call for call in build(tmp_path, MEMRECON_FAST_SANITIZE="1") if "-fopenmp" in call]
    for call in compiled:
        assert {"-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-Werror", *EXACT} <= set(call)
        assert [argument for argument in call if argument.startswith("-O")][-1] == "-O1"
    assert "-fsanitize=address,undefined" in linked


def test_nothing_is_compiled_where_that_is_asked_for(tmp_path: Path) -> None:
    assert build(tmp_path, MEMRECON_FAST_NO_CPP="1") == []
