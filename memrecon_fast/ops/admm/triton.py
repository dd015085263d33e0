"""`plain` for CUDA devices, in Triton: one kernel, one pass over memory, for each operation.

`start` and `step` treat the buffers as one long row of rows · d pixels, and move 128 bits at once where rows · d is a
multiple of 4, whatever d is. `close` and `advance` give each row a block of threads, and move 128 bits at once where d
is a multiple of 4. Elsewhere it is 64 bits for a multiple of 2, and 32.

s, x, mask and settled are those of `plain`, bit for bit: products and sums are rounded one by one (`enable_fp_fusion`
is off), and nothing is divided. The squares in `residual` are summed in float64, in an order that d alone decides: the
same in every run and every batch, within one unit in the last place of `plain`.

Kernels are compiled when they are first used: `start` and `step` for each d, and for rows · d a multiple of 4, of 2 or
of 1; `close` and `advance` for d a multiple of 4, of 2 or of 1, for each size of a row's block of threads, and for each
value of `estimate_mask`. Nothing else makes a new one: what ran once can be captured in a CUDA graph.

If the environment variable TRITON_INTERPRET is 1 when this module is imported, Triton's interpreter runs the kernels on
the CPU instead.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from memrecon_fast import results
from memrecon_fast.ops.checks import check_buffers

MAX_PIXELS = 2**30
"""In a row: a pixel's position in its row is a 32-bit integer."""
INTERPRETED = bool(triton.knobs.runtime.interpret)
DEVICE_TYPE = "cpu" if INTERPRETED else "cuda"
ALIGNMENT = 16
"""Of the buffers with pixels, in bytes: what is moved at once."""

# Each thread has four neighbouring pixels: 128 bits of float32 and 32 of the mask. With more, Triton would give the
# mask to other threads than the images, and shuffle it through shared memory. Latency is hidden by many threads
# instead: the kernels take few enough registers to fill a multiprocessor with them.
PIXELS_PER_WARP = 4 * 32
FLAT_WARPS = 4
MAX_ROW_WARPS = 16  # of the one block of threads that a row has: a few rows, too, should keep the memory busy
_MAX_ROW_REGISTERS = {4: 64, 2: 80, 1: 80}  # of a thread: two blocks of 64 fill a multiprocessor; with more, one fits
JUDGE_ROWS = 32  # to one warp

OPTIONS = {"enable_fp_fusion": False, "num_stages": 1}
"""Of every kernel. Without the first a product and a sum may become one fused operation, which rounds once."""

RUNNING = tl.constexpr(results.RUNNING)
CONVERGED = tl.constexpr(int(results.Status.CONVERGED))
MAX_ITERATIONS = tl.constexpr(int(results.Status.MAX_ITERATIONS))
STALLED = tl.constexpr(int(results.Status.STALLED))
DIVERGED = tl.constexpr(int(results.Status.DIVERGED))

PER_ROW = [
    *("coefficients", "residual", "settled", "recurs", "renew", "status"),
    *("iterations", "blocks", "below", "anchored", "period"),
]
"""These are read number by number: how they are aligned must not make a new kernel. All others are [rows, d]."""


def start(s: Tensor, y: Tensor, mask: Tensor, coefficients: Tensor) -> None:
    """`plain.start`."""
    _, d = check("s", s=s, y=y, mask=mask, coefficients=coefficients)
    _launch_flat(_start, d, s, y, mask, coefficients)


def step(s: Tensor, v: Tensor, y: Tensor, mask: Tensor, coefficients: Tensor) -> None:
    """`plain.step`."""
    _, d = check("s", s=s, v=v, y=y, mask=mask, coefficients=coefficients)
    _launch_flat(_step, d, s, v, y, mask, coefficients)


def close(
    s: Tensor,
    v: Tensor,
    y: Tensor,
    mask: Tensor,
    anchor: Tensor,
    x: Tensor,
    residual: Tensor,
    settled: Tensor,
    recurs: Tensor,
    renew: Tensor,
    status: Tensor,
    coefficients: Tensor,
    estimate_mask: bool,
) -> None:
    """`plain.close`."""
    rows, d = check(
        *("s", "mask", "anchor", "x", "residual", "settled", "recurs"),
        s=s,
        v=v,
        y=y,
        mask=mask,
        anchor=anchor,
        x=x,
        residual=residual,
        settled=settled,
        recurs=recurs,
        renew=renew,
        status=status,
        coefficients=coefficients,
    )
    buffers = (s, v, y, mask, anchor, x, residual, settled, recurs, renew, status, coefficients)
    launch_rows(_close, rows, d, *buffers, share_of(d), ESTIMATE_MASK=bool(estimate_mask))


def advance(x: Tensor, v: Tensor, residual: Tensor, status: Tensor) -> None:
    """`plain.advance`."""
    rows, d = check("x", "residual", x=x, v=v, residual=residual, status=status)
    launch_rows(_advance, rows, d, x, v, residual, status, share_of(d))


def judge(
    residual: Tensor,
    settled: Tensor,
    recurs: Tensor,
    renew: Tensor,
    iterations: Tensor,
    blocks: Tensor,
    below: Tensor,
    anchored: Tensor,
    period: Tensor,
    status: Tensor,
    tolerance: float,
    patience: int,
    limit: int,
    first_comparison: int,
) -> None:
    """`plain.judge`."""
    rows, _ = check(
        *("residual", "renew", "iterations", "blocks", "below", "anchored", "period", "status"),
        residual=residual,
        settled=settled,
        recurs=recurs,
        renew=renew,
        iterations=iterations,
        blocks=blocks,
        below=below,
        anchored=anchored,
        period=period,
        status=status,
    )
    buffers = (residual, settled, recurs, renew, iterations, blocks, below, anchored, period, status)
    # As torch rounds it to compare it with a float32: the interpreter would not.
    numbers = (ctypes.c_float(tolerance).value, patience, limit, first_comparison)
    launch(_judge, triton.cdiv(rows, JUDGE_ROWS), *buffers, *numbers, rows, BLOCK=JUDGE_ROWS, num_warps=1)


@triton.jit(do_not_specialize=["units"], do_not_specialize_on_alignment=PER_ROW)
def _start(
    s: tl.tensor,
    y: tl.tensor,
    mask: tl.tensor,
    coefficients: tl.tensor,
    units: tl.int64,
    UNIT: tl.constexpr,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    first = tl.program_id(0).to(tl.int64) * BLOCK
    lane = tl.arange(0, BLOCK)
    inside = lane < units * UNIT - first
    kept = tl.load(mask + first + lane, mask=inside, other=False)
    image = tl.load(y + first + lane, mask=inside, other=0.0)
    weight = tl.load(_coefficients_of_pixels(coefficients, first, lane, D) + 2, mask=inside, other=0.0)
    tl.store(s + first + lane, tl.where(kept, image * weight, 0.0), mask=inside)


@triton.jit(do_not_specialize=["units"], do_not_specialize_on_alignment=PER_ROW)
def _step(
    s: tl.tensor,
    v: tl.tensor,
    y: tl.tensor,
    mask: tl.tensor,
    coefficients: tl.tensor,
    units: tl.int64,
    UNIT: tl.constexpr,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    first = tl.program_id(0).to(tl.int64) * BLOCK
    lane = tl.arange(0, BLOCK)
    inside = lane < units * UNIT - first
    kept = tl.load(mask + first + lane, mask=inside, other=False)
    image = tl.load(y + first + lane, mask=inside, other=0.0)
    entered = tl.load(s + first + lane, mask=inside, other=0.0)
    left = tl.load(v + first + lane, mask=inside, other=0.0)
    of_pixels = _coefficients_of_pixels(coefficients, first, lane, D)
    c = tl.load(of_pixels + 1, mask=inside, other=0.0)
    weight = tl.load(of_pixels + 2, mask=inside, other=0.0)
    tl.store(s + first + lane, next_input(entered, left, image, kept, c, weight), mask=inside)


@triton.jit(do_not_specialize=["units"], do_not_specialize_on_alignment=PER_ROW)
def _close(
    s: tl.tensor,
    v: tl.tensor,
    y: tl.tensor,
    mask: tl.tensor,
    anchor: tl.tensor,
    x: tl.tensor,
    residual: tl.tensor,
    settled: tl.tensor,
    recurs: tl.tensor,
    renew: tl.tensor,
    status: tl.tensor,
    coefficients: tl.tensor,
    share: tl.float64,
    units: tl.int32,
    UNIT: tl.constexpr,
    BLOCK: tl.constexpr,
    ESTIMATE_MASK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    if tl.load(status + row) != RUNNING:
        return
    g = tl.load(coefficients + 3 * row)
    weight = tl.load(coefficients + 3 * row + 2)
    renewed = tl.load(renew + row) != 0
    d = units * UNIT
    lane = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float64)
    differs = tl.zeros([BLOCK], tl.int32)  # 1: from the mask before, 2: from the anchor; together they need less room
    for first in range(0, d, BLOCK):
        here = row * d + first
        inside = lane < d - first
        # Outside, all is 0 and erased: ξ = x there, and nothing is added to the sum.
        kept = tl.load(mask + here + lane, mask=inside, other=False)
        image = tl.load(y + here + lane, mask=inside, other=0.0)
        entered = tl.load(s + here + lane, mask=inside, other=0.0)
        left = tl.load(v + here + lane, mask=inside, other=0.0)
        before = tl.load(x + here + lane, mask=inside, other=0.0)
        xi = output(entered, left, image, kept, g, weight)
        difference = (xi - before).to(tl.float64)
        total += difference * difference
        tl.store(x + here + lane, xi, mask=inside)
        if ESTIMATE_MASK:
            erased = is_erased(xi, image)
            then = kept
            if renewed:
                tl.store(anchor + here + lane, kept, mask=inside)
            else:
                then = tl.load(anchor + here + lane, mask=inside, other=False)
            differs |= tl.where(inside & (erased == kept), 1, 0) | tl.where(inside & (erased == then), 2, 0)
            kept = ~erased
            tl.store(mask + here + lane, kept, mask=inside)
        tl.store(s + here + lane, tl.where(kept, image * weight, 0.0), mask=inside)
    tl.store(residual + row, (tl.sum(total, axis=0) * share).to(tl.float32))
    tl.store(settled + row, tl.sum(differs & 1, axis=0) == 0)
    tl.store(recurs + row, (tl.sum(differs & 2, axis=0) == 0) if ESTIMATE_MASK else False)


@triton.jit(do_not_specialize=["units"], do_not_specialize_on_alignment=PER_ROW)
def _advance(
    x: tl.tensor,
    v: tl.tensor,
    residual: tl.tensor,
    status: tl.tensor,
    share: tl.float64,
    units: tl.int32,
    UNIT: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    if tl.load(status + row) != RUNNING:
        return
    d = units * UNIT
    lane = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float64)
    for first in range(0, d, BLOCK):
        here = row * d + first
        inside = lane < d - first
        left = tl.load(v + here + lane, mask=inside, other=0.0)
        difference = (left - tl.load(x + here + lane, mask=inside, other=0.0)).to(tl.float64)
        total += difference * difference
        tl.store(x + here + lane, left, mask=inside)
    tl.store(residual + row, (tl.sum(total, axis=0) * share).to(tl.float32))


@triton.jit(
    do_not_specialize=["tolerance", "patience", "limit", "first_comparison", "rows"],
    do_not_specialize_on_alignment=PER_ROW,
)
def _judge(
    residual: tl.tensor,
    settled: tl.tensor,
    recurs: tl.tensor,
    renew: tl.tensor,
    iterations: tl.tensor,
    blocks: tl.tensor,
    below: tl.tensor,
    anchored: tl.tensor,
    period: tl.tensor,
    status: tl.tensor,
    tolerance: tl.float32,
    patience: tl.int32,
    limit: tl.int32,
    first_comparison: tl.int32,
    rows: tl.int32,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    running = (row < rows) & (tl.load(status + row, mask=row < rows, other=0) == RUNNING)
    mse = tl.load(residual + row, mask=running, other=0.0)
    finite = tl.abs(mse) < float("inf")
    count = tl.load(iterations + row, mask=running, other=0) + 1
    mse = tl.where(count < first_comparison, float("nan"), mse)
    run = tl.where(mse < tolerance, tl.load(below + row, mask=running, other=0) + 1, 0)
    known = tl.load(settled + row, mask=running, other=False) & finite & (tolerance > 0.0)
    ahead = tl.where(known, tl.minimum(patience - run, limit - count), 0)
    ahead = tl.maximum(ahead, 0)
    since = tl.load(anchored + row, mask=running, other=0)
    length = tl.maximum(count - since, 1)
    last = tl.load(period + row, mask=running, other=0)
    came_back = tl.load(recurs + row, mask=running, other=False) & (since > 0)
    again = came_back & (length == last) & finite & (run < length) & (run < patience) & (ahead == 0)
    left = tl.maximum(limit - count, 0)
    skipped = tl.where(again, left - left % length, 0)
    verdict = tl.where(count + ahead + skipped >= limit, MAX_ITERATIONS, RUNNING)
    verdict = tl.where(run + ahead >= patience, CONVERGED, verdict)
    verdict = tl.where(finite, verdict, DIVERGED)
    tl.store(residual + row, tl.where(ahead > 0, 0.0, mse), mask=running)
    tl.store(below + row, run + ahead, mask=running)
    tl.store(iterations + row, count + ahead + skipped, mask=running)
    tl.store(blocks + row, tl.load(blocks + row, mask=running, other=0) + 1, mask=running)
    tl.store(period + row, tl.where(came_back, length, last), mask=running)
    power_of_two = (count & (count - 1)) == 0
    tl.store(renew + row, power_of_two, mask=running)
    tl.store(anchored + row, tl.where(power_of_two | came_back, count, since), mask=running)
    tl.store(status + row, verdict.to(tl.int8), mask=running)


@triton.jit
def next_input(s: tl.tensor, v: tl.tensor, y: tl.tensor, kept: tl.tensor, c: tl.tensor, weight: tl.tensor) -> tl.tensor:
    """`plain.next_input`."""
    return tl.where(kept, (y + s + c * v) * weight, v)


@triton.jit
def output(s: tl.tensor, v: tl.tensor, y: tl.tensor, kept: tl.tensor, g: tl.tensor, weight: tl.tensor) -> tl.tensor:
    """`plain.output`."""
    w = 2.0 * v - s
    return tl.where(kept, (y + g * w) * weight, w)


@triton.jit
def is_erased(x: tl.tensor, y: tl.tensor) -> tl.tensor:
    """Not `plain.kept_entries`. Comparisons and selections, no maximum: a NaN makes them all false."""
    double = 2.0 * y
    return (x > tl.where(double < 0.0, 0.0, double)) | (x < tl.where(double > 0.0, 0.0, double))


@triton.jit
def _coefficients_of_pixels(coefficients: tl.tensor, first: tl.tensor, lane: tl.tensor, D: tl.constexpr) -> tl.tensor:
    """Where the coefficients are of the rows that the pixels number `first` + `lane` belong to."""
    row = first // D
    rows_on = ((first - row * D).to(tl.int32) + lane) // D
    return coefficients + 3 * row + 3 * rows_on


def check(*written: str, **buffers: Tensor) -> tuple[int, int]:
    """Rows and d, if the kernels may have these buffers; raises as `check_buffers`."""
    _, rows, d = check_buffers(written, DEVICE_TYPE, ALIGNMENT, **buffers)
    if max(rows, d) > MAX_PIXELS:
        raise ValueError(f"there must be at most {MAX_PIXELS} rows, and pixels in a row; not {rows} of {d}")
    return rows, d


def _launch_flat(kernel: Any, d: int, *buffers: Tensor) -> None:
    n = buffers[0].numel()
    unit = unit_of(n)
    block = FLAT_WARPS * PIXELS_PER_WARP
    launch(kernel, triton.cdiv(n, block), *buffers, n // unit, UNIT=unit, D=d, BLOCK=block, num_warps=FLAT_WARPS)


def launch_rows(
    kernel: Any,
    rows: int,
    d: int,
    *arguments: Any,
    most_warps: int = MAX_ROW_WARPS,
    registers: int | None = None,
    **constants: int,
) -> None:
    """Run `kernel` with a block of threads for each row; a thread may have so many `registers`."""
    unit = unit_of(d)
    warps = min(triton.next_power_of_2(max(triton.cdiv(d, PIXELS_PER_WARP), 1)), most_warps)
    block = warps * PIXELS_PER_WARP
    constants |= {"UNIT": unit, "BLOCK": block, "num_warps": warps, "maxnreg": registers or _MAX_ROW_REGISTERS[unit]}
    launch(kernel, rows, *arguments, d // unit, **constants)


def share_of(d: int) -> float:
    """That of a pixel in a mean."""
    return 1 / d if d else math.nan


def unit_of(pixels: int) -> int:
    """What the compiler is told `pixels` to be a multiple of, for it to move so many pixels at once."""
    return 4 if pixels % 4 == 0 else 2 if pixels % 2 == 0 else 1


def launch(kernel: Any, programs: int, *arguments: Any, **configuration: Any) -> None:
    """Run so many programs of `kernel` on the device of its first argument."""
    if programs == 0:
        return
    device = arguments[0].device
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        _run(kernel, programs, *arguments, **configuration, **OPTIONS)


def _run(kernel: Any, programs: int, *arguments: Any, **configuration: Any) -> None:
    kernel[(programs,)](*arguments, **configuration)  # tests put here what compiles and does not run
