"""The Triton kernels, interpreted on the CPU, against ops/plain.py: all of triton_interpreted.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interpreter import run_interpreted

pytest.importorskip("triton", reason="Triton is not installed")


def test_interpreted() -> None:
    run_interpreted(Path(__file__).with_name("triton_interpreted.py"))
