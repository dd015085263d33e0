"""What the compiler makes of the accelerated solver's Triton kernels for an H100 or H200 (sm_90), with no GPU.

As tests/ops/admm/test_machine_code.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.against_plain import Buffers
from tests.helpers.against_plain_anderson import (
    ALL,
    ESTIMATE,
    ESTIMATE_MASK,
    MEASURE,
    MIX,
    OF_IMAGES,
    STOP,
    WEIGH,
    launch,
    random_buffers,
)

triton: Any = pytest.importorskip("triton", reason="Triton is not installed")
if triton.knobs.runtime.interpret:
    pytest.skip("the interpreter makes no machine code", allow_module_level=True)
ops: Any = pytest.importorskip("memrecon_fast.ops.anderson.triton")
machine_code: Any = pytest.importorskip("tests.helpers.machine_code")

WIDE = [(60, 3072), (1, 196608), (3, 12)]
NARROW = [(3, 769), (5, 770)]
# A multiprocessor has 65,536 registers: for one row of `measure`, two of `estimate`, and as many blocks of `mix` as it
# has room for; where d is no multiple of 4, for fewer.
MAX_REGISTERS = {"measure": 128, "estimate": 64, "mix": 32, "weigh": 80, "stop": 64}


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The kernels that the operations called since would have run."""
    kernels: list[Any] = machine_code.compile_only(monkeypatch)
    return kernels


@pytest.fixture
def code_of(compiled: list[Any], tmp_path: Path) -> Any:
    def code(operation: tuple[Any, ...], rows: int, d: int, places: int = 6) -> Any:
        launch(ops, operation, buffers_without_memory(rows, d, places))
        return machine_code.disassemble(compiled.pop(), tmp_path)

    return code


def buffers_without_memory(rows: int, d: int, places: int) -> Buffers:
    # What has 7 entries there has d here: no test has 7 places.
    return {
        name: torch.empty([rows, *(d if size == 7 else size for size in one.shape[1:])], dtype=one.dtype, device="meta")
        for name, one in random_buffers(1, 7, places).items()
    }


@pytest.mark.parametrize(("rows", "d"), WIDE)
@pytest.mark.parametrize("places", [6, 9])
def test_measure_moves_128_bits_at_once(rows: int, d: int, places: int, code_of: Any) -> None:
    code = code_of(MEASURE, rows, d, places)
    # s, v, y and the residuals before. The rest: the status, 8 bits; the mask of four pixels, two coefficients, head
    # and filled.
    assert code.accesses("LDG") == {128: 3 + places - 1, 8: 1, 32: 5}
    # The rest: a row and a column of products.
    assert code.accesses("STG") == {128: 2, 64: 2 * places}


@pytest.mark.parametrize(("rows", "d"), WIDE)
@pytest.mark.parametrize("operation", [ESTIMATE, ESTIMATE_MASK])
def test_estimate_moves_128_bits_at_once(operation: tuple[Any, ...], rows: int, d: int, code_of: Any) -> None:
    code = code_of(operation, rows, d)
    loads, stores = code.accesses("LDG"), code.accesses("STG")
    # s, v, y and x, and then copies of x and of the mask of four pixels, in a loop that is unrolled.
    copies = stores[128] - 1
    assert copies >= 1
    assert loads == {128: 4 + copies, 8: 1, 32: 1 + copies + 3}  # the rest: the status; coefficients and the best score
    # The rest: changed; residual, score and best score, and the mask where it is estimated.
    assert stores == {128: 1 + copies, 8: 1, 32: copies + 3 + (operation == ESTIMATE_MASK)}


@pytest.mark.parametrize(("rows", "d"), WIDE)
@pytest.mark.parametrize("places", [2, 6, 33])
def test_mix_moves_128_bits_at_once(rows: int, d: int, places: int, code_of: Any) -> None:
    code = code_of(MIX, rows, d, places)
    assert code.accesses("LDG") == {128: 1 + places, 8: 1, 32: 1 + places}  # the rest: the status; base and weights
    assert code.accesses("STG") == {128: 1}


@pytest.mark.parametrize("operation", ALL)
def test_every_operation_is_rounded(operation: tuple[Any, ...], code_of: Any) -> None:
    for rows, d in [*WIDE, *NARROW]:
        code = code_of(operation, rows, d)
        assert not re.search(r"\bfma\b|\bmad\.\S*f(32|64)|\.ftz|\.approx|\.full|\brcp\.", code.ptx)
        assert not re.search(r"\b[DF](ADD|MUL|FMA)\S*\.FTZ", code.sass)
        rounded = {"div.rn.f64", "sqrt.rn.f64"} if operation == WEIGH else set()
        assert set(re.findall(r"\b(?:div|sqrt)\.\S*f\d+", code.ptx)) == rounded
        if operation != WEIGH:  # of fused operations a quotient and a root are made
            assert code.instructions["DFMA"] == code.instructions["FFMA"] == 0


@pytest.mark.parametrize("places", [1, 6, 9])
def test_registers(places: int, code_of: Any) -> None:
    for operation in ALL:
        for rows, d in [*WIDE, *NARROW]:
            code = code_of(operation, rows, d, places)
            print(f"{operation[0]:9}{rows:4} x {d:<7}q = {places:<3}{code.resources['REG']:4} registers")
            assert_no_spills(code)
            narrow = d % 4 and operation == MIX
            assert code.resources["REG"] <= (48 if narrow else MAX_REGISTERS[operation[0]])


@pytest.mark.parametrize("operation", [MEASURE, MIX])
def test_no_spills_with_the_most_places(operation: tuple[Any, ...], code_of: Any) -> None:
    assert_no_spills(code_of(operation, 60, 3072, 33))


def assert_no_spills(code: Any) -> None:
    assert code.resources["STACK"] == code.resources["LOCAL"] == 0
    assert code.instructions["STL"] == code.instructions["LDL"] == 0


def test_threads_of_a_row_exchange_sums_alone(compiled: list[Any]) -> None:
    # Were pixels exchanged, one thread could overwrite what another has yet to read.
    for rows, d in [*WIDE, *NARROW]:
        for operation in (MEASURE, ESTIMATE, ESTIMATE_MASK):
            for places in (6, 9):
                launch(ops, operation, buffers_without_memory(rows, d, places))
                assert compiled[-1].metadata.shared <= 16 * 8  # one float64 for each warp
                assert "ttg.convert_layout" not in compiled[-1].asm["ttgir"]


def test_no_more_kernels_than_documented(compiled: list[Any]) -> None:
    for operation in OF_IMAGES:
        for d in (12288, 12289):
            compiled.clear()
            for rows in (1, 2, 3, 16, 600, 200_001):
                launch(ops, operation, buffers_without_memory(rows, d, 6))
            assert len(set(map(id, compiled))) == 1
    for operation in (WEIGH, STOP):
        compiled.clear()
        for rows in (1, 2, 16, 600):
            buffers = random_buffers(rows, 1, 6)
            for shift in (0, 1):
                shifted = {name: torch.cat([one[:shift], one])[shift:] for name, one in buffers.items()}
                for number in (1, 2, 16, 2**31 - 1):
                    launch(ops, (operation[0], *(type(one)(number) for one in operation[1:])), shifted)
        assert len(set(map(id, compiled))) == 1
