"""The passes in Triton: interpreted on the CPU, and compiled for an H100 or H200 without one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from memrecon_fast.reconstruction.passes import Kinked
from memrecon_fast.reconstruction.rows import Rows
from memrecon_fast.reconstruction.weights import Drawn
from tests.helpers.interpreter import run_interpreted

triton: Any = pytest.importorskip("triton", reason="Triton is not installed")
META = torch.device("meta")


def test_interpreted() -> None:
    run_interpreted("passes_interpreted.py")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    if triton.knobs.runtime.interpret:
        pytest.skip("the interpreter makes no machine code")
    machine_code: Any = pytest.importorskip("tests.helpers.machine_code")
    kernels: list[Any] = machine_code.compile_only(monkeypatch)
    return kernels


def passes(p: int, d: int, n: int, drawn: bool, rectified: bool = False) -> None:
    """Both, and the numbers alone, on tensors without memory."""
    from memrecon_fast.reconstruction.passes import triton as ours

    weights = Drawn(p, d, 2**64 - 3) if drawn else torch.empty(p, d, device=META)
    rows = Rows(weights, torch.empty(p, dtype=torch.float64, device=META))
    columns, factors = torch.empty(d, n + 1, dtype=torch.float64), torch.ones(n + 1, dtype=torch.float64)
    _, sides, _ = ours.linearise(rows, Kinked(columns, factors, rectified, not rectified))
    ours.product(rows, factors, sides, columns)
    if drawn:
        ours.draw(Drawn(p, d, 2**64 - 3), META)


@pytest.mark.parametrize(
    ("p", "d", "n", "drawn", "rectified"),
    [(300_000, 192, 20, False, False), (300_000, 192, 20, True, True), (3_000_000, 3072, 100, False, False)],
)
def test_they_compile_without_spilled_registers(
    p: int, d: int, n: int, drawn: bool, rectified: bool, compiled: list[Any], tmp_path: Path
) -> None:
    machine_code: Any = pytest.importorskip("tests.helpers.machine_code")
    passes(p, d, n, drawn, rectified)
    assert len(compiled) == (3 if drawn else 2)
    for kernel in compiled:
        code = machine_code.disassemble(kernel, tmp_path)
        print(f"{kernel.metadata.name:11} n = {n}: {code.resources['REG']} registers, {kernel.metadata.shared} bytes")
        assert code.resources["STACK"] == code.resources["LOCAL"] == 0
        assert "FTZ" not in code.sass  # denormal numbers stay
        assert (code.instructions["DMMA"] > 0) == (kernel.metadata.name != "_draw")  # float64, on tensor cores
        if kernel.metadata.name == "_draw":  # rounded one by one: else the bits would be others than on the CPU
            assert code.instructions["FFMA"] == 0
            assert not re.search(r"\bfma\.|\.approx|\.ftz", code.ptx)


def test_one_kernel_for_all_sizes_of_v(compiled: list[Any]) -> None:
    for p, d in ((1, 1), (16, 16), (1000, 192), (2_000_000, 3072), (999, 17)):  # the last but one: 6·10⁹ numbers
        passes(p, d, 20, drawn=False)
    assert len(set(map(id, compiled))) == 2
