"""What the compiler makes of the Triton kernels of halves for an H100 or H200 (sm_90), with no GPU."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from memrecon_fast.ops.halves import Sums

triton: Any = pytest.importorskip("triton", reason="Triton is not installed")
if triton.knobs.runtime.interpret:
    pytest.skip("the interpreter makes no machine code", allow_module_level=True)
ops: Any = pytest.importorskip("memrecon_fast.ops.halves.triton")
machine_code: Any = pytest.importorskip("tests.helpers.machine_code")

LINEAR = [(600, 1, 1024), (4096, 1, 12288), (64, 1, 160), (3, 1, 12)]
IMAGES = [(64, 4096, 48), (16, 64, 384), (2, 6, 4)]
NARROW = [(3, 1, 769), (5, 1, 70), (64, 4096, 3), (1, 1, 1)]


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The kernels that the operations called since would have run."""
    kernels: list[Any] = machine_code.compile_only(monkeypatch)
    return kernels


def sums_without_memory(rows: int, segments: int, segment: int) -> Sums:
    numbers = [torch.empty(shape, device="meta") for shape in ((rows, segments * segment), rows, segment, segment, 1)]
    return Sums(numbers[0], numbers[1].int(), numbers[2].int(), numbers[3], numbers[4])


def call(operation: str, rows: int, segments: int, segment: int) -> None:
    sums = sums_without_memory(rows, segments, segment)
    if operation == "split":
        ops.split(sums.sums, segment)
    else:
        getattr(ops, operation)(sums)


@pytest.mark.parametrize("shape", [*LINEAR, *IMAGES, *NARROW])
@pytest.mark.parametrize("operation", ["split", "split_sums", "finish"])
def test_registers_and_rounding(
    operation: str, shape: tuple[int, int, int], compiled: list[Any], tmp_path: Path
) -> None:
    call(operation, *shape)
    code = machine_code.disassemble(compiled.pop(), tmp_path)
    print(f"{operation:10} {shape}: {code.resources['REG']} registers, {code.accesses('LDG')}, {code.accesses('STG')}")
    assert code.resources["STACK"] == code.resources["LOCAL"] == 0
    assert code.instructions["STL"] == code.instructions["LDL"] == 0
    assert code.resources["REG"] <= (64 if shape[1] * shape[2] % 4 == 0 else 80)
    # rounded one by one, as in plain, and what is below the normal numbers stays
    assert not re.search(r"\bfma\b|\bmad\.\S*f(32|64)|\.ftz|\.approx|\.full|\bdiv\.\S*f|\brcp\.", code.ptx)
    assert "FTZ" not in code.sass
    assert code.instructions["FFMA"] == code.instructions["MUFU"] == 0


@pytest.mark.parametrize("shape", LINEAR)
def test_rows_of_four_are_moved_at_once(shape: tuple[int, int, int], compiled: list[Any], tmp_path: Path) -> None:
    """128 bits of float32, 64 of halves."""
    call("split", *shape)
    code = machine_code.disassemble(compiled.pop(), tmp_path)
    assert set(code.accesses("LDG")) == {128}
    stores = code.accesses("STG")
    assert stores == {64: stores[64], 32: 1}  # the exponent is the other one
    assert stores[64] % 3 == 0
    call("finish", *shape)
    code = machine_code.disassemble(compiled.pop(), tmp_path)
    assert set(code.accesses("STG")) == {128}
    assert code.accesses("LDG")[128] % 3 == 0  # sums, powers of two of the outputs, bias


def test_one_kernel_for_each_number_of_outputs(compiled: list[Any]) -> None:
    for rows in (1, 2, 3, 16, 600, 200_001):
        call("split_sums", rows, 1, 1024)
    assert len(set(map(id, compiled))) == 1
    for rows in (1, 3, 16):
        call("split_sums", rows, 1, 1000)
    assert len(set(map(id, compiled))) == 2
