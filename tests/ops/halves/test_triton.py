"""The Triton kernels, interpreted on the CPU, against ops/halves/plain.py: all of halves_triton_interpreted.py."""

from __future__ import annotations

import pytest

from tests.helpers.interpreter import run_interpreted

pytest.importorskip("triton", reason="Triton is not installed")


def test_interpreted() -> None:
    run_interpreted("halves_triton_interpreted.py")
