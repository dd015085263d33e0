"""The passes of the even model in Triton: interpreted on the CPU, and compiled for an H100 or H200 without one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from memrecon_fast.reconstruction.even import Even
from memrecon_fast.reconstruction.rows import Rows
from memrecon_fast.reconstruction.weights import Drawn
from tests.helpers.interpreter import run_interpreted

triton: Any = pytest.importorskip("triton", reason="Triton is not installed")
META = torch.device("meta")


def test_interpreted() -> None:
    run_interpreted("even_triton_interpreted.py")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    if triton.knobs.runtime.interpret:
        pytest.skip("the interpreter makes no machine code")
    machine_code: Any = pytest.importorskip("tests.helpers.machine_code")
    kernels: list[Any] = machine_code.compile_only(monkeypatch)
    return kernels


def passes(p: int, d: int, n: int, drawn: bool) -> None:
    """Both, and the numbers alone, on tensors without memory."""
    from memrecon_fast.reconstruction import even_triton

    weights = Drawn(p, d, 2**64 - 3) if drawn else torch.empty(p, d, device=META)
    rows = Rows(weights, torch.empty(p, dtype=torch.float64, device=META))
    images, offset = torch.empty(n, d, dtype=torch.float64), torch.empty(d, dtype=torch.float64)
    here = even_triton.linearise(rows, Even(images, torch.ones(n).double(), offset))
    even_triton.product(here, torch.empty(d, n + 1, dtype=torch.float64))
    if drawn:
        even_triton.draw(Drawn(p, d, 2**64 - 3), META)


@pytest.mark.parametrize(
    ("p", "d", "n", "drawn"),
    [(300_000, 192, 20, False), (300_000, 192, 20, True), (3_000_000, 3072, 100, False)],
)
def test_they_compile_without_spilled_registers(
    p: int, d: int, n: int, drawn: bool, compiled: list[Any], tmp_path: Path
) -> None:
    machine_code: Any = pytest.importorskip("tests.helpers.machine_code")
    passes(p, d, n, drawn)
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
