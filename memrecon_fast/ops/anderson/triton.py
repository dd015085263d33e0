"""`plain` for CUDA devices, in Triton: one kernel, one pass over memory, for each operation.

`measure` and `estimate` give each row a block of threads, `mix` gives it many, and all of them move 128 bits at once
where d is a multiple of 4; elsewhere it is 64 bits for a multiple of 2, and 32. `weigh` gives each row a warp, or four
for more than 17 places, and `stop` a thread. Of the ring, only the places that count are read. Where the score is a
new best, `estimate` reads x and the mask once more, to copy them.

All is that of `plain`, bit for bit, given the same dot products: sums and products are rounded one by one
(`enable_fp_fusion` is off), as are the quotients and roots in `weigh`. `gram`, `residual` and `score` are summed in
float64, in an order that d and the number of places decide: the same in every run and every batch, the latter two
within one unit in the last place of `plain`.

Kernels are compiled when they are first used: `measure`, `weigh` and `mix` for each number of places in the ring;
`measure`, `estimate` and `mix` for d a multiple of 4, of 2 or of 1; `measure` and `estimate` for each size of a row's
block of threads; and `estimate` for each value of `estimate_mask`. Nothing else makes a new one.

See `ops/admm/triton.py` for the rest.
"""

from __future__ import annotations

import ctypes

import triton
import triton.language as tl
from torch import Tensor

from memrecon_fast.ops.admm.triton import (
    CONVERGED,
    DIVERGED,
    MAX_ITERATIONS,
    RUNNING,
    STALLED,
    estimate_mask,
    next_input,
    output,
)
from memrecon_fast.ops.anderson import ESTIMATE, MEASURE, MIX, STOP, WEIGH, AndersonState, plain
from memrecon_fast.ops.launch import (
    FLAT_WARPS,
    MAX_ROW_WARPS,
    PIXELS_PER_WARP,
    ROWS_PER_WARP,
    arguments,
    launch,
    launch_rows,
    not_aligned,
    share_of,
    unit_of,
)
from memrecon_fast.settings import PROGRESS, SETTLED

# `measure` has one block to a multiprocessor, and all of its 65,536 registers: a thread has a load under way and a sum
# for each place. For so many places the threads that a row has elsewhere are enough; for more, half of them.
_FEW_PLACES = 9
_MEASURE = {
    True: {"most_warps": MAX_ROW_WARPS, "registers": 128},
    False: {"most_warps": MAX_ROW_WARPS // 2, "registers": 255},
}
_ENTRIES_PER_WARP = 8 * 32  # of the matrix in `weigh`
_RIDGE = tl.constexpr(plain.RIDGE)
_PROGRESS = tl.constexpr(PROGRESS)
_SETTLED = tl.constexpr(SETTLED)
_PER_ROW = not_aligned(AndersonState)


def measure(state: AndersonState, v: Tensor) -> None:
    """`plain.measure`."""
    buffers = arguments(state, MEASURE, v)
    launch_rows(_measure, state.rows, state.d, *buffers, PLACES=state.places, **_MEASURE[state.places <= _FEW_PLACES])


def estimate(state: AndersonState, v: Tensor, *, estimate_mask: bool) -> None:
    """`plain.estimate`."""
    buffers = arguments(state, ESTIMATE, v)
    launch_rows(_estimate, state.rows, state.d, *buffers, share_of(state.d), ESTIMATE_MASK=bool(estimate_mask))


def stop(state: AndersonState, *, tolerance: float, patience: int, stall: int, settled_counts: int, limit: int) -> None:
    """`plain.stop`."""
    # The first as torch rounds it to compare it with a float32: the interpreter would not.
    tolerances = (ctypes.c_float(tolerance).value, tolerance * state.d)
    numbers = (*tolerances, patience, stall, settled_counts, limit, state.places, state.rows)
    programs = triton.cdiv(state.rows, ROWS_PER_WARP)
    launch(_stop, programs, *arguments(state, STOP), *numbers, BLOCK=ROWS_PER_WARP, num_warps=1)


def weigh(state: AndersonState, *, settle: int) -> None:
    """`plain.weigh`."""
    side = triton.next_power_of_2(max(state.places - 1, 1))
    constants = {"PLACES": state.places, "SIDE": side, "num_warps": max(side * side // _ENTRIES_PER_WARP, 1)}
    launch(_weigh, state.rows, *arguments(state, WEIGH), settle, **constants)


def mix(state: AndersonState) -> None:
    """`plain.mix`."""
    unit = unit_of(state.d)
    block = FLAT_WARPS * PIXELS_PER_WARP
    blocks = triton.cdiv(state.d, block)
    constants = {"UNIT": unit, "PLACES": state.places, "BLOCK": block, "num_warps": FLAT_WARPS}
    launch(_mix, state.rows * blocks, *arguments(state, MIX), blocks, state.d // unit, **constants)


@triton.jit(do_not_specialize=["units"], do_not_specialize_on_alignment=_PER_ROW)
def _measure(
    s: tl.tensor,
    v: tl.tensor,
    y: tl.tensor,
    mask: tl.tensor,
    steps: tl.tensor,
    residuals: tl.tensor,
    gram: tl.tensor,
    head: tl.tensor,
    filled: tl.tensor,
    status: tl.tensor,
    coefficients: tl.tensor,
    units: tl.int32,
    UNIT: tl.constexpr,
    BLOCK: tl.constexpr,
    PLACES: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    if tl.load(status + row) != RUNNING:
        return
    c = tl.load(coefficients + 3 * row + 1)
    weight = tl.load(coefficients + 3 * row + 2)
    newest = _in_ring(tl.load(head + row), PLACES)
    known = _in_ring(tl.load(filled + row), PLACES)
    d = units * UNIT
    lane = tl.arange(0, BLOCK)
    # For each age one sum to a thread, not to each of its four pixels: those would take too many registers.
    sums = (tl.zeros([BLOCK // 4], tl.float64),) * PLACES
    for first in range(0, d, BLOCK):
        here = row * d + first
        inside = lane < d - first
        kept = tl.load(mask + here + lane, mask=inside, other=False)
        image = tl.load(y + here + lane, mask=inside, other=0.0)
        entered = tl.load(s + here + lane, mask=inside, other=0.0)
        left = tl.load(v + here + lane, mask=inside, other=0.0)
        step = next_input(entered, left, image, kept, c, weight)
        residual = step - entered
        wide = residual.to(tl.float64)
        sums = _add_to_first(sums, wide * wide, UNIT, BLOCK)  # then that for the next age is the first
        for age in tl.static_range(1, PLACES):
            other = (row * PLACES + (newest + PLACES - age) % PLACES) * d + first
            # Nothing is read where nothing is inside.
            before = tl.load(residuals + other + lane, mask=lane < tl.where(age <= known, d - first, 0), other=0.0)
            sums = _add_to_first(sums, wide * before.to(tl.float64), UNIT, BLOCK)
        place = (row * PLACES + newest) * d + first
        tl.store(steps + place + lane, step, mask=inside)
        tl.store(residuals + place + lane, residual, mask=inside)
    corner = gram + row * PLACES * PLACES
    for age in tl.static_range(PLACES):
        older = (newest + PLACES - age) % PLACES
        product = tl.where(age <= known, tl.sum(sums[age], axis=0), 0.0)
        tl.store(corner + newest * PLACES + older, product)
        tl.store(corner + older * PLACES + newest, product)


@triton.jit(do_not_specialize=["units"], do_not_specialize_on_alignment=_PER_ROW)
def _estimate(
    s: tl.tensor,
    v: tl.tensor,
    y: tl.tensor,
    mask: tl.tensor,
    x: tl.tensor,
    best: tl.tensor,
    best_mask: tl.tensor,
    residual: tl.tensor,
    score: tl.tensor,
    best_score: tl.tensor,
    changed: tl.tensor,
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
    d = units * UNIT
    lane = tl.arange(0, BLOCK)
    squares = tl.zeros([BLOCK // 4], tl.float64)
    total = tl.zeros([BLOCK // 4], tl.float64)
    differs = tl.zeros([BLOCK], tl.int32)
    for first in range(0, d, BLOCK):
        here = row * d + first
        inside = lane < d - first
        # Outside, all is 0 and erased: ξ = x = v there, and nothing is added to the sums.
        kept = tl.load(mask + here + lane, mask=inside, other=False)
        image = tl.load(y + here + lane, mask=inside, other=0.0)
        entered = tl.load(s + here + lane, mask=inside, other=0.0)
        left = tl.load(v + here + lane, mask=inside, other=0.0)
        before = tl.load(x + here + lane, mask=inside, other=0.0)
        xi = output(entered, left, image, kept, g, weight)
        tl.store(x + here + lane, xi, mask=inside)
        if ESTIMATE_MASK:
            erased = ~estimate_mask(xi, image)
            differs |= tl.where(inside & (erased == kept), 1, 0)
            kept = estimate_mask(xi, image)
            tl.store(mask + here + lane, kept, mask=inside)
            misfit = tl.where(kept, image - xi, image).to(tl.float64)
        else:
            misfit = tl.where(kept, image - xi, 0.0).to(tl.float64)
        difference = (xi - before).to(tl.float64)
        squares += _of_threads(difference * difference, UNIT, BLOCK)
        difference = (left - xi).to(tl.float64)
        total += _of_threads(difference * difference + misfit * misfit, UNIT, BLOCK)
    reached = (tl.sum(total, axis=0) * share).to(tl.float32)
    tl.store(residual + row, (tl.sum(squares, axis=0) * share).to(tl.float32))
    tl.store(score + row, reached)
    tl.store(changed + row, (tl.sum(differs, axis=0) != 0) if ESTIMATE_MASK else False)
    if reached < tl.load(best_score + row):
        tl.debug_barrier()  # what other threads stored above may be loaded below
        tl.store(best_score + row, reached)
        for first in range(0, d, BLOCK):
            here = row * d + first
            inside = lane < d - first
            xi = tl.load(x + here + lane, mask=inside, other=0.0)
            kept = tl.load(mask + here + lane, mask=inside, other=False)
            tl.store(best + here + lane, xi, mask=inside)
            tl.store(best_mask + here + lane, kept, mask=inside)


@triton.jit(
    do_not_specialize=["tolerance", "squares", "patience", "stall", "settled_counts", "limit", "places", "rows"],
    do_not_specialize_on_alignment=_PER_ROW,
)
def _stop(
    residual: tl.tensor,
    score: tl.tensor,
    milestone: tl.tensor,
    changed: tl.tensor,
    gram: tl.tensor,
    head: tl.tensor,
    filled: tl.tensor,
    extrapolated: tl.tensor,
    held: tl.tensor,
    stalled: tl.tensor,
    mask_changes: tl.tensor,
    iterations: tl.tensor,
    below: tl.tensor,
    status: tl.tensor,
    tolerance: tl.float32,
    squares: tl.float64,
    patience: tl.int32,
    stall: tl.int32,
    settled_counts: tl.int32,
    limit: tl.int32,
    places: tl.int32,
    rows: tl.int32,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    running = (row < rows) & (tl.load(status + row, mask=row < rows, other=0) == RUNNING)
    mse = tl.load(residual + row, mask=running, other=0.0)
    finite = tl.abs(mse) < float("inf")
    count = tl.load(iterations + row, mask=running, other=0) + 1
    mse = tl.where(count < 2, float("nan"), mse)
    place = _in_ring(tl.load(head + row, mask=running, other=0), places)
    newest = tl.load(gram + (row * places + place) * places + place, mask=running, other=0.0)
    run = tl.load(below + row, mask=running, other=0) + 1
    run = tl.where((mse < tolerance) & (newest < squares), run, 0)
    now = tl.load(score + row, mask=running, other=0.0)
    progress = now < _PROGRESS * tl.load(milestone + row, mask=running, other=0.0)
    counts = tl.where(mse < _SETTLED * now, settled_counts, 1)
    without = tl.where(progress, 0, tl.load(stalled + row, mask=running, other=0) + counts)
    verdict = tl.where(without >= stall, STALLED, RUNNING)
    verdict = tl.where(count >= limit, MAX_ITERATIONS, verdict)
    verdict = tl.where(run >= patience, CONVERGED, verdict)
    verdict = tl.where(finite, verdict, DIVERGED)
    lost = tl.load(changed + row, mask=running, other=False)
    tl.store(residual + row, mse, mask=running)
    tl.store(milestone + row, now, mask=running & progress)
    tl.store(stalled + row, without, mask=running)
    tl.store(filled + row, 0, mask=running & lost)
    tl.store(extrapolated + row, False, mask=running & lost)
    tl.store(held + row, tl.where(lost, 0, tl.load(held + row, mask=running, other=0) + 1), mask=running)
    changes = tl.load(mask_changes + row, mask=running, other=0)
    tl.store(mask_changes + row, changes + lost.to(tl.int32), mask=running)
    tl.store(iterations + row, count, mask=running)
    tl.store(below + row, run, mask=running)
    tl.store(status + row, verdict.to(tl.int8), mask=running)


@triton.jit(do_not_specialize=["settle"], do_not_specialize_on_alignment=_PER_ROW)
def _weigh(
    gram: tl.tensor,
    head: tl.tensor,
    filled: tl.tensor,
    extrapolated: tl.tensor,
    base: tl.tensor,
    weights: tl.tensor,
    held: tl.tensor,
    accepted: tl.tensor,
    rejected: tl.tensor,
    status: tl.tensor,
    settle: tl.int32,
    PLACES: tl.constexpr,
    SIDE: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    if tl.load(status + row) != RUNNING:
        return
    corner = gram + row * PLACES * PLACES
    newest = _in_ring(tl.load(head + row), PLACES)
    before = (newest + PLACES - 1) % PLACES
    square = tl.load(corner + newest * PLACES + newest)
    bold = tl.load(extrapolated + row)
    grew = bold & ~(square <= tl.load(corner + before * PLACES + before))
    settled = tl.load(held + row) >= settle
    count = tl.where(settled, _in_ring(tl.load(filled + row), PLACES) + 1, 1)
    count = tl.where(grew, 0, count)

    solved = count >= 2
    shifts = tl.zeros([SIDE], tl.float64)
    if solved:
        shifts, solved = _solve(corner, newest, count - 1, PLACES, SIDE)
    rejections = tl.load(rejected + row) + grew.to(tl.int32)
    acceptances = tl.load(accepted + row) + (bold & ~grew).to(tl.int32)
    tl.debug_barrier()  # where there are several warps, all have loaded what is stored below
    lane = tl.arange(0, SIDE)
    place = row * PLACES + (newest + PLACES - 1 - lane) % PLACES
    tl.store(weights + place, tl.where(solved, shifts, 0.0).to(tl.float32), mask=lane < PLACES - 1)
    tl.store(weights + row * PLACES + newest, 0.0)  # all differences are to this one
    tl.store(base + row, tl.where(grew, before, newest))
    tl.store(rejected + row, rejections)
    tl.store(accepted + row, acceptances)
    tl.store(extrapolated + row, solved)
    tl.store(filled + row, tl.minimum(count, PLACES - 1))
    tl.store(head + row, (newest + 1) % PLACES)


@triton.jit
def _solve(corner: tl.tensor, newest: tl.tensor, size: tl.tensor, PLACES: tl.constexpr, SIDE: tl.constexpr) -> tl.tuple:
    """The weights of the steps, from the newest but one to the oldest, and whether there are such: `plain._solve`.

    Each number comes from the same operations in the same order as there. Symmetric bit for bit, the matrix gives what
    is in a column along either axis. At last its column k, below the diagonal, is that of the Cholesky factor times
    root k. What `plain` has beyond the first `size` rows and columns is 0.
    """
    lane = tl.arange(0, SIDE)
    down, across = lane[:, None], lane[None, :]
    i, j = tl.maximum(down, across), tl.minimum(down, across)
    upper, lower = (newest + PLACES - i) % PLACES * PLACES, (newest + PLACES - 1 - i) % PLACES * PLACES
    left, right = (newest + PLACES - j) % PLACES, (newest + PLACES - 1 - j) % PLACES
    matrix = tl.load(corner + upper + left, mask=i < size, other=0.0)
    matrix -= tl.load(corner + upper + right, mask=i < size, other=0.0)
    matrix -= tl.load(corner + lower + left, mask=i < size, other=0.0)
    matrix += tl.load(corner + lower + right, mask=i < size, other=0.0)
    of_newest = corner + newest * PLACES
    part = tl.load(of_newest + (newest + PLACES - lane) % PLACES, mask=lane < size, other=0.0)
    part -= tl.load(of_newest + (newest + PLACES - 1 - lane) % PLACES, mask=lane < size, other=0.0)

    diagonal = _pick(matrix, down == across, 0)
    trace = _pick(diagonal, lane == 0, 0)
    for k in range(1, size):
        trace += _pick(diagonal, lane == k, 0)
    matrix = tl.where(down == across, matrix + trace * _RIDGE, matrix)

    solved = size >= 1
    roots = tl.zeros([SIDE], tl.float64)
    for k in range(size):
        column = _pick(matrix, across == k, 1)
        pivot = _pick(column, lane == k, 0)
        solved &= (pivot > 0.0) & (pivot < float("inf"))
        root = tl.sqrt(tl.where(pivot > 0.0, pivot, 1.0))
        roots = tl.where(lane == k, root, roots)
        column = column / root
        z = _pick(part, lane == k, 0) / root
        part = tl.where(lane > k, part - column * z, tl.where(lane == k, z, part))
        row = _pick(matrix, down == k, 0) / root
        matrix = tl.where(j > k, matrix - column[:, None] * row[None, :], matrix)

    alphas = tl.zeros([SIDE], tl.float64)
    older = tl.zeros([SIDE], tl.float64)
    for ahead in range(size):
        k = size - 1 - ahead
        root = _pick(roots, lane == k, 0)
        terms = _pick(matrix, across == k, 1) / root * alphas
        value = _pick(part, lane == k, 0)
        for m in range(k + 1, size):
            value -= _pick(terms, lane == m, 0)
        value = value / root
        solved &= tl.abs(value) < float("inf")
        alphas = tl.where(lane == k, value, alphas)
        older = tl.where(lane == k - 1, value, older)
    return 0.0 - older + alphas, solved


@triton.jit
def _pick(values: tl.tensor, here: tl.tensor, axis: tl.constexpr) -> tl.tensor:
    """The one value in each line along `axis` that is `here`: a sum of bits, as one of numbers would lose a −0."""
    found = tl.sum(tl.where(here, values.to(tl.int64, bitcast=True), 0), axis=axis)
    return found.to(tl.float64, bitcast=True)


@triton.jit(do_not_specialize=["blocks", "units"], do_not_specialize_on_alignment=_PER_ROW)
def _mix(
    s: tl.tensor,
    steps: tl.tensor,
    base: tl.tensor,
    weights: tl.tensor,
    status: tl.tensor,
    blocks: tl.int32,
    units: tl.int32,
    UNIT: tl.constexpr,
    BLOCK: tl.constexpr,
    PLACES: tl.constexpr,
) -> None:
    row = (tl.program_id(0) // blocks).to(tl.int64)
    if tl.load(status + row) != RUNNING:
        return
    d = units * UNIT
    first = tl.program_id(0) % blocks * BLOCK
    lane = tl.arange(0, BLOCK)
    inside = lane < d - first
    place = (row * PLACES + _in_ring(tl.load(base + row), PLACES)) * d + first
    start = tl.load(steps + place + lane, mask=inside, other=0.0)
    total = start
    for i in tl.static_range(PLACES):
        weight = tl.load(weights + row * PLACES + i)
        wanted = lane < tl.where(weight == 0.0, 0, d - first)
        other = tl.load(steps + (row * PLACES + i) * d + first + lane, mask=wanted, other=0.0)
        total = tl.where(weight == 0.0, total, total + weight * (other - start))
    tl.store(s + row * d + first + lane, total, mask=inside)


@triton.jit
def _in_ring(numbers: tl.tensor, places: tl.tensor) -> tl.tensor:
    """`plain._in_ring`."""
    return tl.minimum(tl.maximum(numbers, 0), places - 1)


@triton.jit
def _of_threads(pixels: tl.tensor, UNIT: tl.constexpr, BLOCK: tl.constexpr) -> tl.tensor:
    """The sum of the four pixels that each thread has: neighbours by UNIT."""
    return tl.sum(tl.sum(tl.reshape(pixels, [4 // UNIT, BLOCK // 4, UNIT]), axis=2), axis=0)


@triton.jit
def _add_to_first(sums: tl.tuple, pixels: tl.tensor, UNIT: tl.constexpr, BLOCK: tl.constexpr) -> tl.tuple:
    """The sums, with the pixels added to the first, which becomes the last."""
    return sums[1:] + (sums[0] + _of_threads(pixels, UNIT, BLOCK),)  # noqa: RUF005 (Triton knows no stars)
