"""The accelerated solver's Triton kernels, interpreted on the CPU, against its plain.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interpreter import run_interpreted

pytest.importorskip("triton", reason="Triton is not installed")


def test_interpreted() -> None:
    run_interpreted(Path(__file__).with_name("anderson_triton_interpreted.py"))
