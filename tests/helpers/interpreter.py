"""Tests that need Triton's interpreter: Triton decides on import whether it compiles or interprets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CANNOT = 77
"""The exit status where this Triton's interpreter does not work with this numpy; the output says why in one line."""
RUN = f"""
import sys
from memrecon_fast.ops.launch import why_not_interpreted
if why_not := why_not_interpreted():
    print(why_not)
    sys.exit({CANNOT})
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def run_interpreted(tests: str) -> None:
    """Run this file of tests, of this folder, in a process of its own, where Triton's interpreter runs the kernels.

    The test is passed over, with the reason, where there is no interpreter that works.
    """
    run = subprocess.run(
        [sys.executable, "-c", RUN, "-q", "-p", "no:cacheprovider", "--color=no", str(HERE / tests)],
        cwd=HERE.parents[1],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if run.returncode == CANNOT:
        pytest.skip(run.stdout.strip())
    assert run.returncode == 0, run.stdout
