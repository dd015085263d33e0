"""Which of x and −x: what the even model leaves open."""

from __future__ import annotations

import torch
from torch import Tensor

from memrecon_fast.reconstruction.even import Even
from memrecon_fast.reconstruction.random_features import ACTIVATIONS
from memrecon_fast.reconstruction.rows import Rows

_MARGIN = 0.1


def from_offset(at: Even) -> tuple[Tensor, Tensor]:
    """ε = ±1 of each image, float64 (n,), and whether it is known, for ReLU: from b = ½ Σ s_i ε_i w_i, where n ≤ d."""
    count = len(at.signs)
    if count > at.images.shape[1]:
        return torch.ones(count, dtype=torch.float64), torch.zeros(count, dtype=torch.bool)
    columns = 0.5 * (at.signs[:, None] * at.images).T
    found = torch.linalg.lstsq(columns, at.offset[:, None]).solution[:, 0]
    return torch.where(found < 0, -1.0, 1.0).double(), (found.abs() - 1).abs() < _MARGIN


def from_odd_part(rows: Rows, directions: Tensor, activation: str) -> Tensor:
    """ε = ±1 of each image, float64 (n,), for any σ: from the coefficients of |t|/2 and of the odd part of σ(t), which
    are the same but for that sign, t = g·u."""
    count = len(directions)
    rows.passed(1)
    gram = directions.new_zeros(2 * count, 2 * count)
    right = directions.new_zeros(2 * count)
    for block in rows.blocks():
        products = block.times(directions)
        parts = torch.cat([0.5 * products.abs(), ACTIVATIONS[activation].odd(products)])
        gram.addmm_(parts, parts.T)
        right.addmv_(parts, rows.theta[block.where])
    gram.diagonal().add_(1e-12 * gram.diagonal().mean())
    even, odd = torch.linalg.solve(gram, right).split(count)
    return torch.where(even * odd < 0, -1.0, 1.0).double()
