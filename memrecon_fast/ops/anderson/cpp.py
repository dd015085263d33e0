"""The functions of plain.py on compiled CPU kernels (csrc/), one pass over memory each: the backend "cpp".

Of one evaluation, everything comes out as from plain.py, bit for bit, but for what is a sum over pixels: gram, residual
and score may differ in the last places, since they are summed in another order, and an estimate whose score is that
close to the best one may be taken for better here alone. The order is the same for every instruction set and any number
of threads. Of the same gram, `weigh` makes the same bits, but where a square root of torch's is off by the last one.

Errors, threads and autograd are as in `memrecon_fast.ops.admm.cpp`; there are at most 33 places in the ring. That
`head` and `base` are places of it is not looked at. `assess` is plain.py's own: its vectors have one entry per row, too
few to be worth a kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from memrecon_fast import _C
from memrecon_fast.ops.anderson.plain import assess
from memrecon_fast.ops.checks import check_buffers

__all__ = ["assess", "estimate", "measure", "mix", "weigh"]


def measure(
    s: Tensor,
    v: Tensor,
    y: Tensor,
    mask: Tensor,
    steps: Tensor,
    residuals: Tensor,
    gram: Tensor,
    head: Tensor,
    filled: Tensor,
    status: Tensor,
    coefficients: Tensor,
) -> None:
    """One more evaluation, v = f(s), into the ring at `head`: its step, its residual, and the dot products of that.

    Only the last `filled` residuals before it are read; with the others the products become 0.
    """
    addresses, rows, d = check_buffers(
        ("steps", "residuals", "gram"),
        s=s,
        v=v,
        y=y,
        mask=mask,
        steps=steps,
        residuals=residuals,
        gram=gram,
        head=head,
        filled=filled,
        status=status,
        coefficients=coefficients,
    )
    _C.measure(rows, d, steps.shape[1], torch.get_num_threads(), *addresses)


def estimate(
    s: Tensor,
    v: Tensor,
    y: Tensor,
    mask: Tensor,
    x: Tensor,
    best: Tensor,
    best_mask: Tensor,
    residual: Tensor,
    score: Tensor,
    best_score: Tensor,
    changed: Tensor,
    status: Tensor,
    coefficients: Tensor,
    estimate_mask: bool,
) -> None:
    """The estimate ξ of the image and, if `estimate_mask`, that of the mask, (20), in the rows that are RUNNING.

    With ξ = Θ ? (y + g(2v − s))/(1+g) : 2v − s: residual ← mean((ξ − x)²) per row, x ← ξ, score ← mean((v − ξ)²) +
    misfit. Where the score is below the best one, best, best_mask and best_score become these.
    """
    addresses, rows, d = check_buffers(
        ("mask", "x", "best", "best_mask", "residual", "score", "best_score", "changed"),
        s=s,
        v=v,
        y=y,
        mask=mask,
        x=x,
        best=best,
        best_mask=best_mask,
        residual=residual,
        score=score,
        best_score=best_score,
        changed=changed,
        status=status,
        coefficients=coefficients,
    )
    _C.estimate(rows, d, estimate_mask, torch.get_num_threads(), *addresses)


def weigh(
    gram: Tensor,
    head: Tensor,
    filled: Tensor,
    extrapolated: Tensor,
    base: Tensor,
    weights: Tensor,
    held: Tensor,
    accepted: Tensor,
    rejected: Tensor,
    status: Tensor,
    settle: int,
) -> None:
    """Decide how the image goes on from the evaluation at `head`, and move on to the next place in the ring."""
    addresses, rows, _ = check_buffers(
        ("head", "filled", "extrapolated", "base", "weights", "accepted", "rejected"),
        gram=gram,
        head=head,
        filled=filled,
        extrapolated=extrapolated,
        base=base,
        weights=weights,
        held=held,
        accepted=accepted,
        rejected=rejected,
        status=status,
    )
    _C.weigh(rows, gram.shape[1], settle, torch.get_num_threads(), *addresses)


def mix(s: Tensor, steps: Tensor, base: Tensor, weights: Tensor, status: Tensor) -> None:
    """The next input of f: s ← G_b + Σ_i w_i (G_i − G_b), in the order of the places in the ring, b = base.

    What has the weight 0 is not read: it may be anything.
    """
    addresses, rows, d = check_buffers(("s",), s=s, steps=steps, base=base, weights=weights, status=status)
    _C.mix(rows, d, steps.shape[1], torch.get_num_threads(), *addresses)
