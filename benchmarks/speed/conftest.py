"""The benchmarks that pytest runs, `ops` and `recovery`: their options, and where the results go.

    python -m benchmarks ops --results benchmarks/results/cpu-ops.json

`--quick` makes one round of each, to see that they work. Threads: those of OMP_NUM_THREADS, else 1.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.measuring import Compare, lines, where

ROWS = pytest.StashKey[list[dict[str, Any]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--results", type=Path, help="write the results to this JSON file")
    parser.addoption("--quick", action="store_true", help="one round of each benchmark")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


@pytest.fixture
def compare(benchmark: BenchmarkFixture, pytestconfig: pytest.Config) -> Compare:
    return Compare(benchmark, pytestconfig.stash[ROWS], pytestconfig.getoption("quick"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    path: Path | None = session.config.getoption("results")
    rows = session.config.stash[ROWS]
    if path is not None and rows:
        path.write_text(json.dumps({"where": where(), "rows": rows}, indent=1) + "\n")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in lines(config.stash[ROWS]):
        terminalreporter.write_line(line)
