"""The functions of plain.py on compiled CPU kernels (csrc/), one pass over memory each: the backend "cpp".

s, x, mask, anchor, settled and recurs come out as from plain.py, bit for bit. residual may differ by a unit in the last
place, since the squares are summed in another order; it is the same one for every instruction set and any number of
threads. The threads are torch's (`torch.get_num_threads()`). Autograd does not see what these functions do.

All of them raise TypeError for an argument that is no tensor or has another dtype, and ValueError for one that is not
on the CPU, not contiguous, of another shape, or that shares memory with an argument that is written. `judge` alone is
plain.py's own: its vectors have one entry per row, too few to be worth a kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from memrecon_fast import _C
from memrecon_fast.ops.admm.plain import judge
from memrecon_fast.ops.checks import check_buffers

__all__ = ["advance", "close", "judge", "start", "step"]


def start(s: Tensor, y: Tensor, mask: Tensor, coefficients: Tensor) -> None:
    """Begin an inner loop: s ← Θ ? y/(1+g) : 0, the first input of f, from v⁰ = 0 and u¹ = 0."""
    addresses, rows, d = check_buffers(("s",), s=s, y=y, mask=mask, coefficients=coefficients)
    _C.start(rows, d, torch.get_num_threads(), *addresses)


def step(s: Tensor, v: Tensor, y: Tensor, mask: Tensor, coefficients: Tensor) -> None:
    """One ADMM iteration, (17), (16) and (14): s ← Θ ? (y + s + (g−1)v)/(1+g) : v, from v = f(s)."""
    addresses, rows, d = check_buffers(("s",), s=s, v=v, y=y, mask=mask, coefficients=coefficients)
    _C.step(rows, d, torch.get_num_threads(), *addresses)


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
    """End an outer iteration and begin the next one, in the rows that are RUNNING.

    With ξ = Θ ? (y + g(2v − s))/(1+g) : 2v − s: residual ← mean((ξ − x)²) per row, x ← ξ, s ← start. The squares are
    summed in float64. If `estimate_mask`: anchor ← mask where it is to be renewed, mask ← (20) of x, settled and
    recurs ← whether that is the mask before and the anchor. A NaN in x counts as kept, as in (20). Else settled ← True,
    recurs ← False.
    """
    addresses, rows, d = check_buffers(
        ("s", "mask", "anchor", "x", "residual", "settled", "recurs"),
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
    _C.close(rows, d, estimate_mask, torch.get_num_threads(), *addresses)


def advance(x: Tensor, v: Tensor, residual: Tensor, status: Tensor) -> None:
    """One iteration of f alone, in the rows that are RUNNING: residual ← mean((v − x)²), summed in float64; x ← v."""
    addresses, rows, d = check_buffers(("x", "residual"), x=x, v=v, residual=residual, status=status)
    _C.advance(rows, d, torch.get_num_threads(), *addresses)
