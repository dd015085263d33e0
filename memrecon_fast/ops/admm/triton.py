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
"""

from __future__ import annotations

import ctypes

import triton
import triton.language as tl
from torch import Tensor

from memrecon_fast import results
from memrecon_fast.ops.admm import (
    ADVANCE,
    CLOSE,
    MEAN_SQUARES,
    START,
    STEP,
    STOP,
    AdmmState,
    IterationState,
    Pairs,
    SplitState,
)
from memrecon_fast.ops.launch import ROWS_PER_WARP, arguments, launch, launch_flat, launch_rows, not_aligned, share_of

RUNNING = tl.constexpr(results.RUNNING)
CONVERGED = tl.constexpr(int(results.Status.CONVERGED))
MAX_ITERATIONS = tl.constexpr(int(results.Status.MAX_ITERATIONS))
STALLED = tl.constexpr(int(results.Status.STALLED))
DIVERGED = tl.constexpr(int(results.Status.DIVERGED))

_PER_ROW = not_aligned(AdmmState)


def start(state: SplitState) -> None:
    """`plain.start`."""
    launch_flat(_start, state.rows, state.d, arguments(state, START))


def step(state: SplitState, v: Tensor) -> None:
    """`plain.step`."""
    launch_flat(_step, state.rows, state.d, arguments(state, STEP, v))


def close(state: AdmmState, v: Tensor, *, estimate_mask: bool) -> None:
    """`plain.close`."""
    buffers = arguments(state, CLOSE, v)
    launch_rows(_close, state.rows, state.d, *buffers, share_of(state.d), ESTIMATE_MASK=bool(estimate_mask))


def advance(state: IterationState, v: Tensor) -> None:
    """`plain.advance`."""
    launch_rows(_advance, state.rows, state.d, *arguments(state, ADVANCE, v), share_of(state.d))


def mean_squares(a: Tensor, b: Tensor, out: Tensor) -> None:
    """`plain.mean_squares`."""
    pairs = Pairs(a, b, out)
    launch_rows(_mean_squares, pairs.rows, pairs.d, *arguments(pairs, MEAN_SQUARES), share_of(pairs.d))


def stop(state: IterationState, *, tolerance: float, patience: int, limit: int, first_comparison: int) -> None:
    """`plain.stop`."""
    # As torch rounds it to compare it with a float32: the interpreter would not.
    numbers = (ctypes.c_float(tolerance).value, patience, limit, first_comparison, state.rows)
    programs = triton.cdiv(state.rows, ROWS_PER_WARP)
    launch(_stop, programs, *arguments(state, STOP), *numbers, BLOCK=ROWS_PER_WARP, num_warps=1)


@triton.jit(do_not_specialize=["units"], do_not_specialize_on_alignment=_PER_ROW)
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


@triton.jit(do_not_specialize=["units"], do_not_specialize_on_alignment=_PER_ROW)
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


@triton.jit(do_not_specialize=["units"], do_not_specialize_on_alignment=_PER_ROW)
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
            erased = ~estimate_mask(xi, image)
            then = kept
            if renewed:
                tl.store(anchor + here + lane, kept, mask=inside)
            else:
                then = tl.load(anchor + here + lane, mask=inside, other=False)
            differs |= tl.where(inside & (erased == kept), 1, 0) | tl.where(inside & (erased == then), 2, 0)
            kept = estimate_mask(xi, image)
            tl.store(mask + here + lane, kept, mask=inside)
        tl.store(s + here + lane, tl.where(kept, image * weight, 0.0), mask=inside)
    tl.store(residual + row, (tl.sum(total, axis=0) * share).to(tl.float32))
    tl.store(settled + row, tl.sum(differs & 1, axis=0) == 0)
    tl.store(recurs + row, (tl.sum(differs & 2, axis=0) == 0) if ESTIMATE_MASK else False)


@triton.jit(do_not_specialize=["units"], do_not_specialize_on_alignment=_PER_ROW)
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


@triton.jit(do_not_specialize=["units"], do_not_specialize_on_alignment=["out"])
def _mean_squares(
    a: tl.tensor,
    b: tl.tensor,
    out: tl.tensor,
    share: tl.float64,
    units: tl.int32,
    UNIT: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    d = units * UNIT
    lane = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float64)
    for first in range(0, d, BLOCK):
        here = row * d + first
        inside = lane < d - first
        left = tl.load(a + here + lane, mask=inside, other=0.0)
        difference = (left - tl.load(b + here + lane, mask=inside, other=0.0)).to(tl.float64)
        total += difference * difference
    tl.store(out + row, (tl.sum(total, axis=0) * share).to(tl.float32))


@triton.jit(
    do_not_specialize=["tolerance", "patience", "limit", "first_comparison", "rows"],
    do_not_specialize_on_alignment=_PER_ROW,
)
def _stop(
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
    """`plain.next_input`: (17), (16) and (14)."""
    return tl.where(kept, (y + s + c * v) * weight, v)


@triton.jit
def output(s: tl.tensor, v: tl.tensor, y: tl.tensor, kept: tl.tensor, g: tl.tensor, weight: tl.tensor) -> tl.tensor:
    """`plain.output`: ξ of (17)."""
    w = 2.0 * v - s
    return tl.where(kept, (y + g * w) * weight, w)


@triton.jit
def estimate_mask(x: tl.tensor, y: tl.tensor) -> tl.tensor:
    """`plain.estimate_mask`, (20). Comparisons and selections, no maximum: with a NaN all are false, so it is kept."""
    double = 2.0 * y
    return ~((x > tl.where(double < 0.0, 0.0, double)) | (x < tl.where(double > 0.0, 0.0, double)))


@triton.jit
def _coefficients_of_pixels(coefficients: tl.tensor, first: tl.tensor, lane: tl.tensor, D: tl.constexpr) -> tl.tensor:
    """Where the coefficients are of the rows that the pixels number `first` + `lane` belong to."""
    row = first // D
    rows_on = ((first - row * D).to(tl.int32) + lane) // D
    return coefficients + 3 * row + 3 * rows_on
