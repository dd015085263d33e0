"""The Triton kernels, interpreted on the CPU, against ops/admm/plain.py: all of triton_interpreted.py."""

from __future__ import annotations

import pytest

from tests.helpers.interpreter import run_interpreted

pytest.importorskip("triton", reason="Triton is not installed")


def test_interpreted() -> None:
    run_interpreted("triton_interpreted.py")
