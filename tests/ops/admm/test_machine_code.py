"""What the compiler makes of the Triton kernels for an H100 or H200 (sm_90), with no GPU: widths, rounding, registers.

The operations of ops/admm/triton.py run up to the launch, which here only compiles.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.against_plain import (
    CLOSE_AS_IT_IS,
    CLOSE_ESTIMATING_MASK,
    MEAN_SQUARES,
    OF_IMAGES,
    Buffers,
    launch,
    random_buffers,
)

triton: Any = pytest.importorskip("triton", reason="Triton is not installed")
if triton.knobs.runtime.interpret:
    pytest.skip("the interpreter makes no machine code", allow_module_level=True)
ops: Any = pytest.importorskip("memrecon_fast.ops.admm.triton")
OPTIONS: Any = pytest.importorskip("memrecon_fast.ops.launch").OPTIONS
machine_code: Any = pytest.importorskip("tests.helpers.machine_code")

WIDE = [(64, 784), (60, 3072), (1, 196608), (3, 12)]
ODD = [(16, 769), (2, 70)]  # d is no multiple of 4, rows · d is
NARROW = [(3, 769), (1, 12289), (5, 70), (1, 1)]
STOP = ("stop", 1e-9, 3, 200, 2)
# A multiprocessor has 65,536 registers and room for 2048 threads. With 32, `start` and `step` fill it: they are all
# latency. With 64, it holds two rows of `close` or `advance`, each of 512 threads and some 34 KB on the way to them.
MAX_REGISTERS = {"start": 32, "step": 32, "close": 64, "advance": 64, "mean_squares": 64, "stop": 64}


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The kernels that the operations called since would have run."""
    kernels: list[Any] = machine_code.compile_only(monkeypatch)
    return kernels


def buffers_without_memory(rows: int, d: int) -> Buffers:
    few = random_buffers(1, 1).items()
    sizes = {name: (rows, 3) if name == "coefficients" else (rows, d)[: one.dim()] for name, one in few}
    return {name: torch.empty(sizes[name], dtype=one.dtype, device="meta") for name, one in few}


def call(operation: tuple[Any, ...], buffers: Buffers) -> None:
    launch(ops, operation, buffers)


@pytest.fixture
def code_of(compiled: list[Any], tmp_path: Path) -> Any:
    def code(operation: tuple[Any, ...], rows: int, d: int) -> Any:
        call(operation, buffers_without_memory(rows, d))
        return machine_code.disassemble(compiled.pop(), tmp_path)

    return code


@pytest.mark.parametrize(("rows", "d"), [*WIDE, *ODD])
def test_start_and_step_move_128_bits_at_once(rows: int, d: int, code_of: Any) -> None:
    for operation, images, coefficients in (("start", 1, 1), ("step", 3, 2)):
        code = code_of((operation,), rows, d)
        # The rest: the mask of four pixels, 32 bits; and coefficients, for each of the four.
        assert code.accesses("LDG") == {128: images, 32: 1 + 4 * coefficients}
        assert code.accesses("STG") == {128: 1}
        assert code.instructions["BAR"] == code.instructions["STS"] == 0  # nothing goes to other threads


@pytest.mark.parametrize(("rows", "d"), WIDE)
def test_close_and_advance_move_128_bits_at_once(rows: int, d: int, code_of: Any) -> None:
    for operation, read, written in ((CLOSE_AS_IT_IS, 4, 2), (CLOSE_ESTIMATING_MASK, 4, 2), (("advance",), 2, 1)):
        code = code_of(operation, rows, d)
        loads, stores = code.accesses("LDG"), code.accesses("STG")
        copies = stores[128] // written  # of the loop's body, unrolled
        assert copies >= 1
        close, estimating = operation[0] == "close", operation == CLOSE_ESTIMATING_MASK
        # The rest: the status and renew, 8 bits each; mask and anchor of four pixels, 32 bits; two coefficients.
        masks = copies + (copies if estimating else 0)
        assert loads == {128: read * copies, 8: 1 + estimating} | ({32: masks + 2} if close else {})
        # The rest: the residual, 32 bits; settled and recurs, 8 bits each; the mask, and the anchor if renewed.
        masks = 2 * copies if estimating else 0
        assert stores == {128: written * copies, 32: 1 + masks} | ({8: 2} if close else {})


@pytest.mark.parametrize(("rows", "d"), WIDE)
def test_mean_squares_moves_128_bits_at_once(rows: int, d: int, code_of: Any) -> None:
    code = code_of(MEAN_SQUARES, rows, d)
    loads = code.accesses("LDG")
    assert loads == {128: loads[128]}
    assert loads[128] % 2 == 0
    assert code.accesses("STG") == {32: 1}


@pytest.mark.parametrize(("rows", "d"), [*WIDE, *ODD, *NARROW])
@pytest.mark.parametrize("operation", OF_IMAGES)
def test_every_operation_is_rounded(operation: tuple[Any, ...], rows: int, d: int, code_of: Any) -> None:
    code = code_of(operation, rows, d)
    assert not re.search(r"\bfma\b|\bmad\.\S*f(32|64)|\.ftz|\.approx|\.full|\bdiv\.|\brcp\.", code.ptx)
    assert "FTZ" not in code.sass
    assert code.instructions["FFMA"] == code.instructions["DFMA"] == code.instructions["MUFU"] == 0
    if operation[0] in ("start", "step"):
        assert code.instructions["FMUL"] == {"start": 4, "step": 8}[operation[0]]
        assert code.instructions["FADD"] == {"start": 0, "step": 8}[operation[0]]


def test_without_the_option_it_would_not_be(monkeypatch: pytest.MonkeyPatch, code_of: Any) -> None:
    monkeypatch.setitem(OPTIONS, "enable_fp_fusion", True)
    assert code_of(("step",), 64, 3072).instructions["FFMA"] == 4


@pytest.mark.parametrize(("rows", "d"), [*WIDE, *ODD, *NARROW])
def test_registers(rows: int, d: int, code_of: Any) -> None:
    for operation in [*OF_IMAGES, STOP]:
        code = code_of(operation, rows, d)
        print(f"{operation[0]:8}{rows:4} x {d:<7}{code.resources['REG']:3} registers")
        assert code.resources["STACK"] == code.resources["LOCAL"] == 0
        assert code.instructions["STL"] == code.instructions["LDL"] == 0
        narrow = d % 4 and operation[0] in ("close", "advance", "mean_squares")
        assert code.resources["REG"] <= (80 if narrow else MAX_REGISTERS[operation[0]])


def test_threads_of_a_row_exchange_sums_alone(compiled: list[Any]) -> None:
    # Were pixels exchanged, one thread could overwrite what another has yet to read.
    for rows, d in [*WIDE, *ODD, *NARROW]:
        for operation in OF_IMAGES:
            call(operation, buffers_without_memory(rows, d))
            assert compiled[-1].metadata.shared <= 16 * 8  # one float64 for each warp
            assert "ttg.convert_layout" not in compiled[-1].asm["ttgir"]


def test_no_more_kernels_than_documented(compiled: list[Any]) -> None:
    for operation in OF_IMAGES:
        compiled.clear()
        for rows in (1, 2, 3, 16, 64, 600, 200_001):  # the last: more than 2³¹ pixels
            call(operation, buffers_without_memory(rows, 12288))
        assert len(set(map(id, compiled))) == 1
        compiled.clear()
        for rows in (4, 64, 200_004, 1, 3, 7, 200_001, 2, 6, 200_002):
            call(operation, buffers_without_memory(rows, 12289))
        flat = operation[0] in ("start", "step")
        assert len(set(map(id, compiled))) == (3 if flat else 1)
        if not flat:
            compiled.clear()
            for d in (1021, 2047, 4099, 12289, 2**30 - 1):
                call(operation, buffers_without_memory(1, d))
            assert len(set(map(id, compiled))) == 2  # the first takes half as many threads as the rest


def test_one_stop_for_all_counters_and_alignments(compiled: list[Any]) -> None:
    for rows in (1, 2, 16, 600):
        buffers = random_buffers(rows, 1)
        for shift in (0, 1):
            shifted = {name: torch.cat([one[:shift], one])[shift:] for name, one in buffers.items() if one.dim() == 1}
            for number in (1, 2, 16, 2**31 - 1):
                call(("stop", float(number), number, number, number), shifted)
    assert len(set(map(id, compiled))) == 1
