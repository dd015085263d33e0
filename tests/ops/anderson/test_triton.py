"""The accelerated solver's Triton kernels, interpreted on the CPU, against its plain.py."""

from __future__ import annotations

import pytest

from tests.helpers.interpreter import run_interpreted

pytest.importorskip("triton", reason="Triton is not installed")


def test_interpreted() -> None:
    run_interpreted("anderson_triton_interpreted.py")
