"""The passes on compiled CPU kernels (csrc/passes.h): V is read once, and its blocks stay in the caches for both of
their products.

The sums are of float64, as in `plain`, but in another order: they agree to rounding. They are the same to the bit for
any number of threads, which are torch's (`torch.get_num_threads()`), and on all processors with fused multiply-add.
Where V is stored as float32 or float64, that is what is read; else blocks of it are made first.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from memrecon_fast import _C
from memrecon_fast.ops.cpp import COLUMNS
from memrecon_fast.reconstruction.passes import Kinked
from memrecon_fast.reconstruction.rows import Rows
from memrecon_fast.reconstruction.weights import blocks


def linearise(rows: Rows, model: Kinked) -> tuple[Tensor, Tensor, Tensor]:
    """See `Passes`."""
    rows.passed(2)
    columns = model.columns.contiguous()
    d, m = columns.shape
    theta, residual = rows.theta.contiguous(), torch.empty(rows.count, dtype=torch.float64)
    sides = torch.empty(rows.count, _padded(m), dtype=torch.int8)
    gradient = torch.zeros_like(columns)
    _check(d, rows.width, m, len(model.factors), theta, columns, model.factors)
    for where, weights in _parts(rows):
        tensors = weights, columns, model.factors, theta[where], residual[where], sides[where], gradient
        _C.linearise(
            _part(weights, m, rows.scale),
            torch.get_num_threads(),
            model.rectified,
            model.last_is_linear,
            tuple(tensor.data_ptr() for tensor in tensors),
        )
    return residual, sides, gradient


def product(rows: Rows, factors: Tensor, sides: Tensor, step: Tensor) -> Tensor:
    """See `Passes`; the sides must be those of `linearise` here."""
    rows.passed(2)
    step = step.contiguous()
    d, m = step.shape
    found = torch.zeros_like(step)
    _check(d, rows.width, m, len(factors), step, factors)
    if sides.shape != (rows.count, _padded(m)) or sides.dtype != torch.int8 or not sides.is_contiguous():
        raise ValueError(f"sides of another linearisation: {tuple(sides.shape)}, {sides.dtype}")
    for where, weights in _parts(rows):
        tensors = weights, step, factors, sides[where], found
        addresses = tuple(tensor.data_ptr() for tensor in tensors)
        _C.product(_part(weights, m, rows.scale), torch.get_num_threads(), addresses)
    return found


def product_of_slopes(rows: Rows, slopes: Tensor, step: Tensor) -> Tensor:
    """See `Passes`."""
    rows.passed(2)
    step = step.contiguous()
    d, m = step.shape
    found = torch.zeros_like(step)
    _check(d, rows.width, m, slopes.shape[1], step, slopes)
    if len(slopes) != rows.count:
        raise ValueError(f"{len(slopes)} rows of slopes for {rows.count}")
    for where, weights in _parts(rows):
        addresses = tuple(tensor.data_ptr() for tensor in (weights, step, slopes[where], found))
        _C.product_of_slopes(_part(weights, m, rows.scale), torch.get_num_threads(), addresses)
    return found


def _padded(columns: int) -> int:
    return -(-columns // COLUMNS) * COLUMNS


def _parts(rows: Rows) -> Iterator[tuple[slice, Tensor]]:
    """All rows, contiguous and as float32 or float64; as few parts as can be had without a copy of V."""
    weights = rows.weights
    if isinstance(weights, Tensor) and weights.is_contiguous() and weights.dtype in (torch.float32, torch.float64):
        yield slice(0, rows.count), weights[: rows.count]
    else:
        for where, block in blocks(weights, rows.count):
            yield where, block.contiguous()


def _part(weights: Tensor, columns: int, scale: float) -> _C.Rows:
    return _C.Rows(len(weights), weights.shape[1], columns, weights.dtype == torch.float32, scale)


def _check(d: int, width: int, columns: int, factors: int, *tensors: Tensor) -> None:
    """The kernels trust addresses."""
    if d != width or columns != factors or not d or not columns:
        raise ValueError(f"{columns} columns of {d} numbers do not belong to {factors} factors and rows of {width}")
    for tensor in tensors:
        if tensor.dtype != torch.float64 or tensor.device.type != "cpu" or not tensor.is_contiguous():
            raise TypeError(f"the kernels take contiguous float64 on the CPU, not {tensor.dtype} on {tensor.device}")
