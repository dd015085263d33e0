"""The per-pixel mathematics in plain torch: the truth for one step, and the backend "torch".

State of a slot is one row of buffers [rows, d]. With g = γ/2, s what enters the autoencoder f, v = f(s), y the degraded
image and Θ the mask, the inner loop of Algorithm 1 is, after eliminating ξ and u (u = s − v):

    start      s ← Θ ? y/(1+g) : 0
    step       s ← Θ ? (y + s + (g−1)v)/(1+g) : v
    output     ξ = Θ ? (y + g(2v − s))/(1+g) : 2v − s

All functions work in place. s, v, y and x are float32 [rows, d], mask is bool [rows, d], mse is float32 [rows]; all are
contiguous and on one device. Divisions by 1+g are multiplications by its rounded reciprocal, products and sums are
rounded one by one (no fused multiply-add): the compiled kernels do the same, bit for bit.
"""

from __future__ import annotations

import torch
from torch import Tensor


def start(s: Tensor, y: Tensor, mask: Tensor, gamma: float) -> None:
    """Begin an inner loop: s ← the first input of f, from v⁰ = 0 and u¹ = 0."""
    s.copy_(torch.where(mask, y * _weight(gamma), 0.0))


def step(s: Tensor, v: Tensor, y: Tensor, mask: Tensor, gamma: float) -> None:
    """One ADMM iteration, (17), (16) and (14): s ← the next input of f, from v = f(s)."""
    s.copy_(torch.where(mask, (y + s + (gamma / 2 - 1) * v) * _weight(gamma), v))


def close(
    s: Tensor, v: Tensor, y: Tensor, mask: Tensor, x: Tensor, mse: Tensor, gamma: float, estimate_mask: bool
) -> None:
    """End an outer iteration and begin the next one.

    mse ← mean((ξ − x)²) per row, x ← ξ, mask ← (20) of x if `estimate_mask`, s ← start. The squares are summed in
    float64. A NaN in x counts as kept, as in (20).
    """
    w = 2 * v - s
    xi = torch.where(mask, (y + (gamma / 2) * w) * _weight(gamma), w)
    advance(x, xi, mse)
    if estimate_mask:
        erased = (x > (2 * y).clamp(min=0)) | (x < (2 * y).clamp(max=0))
        torch.logical_not(erased, out=mask)
    start(s, y, mask, gamma)


def advance(x: Tensor, v: Tensor, mse: Tensor) -> None:
    """One iteration of f alone: mse ← mean((v − x)²) per row, summed in float64; x ← v."""
    mse.copy_((v - x).double().square().mean(dim=1))
    x.copy_(v)


def _weight(gamma: float) -> float:
    return 1 / (1 + gamma / 2)
