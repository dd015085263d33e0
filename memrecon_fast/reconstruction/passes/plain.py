"""The passes in torch, block by block."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from memrecon_fast.reconstruction.passes import Kinked
from memrecon_fast.reconstruction.rows import Rows


def linearise(rows: Rows, model: Kinked) -> tuple[Tensor, Tensor, Tensor]:
    """See `Passes`."""
    rows.passed(2)
    left = model.columns.T.contiguous()
    residual = torch.empty_like(rows.theta)
    sides = torch.empty(len(left), rows.count, dtype=torch.int8)
    gradient = torch.zeros_like(left)
    for block in rows.blocks():
        products, here = block.times(left), sides[:, block.where]
        here.copy_(products > 0 if model.rectified else torch.sign(products))
        if model.last_is_linear:
            here[-1] = 1
        slopes = here * model.factors[:, None]
        of_block = rows.theta[block.where] - products.mul_(slopes).sum(dim=0)
        residual[block.where] = of_block
        block.add_to(gradient, slopes.mul_(of_block))
    return residual, sides.T, gradient.T


def product(rows: Rows, factors: Tensor, sides: Tensor, step: Tensor) -> Tensor:
    """See `Passes`."""
    return _product(rows, lambda where: sides[where].T * factors[:, None], step)


def product_of_slopes(rows: Rows, slopes: Tensor, step: Tensor) -> Tensor:
    """See `Passes`."""
    return _product(rows, lambda where: slopes[where].T.clone(), step)


def _product(rows: Rows, slopes: Callable[[slice], Tensor], step: Tensor) -> Tensor:
    rows.passed(2)
    left = step.T.contiguous()
    found = torch.zeros_like(left)
    for block in rows.blocks():
        of_block = slopes(block.where)
        along = block.times(left).mul_(of_block).sum(dim=0)
        block.add_to(found, of_block.mul_(along))
    return found.T
