"""The passes for CUDA devices, in Triton: each one kernel.

A program takes some blocks of rows. Of each it makes the products with all images, what follows from them for these
rows, and adds their share of Vᵀ·… to sums of its own; these are added in the end. So V is read from memory once: for
the second product a block comes from the cache. Or it is not read at all, but drawn again, bit for bit as
`common/philox.py` draws it. Nothing depends on which program is faster: results are the same in every run.

V is float32; all products and sums are float64, on tensor cores, as the solver goes down to residuals of 1e-10, for
which float32 is too little. They are summed in another order than in `plain`, and agree with it to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from memrecon_fast.common.philox import OCTAVES
from memrecon_fast.ops.launch import launch
from memrecon_fast.reconstruction.passes import Kinked
from memrecon_fast.reconstruction.rows import Rows
from memrecon_fast.reconstruction.weights import Drawn

ROWS, COLUMNS, WARPS = 32, 32, 8
"""Of V, that a program has at once; and its warps. With more of V or fewer warps, 100 images spill registers."""
PROGRAMS = 264
"""At most: two for each multiprocessor of an H100. Each has its sums, d·m numbers."""
MOST_COLUMNS = 256
_COEFFICIENTS = tl.constexpr(OCTAVES.shape[1])


def linearise(rows: Rows, model: Kinked) -> tuple[Tensor, Tensor, Tensor]:
    """See `Passes`; V, unless it is drawn, and θ must be on the device, and all that comes out is."""
    rows.passed(2)
    device = rows.theta.device
    columns, factors = _on(model.columns, device), _on(model.factors, device)
    residual = torch.empty_like(rows.theta)
    sides = torch.empty(len(factors), rows.count, dtype=torch.int8, device=device)
    gradient = _run(
        _linearise,
        rows,
        columns,
        factors,
        sides,
        rows.theta,
        residual,
        RECTIFIED=model.rectified,
        LAST_IS_LINEAR=model.last_is_linear,
    )
    return residual, sides.T, gradient


def product(rows: Rows, factors: Tensor, sides: Tensor, step: Tensor) -> Tensor:
    """See `Passes`; the sides must be those of `linearise` here."""
    rows.passed(2)
    device = rows.theta.device
    return _run(_product, rows, _on(step, device), _on(factors, device), sides.T)


def product_of_slopes(rows: Rows, slopes: Tensor, step: Tensor) -> Tensor:
    """See `Passes`."""
    rows.passed(2)
    device = rows.theta.device
    ones = torch.ones(slopes.shape[1], dtype=torch.float64, device=device)
    return _run(_product, rows, _on(step, device), ones, _on(slopes.T, device))


def draw(weights: Drawn, device: torch.device) -> Tensor:
    """V (p, d), float32."""
    found = torch.empty(weights.shape, device=device)
    octaves = torch.from_numpy(OCTAVES).to(device)
    blocks = triton.cdiv(weights.p, ROWS)
    launch(
        _draw,
        blocks,
        found,
        octaves,
        weights.seed,
        weights.p,
        weights.d,
        weights.root_mean_square,
        ROWS=ROWS,
        COLUMNS=COLUMNS,
        num_warps=WARPS,
    )
    return found


def _on(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device).contiguous()


def _run(kernel: Any, rows: Rows, left: Tensor, factors: Tensor, *others: Tensor, **constants: bool) -> Tensor:
    """What the kernel adds up (d, m)."""
    count = len(factors)
    if not 1 <= count <= MOST_COLUMNS:
        raise ValueError(f"there must be at least 1 and at most {MOST_COLUMNS} columns, not {count}")
    drawn, device = isinstance(rows.weights, Drawn), rows.theta.device
    if isinstance(rows.weights, Drawn):
        weights = torch.empty(0, device=device)
        octaves, seed, factor = torch.from_numpy(OCTAVES).to(device), rows.weights.seed, rows.weights.root_mean_square
    else:
        weights, octaves, seed, factor = rows.weights, torch.empty(0, device=device), 0, 1.0
        if weights.dtype != torch.float32 or weights.device != device or not weights.is_contiguous():
            raise ValueError(f"V must be float32, contiguous and on {device}, not {weights.dtype} on {weights.device}")
    blocks = triton.cdiv(rows.count, ROWS)
    programs = min(blocks, PROGRAMS)
    sums = torch.zeros(programs, rows.width, count, dtype=torch.float64, device=device)
    launch(
        kernel,
        programs,
        sums,
        left,
        factors,
        *others,
        weights,
        octaves,
        seed,
        factor,
        rows.scale,
        rows.count,
        rows.width,
        count,
        triton.cdiv(blocks, programs),
        **constants,
        DRAWN=drawn,
        ROWS=ROWS,
        COLUMNS=COLUMNS,
        IMAGES=max(16, triton.next_power_of_2(count)),
        num_warps=WARPS,
    )
    return sums.sum(dim=0)


_NEVER_SPECIAL = ["seed", "p", "d", "count", "turns"]
"""One kernel for all sizes."""


@triton.jit(do_not_specialize=_NEVER_SPECIAL)
def _linearise(
    sums: tl.tensor,
    left: tl.tensor,
    factors: tl.tensor,
    sides: tl.tensor,
    theta: tl.tensor,
    residual: tl.tensor,
    weights: tl.tensor,
    octaves: tl.tensor,
    seed: tl.uint64,
    factor: tl.float32,
    scale: tl.float64,
    p: tl.int64,
    d: tl.int32,
    count: tl.int32,
    turns: tl.int32,
    RECTIFIED: tl.constexpr,
    LAST_IS_LINEAR: tl.constexpr,
    DRAWN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    IMAGES: tl.constexpr,
) -> None:
    mine = sums + tl.program_id(0).to(tl.int64) * d * count
    image = tl.arange(0, IMAGES)
    slope = tl.load(factors + image, mask=image < count, other=0.0)
    for turn in range(turns):
        block = tl.program_id(0).to(tl.int64) + turn * tl.num_programs(0)
        row = block * ROWS + tl.arange(0, ROWS)
        there = row < p
        products = _times(left, weights, octaves, seed, factor, row, p, d, count, DRAWN, ROWS, COLUMNS, IMAGES)
        products *= scale
        side = (products > 0.0).to(tl.int8)
        if not RECTIFIED:
            side -= (products < 0.0).to(tl.int8)
        if LAST_IS_LINEAR:
            side = tl.where(image[None, :] == count - 1, 1, side).to(tl.int8)
        jacobian = slope[None, :] * side.to(tl.float64)
        rest = tl.load(theta + row, mask=there, other=0.0) - tl.sum(jacobian * products, axis=1)
        rest = tl.where(there, rest, 0.0)
        tl.store(residual + row, rest, mask=there)
        tl.store(sides + image[None, :] * p + row[:, None], side, mask=there[:, None] & (image[None, :] < count))
        values = jacobian * rest[:, None] * scale
        _add_transposed(mine, values, weights, octaves, seed, factor, row, p, d, count, DRAWN, COLUMNS, IMAGES)


@triton.jit(do_not_specialize=_NEVER_SPECIAL)
def _product(
    sums: tl.tensor,
    left: tl.tensor,
    factors: tl.tensor,
    sides: tl.tensor,
    weights: tl.tensor,
    octaves: tl.tensor,
    seed: tl.uint64,
    factor: tl.float32,
    scale: tl.float64,
    p: tl.int64,
    d: tl.int32,
    count: tl.int32,
    turns: tl.int32,
    DRAWN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    IMAGES: tl.constexpr,
) -> None:
    mine = sums + tl.program_id(0).to(tl.int64) * d * count
    image = tl.arange(0, IMAGES)
    slope = tl.load(factors + image, mask=image < count, other=0.0)
    for turn in range(turns):
        block = tl.program_id(0).to(tl.int64) + turn * tl.num_programs(0)
        row = block * ROWS + tl.arange(0, ROWS)
        inside = (row < p)[:, None] & (image[None, :] < count)
        products = _times(left, weights, octaves, seed, factor, row, p, d, count, DRAWN, ROWS, COLUMNS, IMAGES)
        side = tl.load(sides + image[None, :] * p + row[:, None], mask=inside, other=0)
        along = tl.sum(slope[None, :] * side.to(tl.float64) * products, axis=1) * (scale * scale)
        values = slope[None, :] * side.to(tl.float64) * along[:, None]  # once more: else 100 images spill registers
        _add_transposed(mine, values, weights, octaves, seed, factor, row, p, d, count, DRAWN, COLUMNS, IMAGES)


@triton.jit(do_not_specialize=["seed", "p", "d"])
def _draw(
    found: tl.tensor,
    octaves: tl.tensor,
    seed: tl.uint64,
    p: tl.int64,
    d: tl.int32,
    factor: tl.float32,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    for first in range(0, d, COLUMNS):
        quad = first // 4 + tl.arange(0, COLUMNS // 4)
        drawn = _drawn(octaves, seed, factor, row, quad)
        for part in tl.static_range(4):
            column = 4 * quad + part
            inside = (row < p)[:, None] & (column < d)[None, :]
            tl.store(found + row[:, None] * d + column[None, :], drawn[part], mask=inside)


@triton.jit
def _times(
    right: tl.tensor,
    weights: tl.tensor,
    octaves: tl.tensor,
    seed: tl.tensor,
    factor: tl.tensor,
    row: tl.tensor,
    p: tl.tensor,
    d: tl.tensor,
    count: tl.tensor,
    DRAWN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    IMAGES: tl.constexpr,
) -> tl.tensor:
    """Of these rows of V with right (d, m): (ROWS, IMAGES)."""
    found = tl.zeros([ROWS, IMAGES], tl.float64)
    for first in range(0, d, COLUMNS):
        if DRAWN:
            quad = first // 4 + tl.arange(0, COLUMNS // 4)
            drawn = _drawn(octaves, seed, factor, row, quad)
            for part in tl.static_range(4):
                found = _add_products(found, drawn[part], right, 4 * quad + part, d, count, IMAGES)
        else:
            column = first + tl.arange(0, COLUMNS)
            found = _add_products(found, _stored(weights, row, column, p, d), right, column, d, count, IMAGES)
    return found


@triton.jit
def _add_transposed(
    mine: tl.tensor,
    values: tl.tensor,
    weights: tl.tensor,
    octaves: tl.tensor,
    seed: tl.tensor,
    factor: tl.tensor,
    row: tl.tensor,
    p: tl.tensor,
    d: tl.tensor,
    count: tl.tensor,
    DRAWN: tl.constexpr,
    COLUMNS: tl.constexpr,
    IMAGES: tl.constexpr,
) -> None:
    """Vᵀ·values of these rows is added to this program's sums (d, m); values (ROWS, IMAGES)."""
    for first in range(0, d, COLUMNS):
        if DRAWN:
            quad = first // 4 + tl.arange(0, COLUMNS // 4)
            drawn = _drawn(octaves, seed, factor, row, quad)
            for part in tl.static_range(4):
                _add_sums(mine, drawn[part], values, 4 * quad + part, d, count, IMAGES)
        else:
            column = first + tl.arange(0, COLUMNS)
            _add_sums(mine, _stored(weights, row, column, p, d), values, column, d, count, IMAGES)
    tl.debug_barrier()  # another thread may go on with these sums


@triton.jit
def _stored(weights: tl.tensor, row: tl.tensor, column: tl.tensor, p: tl.tensor, d: tl.tensor) -> tl.tensor:
    """Entries of V; 0 outside."""
    inside = (row < p)[:, None] & (column < d)[None, :]
    return tl.load(weights + row[:, None] * d + column[None, :], mask=inside, other=0.0)


@triton.jit
def _drawn(
    octaves: tl.tensor, seed: tl.tensor, factor: tl.tensor, row: tl.tensor, quad: tl.tensor
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Four blocks of entries of V: of the columns 4·quad, 4·quad + 1, … `common.philox.normal_rows`, times factor."""
    zero = row[:, None].to(tl.uint32) * 0 + quad[None, :].to(tl.uint32) * 0
    low, high = (row & 0xFFFFFFFF).to(tl.uint32)[:, None] + zero, (row >> 32).to(tl.uint32)[:, None] + zero
    a, b, c, e = tl.philox(seed, quad.to(tl.uint32)[None, :] + zero, low, high, zero)
    return (
        _normal(octaves, a) * factor,
        _normal(octaves, b) * factor,
        _normal(octaves, c) * factor,
        _normal(octaves, e) * factor,
    )


@triton.jit
def _normal(octaves: tl.tensor, words: tl.tensor) -> tl.tensor:
    """`common.philox.normal`: every operation is rounded by itself."""
    bits = (words & 0x7FFFFFFF).to(tl.int32).to(tl.float32).to(tl.int32, bitcast=True)
    octave = octaves + tl.maximum((bits >> 23) - 126, 0) * _COEFFICIENTS
    t = (bits & 0x7FFFFF).to(tl.float32) * 1.1920928955078125e-07  # 2⁻²³
    found = tl.load(octave + (_COEFFICIENTS - 1))
    for power in tl.static_range(_COEFFICIENTS - 2, -1, -1):
        found = found * t + tl.load(octave + power)
    return tl.where((words >> 31) != 0, -found, found)


@triton.jit
def _add_products(
    found: tl.tensor,
    block: tl.tensor,
    right: tl.tensor,
    column: tl.tensor,
    d: tl.tensor,
    count: tl.tensor,
    IMAGES: tl.constexpr,
) -> tl.tensor:
    image = tl.arange(0, IMAGES)
    inside = (column < d)[:, None] & (image < count)[None, :]
    factors = tl.load(right + column[:, None] * (count) + image[None, :], mask=inside, other=0.0)
    return found + tl.dot(block.to(tl.float64), factors, out_dtype=tl.float64)


@triton.jit
def _add_sums(
    mine: tl.tensor,
    block: tl.tensor,
    values: tl.tensor,
    column: tl.tensor,
    d: tl.tensor,
    count: tl.tensor,
    IMAGES: tl.constexpr,
) -> None:
    image = tl.arange(0, IMAGES)
    inside = (column < d)[:, None] & (image < count)[None, :]
    place = mine + column[:, None] * (count) + image[None, :]
    before = tl.load(place, mask=inside, other=0.0)
    tl.store(place, before + tl.dot(tl.trans(block.to(tl.float64)), values, out_dtype=tl.float64), mask=inside)
