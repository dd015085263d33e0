"""A short run of `fuzz`: in a process of its own, since a fault of memory would end it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_broken_tensors_end_no_process() -> None:
    run = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "tests.ops.fuzz", "--calls", "600", "--seed", "1"],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert run.returncode == 0, run.stdout
