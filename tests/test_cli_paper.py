"""`memrecon export` and `memrecon compare`."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from memrecon_fast.audit.store.records import Cell
from memrecon_fast.cli import app
from tests.helpers.made_run import make_run


def memrecon(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "80"})


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    found = []
    for number in (1, 2):
        errors = {Cell("members", "half", "accelerated"): [1e-9] * number + [0.1] * (4 - number)}
        make_run(tmp_path / f"run={number}", errors)
        found.append(tmp_path / f"run={number}")
    return found


def test_export(runs: list[Path], tmp_path: Path) -> None:
    done = memrecon("export", runs[0], "--out", tmp_path / "paper")
    assert done.exit_code == 0, done.output
    assert f"{tmp_path / 'paper' / 'rates.tex'}" in done.stdout.splitlines()
    assert set(map(str, (tmp_path / "paper").iterdir())) == set(done.stdout.splitlines())
    refused = memrecon("export", tmp_path, "--out", tmp_path / "other")
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"memrecon: {tmp_path} is not the folder of a run")
    assert not (tmp_path / "other").exists()


def test_compare(runs: list[Path], tmp_path: Path) -> None:
    done = memrecon("compare", *runs, "--out", tmp_path / "paper")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert ["run=1", "–", "accelerated", "25.0", "25.0"] in [line.split() for line in lines]
    assert any("37.5 ± 17.7" in line for line in lines)
    assert "- run=1 and run=2 are runs of the same model." in lines
    assert str(tmp_path / "paper" / "runs.tex") in lines
    named = memrecon("compare", f"small={runs[0]}", f"large={runs[1]}")
    assert any(line.split()[:1] == ["small"] for line in named.stdout.splitlines())
    assert not any("±" in line for line in named.stdout.splitlines())
    alone = memrecon("compare", runs[0])
    assert (alone.exit_code, alone.stderr) == (2, "memrecon: give at least two runs to compare, not 1\n")
