"""`plain` for CUDA devices, in Triton: each operation is one kernel, with a block of threads for each row.

Splitting reads a row twice, for its largest number and for the halves; the second time it comes from the cache. Between
two products of a net there is one kernel: scale, bias, activation and the next split.

All is that of `plain`, bit for bit: products and sums are rounded one by one. Kernels are compiled when they are first
used, for each number of outputs or segment, and for each combination of bias and activation.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from memrecon_fast.ops import halves
from memrecon_fast.ops.halves import Halves, Sums
from memrecon_fast.ops.launch import launch_rows

_MAX_EXPONENT = tl.constexpr(halves.MAX_EXPONENT)
_TOP_BIASED = tl.constexpr(halves.TOP + 127)
_PER_ROW = ["exponents", "found_exponents", "slope"]


def split(numbers: Tensor, segment: int) -> Halves:
    """`plain.split`."""
    return _launch_split((numbers.contiguous(),) * 5, segment, {"SCALED": False, "BIAS": False, "SLOPE": False})


def split_sums(sums: Sums) -> Halves:
    """`plain.split_sums`."""
    return _launch_split(_arguments(sums), sums.outputs, _constants(sums))


def finish(sums: Sums) -> Tensor:
    """`plain.finish`."""
    rows, d = sums.sums.shape
    found = torch.empty_like(sums.sums)
    launch_rows(_finish, rows, d, found, *_arguments(sums), SEGMENT=sums.outputs, **_constants(sums))
    return found


def _launch_split(arguments: tuple[Tensor, ...], segment: int, constants: dict[str, bool]) -> Halves:
    rows, d = arguments[0].shape
    device = arguments[0].device
    values = torch.empty(rows, 3 * d, dtype=torch.float16, device=device)
    exponents = torch.empty(rows, dtype=torch.int32, device=device)
    launch_rows(_split, rows, d, values, exponents, *arguments, SEGMENT=segment, **constants)
    return Halves(values, exponents)


def _arguments(sums: Sums) -> tuple[Tensor, ...]:
    """What is not there, and not read, is something else."""
    bias = sums.sums if sums.bias is None else sums.bias
    slope = sums.sums if sums.slope is None else sums.slope
    return sums.sums, sums.exponents, sums.of_outputs, bias, slope


def _constants(sums: Sums) -> dict[str, bool]:
    return {"SCALED": True, "BIAS": sums.bias is not None, "SLOPE": sums.slope is not None}


@triton.jit(do_not_specialize=["units"], do_not_specialize_on_alignment=_PER_ROW)
def _split(
    values: tl.tensor,
    found_exponents: tl.tensor,
    sums: tl.tensor,
    exponents: tl.tensor,
    of_outputs: tl.tensor,
    bias: tl.tensor,
    slope: tl.tensor,
    units: tl.int32,
    UNIT: tl.constexpr,
    BLOCK: tl.constexpr,
    SEGMENT: tl.constexpr,
    SCALED: tl.constexpr,
    BIAS: tl.constexpr,
    SLOPE: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    d = units * UNIT
    lane = tl.arange(0, BLOCK)
    largest = tl.zeros([BLOCK], tl.int32)
    for first in range(0, d, BLOCK):
        found = _finished(sums, exponents, of_outputs, bias, slope, row, d, first, lane, SEGMENT, SCALED, BIAS, SLOPE)
        largest = tl.maximum(largest, found.to(tl.int32, bitcast=True) & 0x7FFFFFFF)
    exponent = tl.minimum(_TOP_BIASED - (tl.max(largest, axis=0) >> 23), _MAX_EXPONENT)
    tl.store(found_exponents + row, exponent)
    factor = _power_of_two(exponent)
    for first in range(0, d, BLOCK):
        found = _finished(sums, exponents, of_outputs, bias, slope, row, d, first, lane, SEGMENT, SCALED, BIAS, SLOPE)
        scaled = found * factor
        high = scaled.to(tl.float16)
        low = (scaled - high.to(tl.float32)).to(tl.float16)
        place = first + lane
        inside = place < d
        at = values + row * 3 * d + place + place // SEGMENT * (2 * SEGMENT)
        tl.store(at, high, mask=inside)
        tl.store(at + SEGMENT, high, mask=inside)
        tl.store(at + 2 * SEGMENT, low, mask=inside)


@triton.jit(do_not_specialize=["units"], do_not_specialize_on_alignment=_PER_ROW)
def _finish(
    found: tl.tensor,
    sums: tl.tensor,
    exponents: tl.tensor,
    of_outputs: tl.tensor,
    bias: tl.tensor,
    slope: tl.tensor,
    units: tl.int32,
    UNIT: tl.constexpr,
    BLOCK: tl.constexpr,
    SEGMENT: tl.constexpr,
    SCALED: tl.constexpr,
    BIAS: tl.constexpr,
    SLOPE: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    d = units * UNIT
    lane = tl.arange(0, BLOCK)
    for first in range(0, d, BLOCK):
        z = _finished(sums, exponents, of_outputs, bias, slope, row, d, first, lane, SEGMENT, SCALED, BIAS, SLOPE)
        tl.store(found + row * d + first + lane, z, mask=first + lane < d)


@triton.jit
def _finished(
    sums: tl.tensor,
    exponents: tl.tensor,
    of_outputs: tl.tensor,
    bias: tl.tensor,
    slope: tl.tensor,
    row: tl.tensor,
    d: tl.tensor,
    first: tl.tensor,
    lane: tl.tensor,
    SEGMENT: tl.constexpr,
    SCALED: tl.constexpr,
    BIAS: tl.constexpr,
    SLOPE: tl.constexpr,
) -> tl.tensor:
    """`plain.finish` of a block of a row; 0 outside."""
    place = first + lane
    inside = place < d
    found = tl.load(sums + row * d + place, mask=inside, other=0.0)
    output = place % SEGMENT
    if SCALED:
        exponent = -(tl.load(exponents + row) + tl.load(of_outputs + output, mask=inside, other=0))
        half = exponent >> 1
        found = found * _power_of_two(half) * _power_of_two(exponent - half)
    if BIAS:
        found = found + tl.load(bias + output, mask=inside, other=0.0)
    if SLOPE:
        factor = tl.load(slope + 0 * lane)  # the interpreter cannot combine a single truth value with many
        below = tl.where((factor == 0.0) & (found <= 0.0), 0.0, found * factor)
        found = tl.where(found > 0.0, found, below)
    return tl.where(inside, found, 0.0)


@triton.jit
def _power_of_two(exponent: tl.tensor) -> tl.tensor:
    """`plain.power_of_two`."""
    return ((exponent + 127) << 23).to(tl.float32, bitcast=True)
