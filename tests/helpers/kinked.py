"""Models with kinks, and what passes over V must make of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from memrecon_fast.reconstruction.passes import Kinked, Passes
from memrecon_fast.reconstruction.rows import Rows
from memrecon_fast.reconstruction.weights import Drawn

KINDS = [(False, True), (True, False), (False, False), (True, True)]
"""Of a model: rectified, and with a last column that is linear."""


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kinked(d: int, m: int, kind: tuple[bool, bool] = (False, True)) -> Kinked:
    return Kinked(random(d, m, seed=3), random(m, seed=4), *kind)


def rows_of(p: int, d: int, stored_as: torch.dtype | None) -> Rows:
    """V stored, or drawn where it is None."""
    weights = Drawn(p, d, seed=2**40 + 9) if stored_as is None else random(p, d, seed=1).to(stored_as)
    return Rows(weights, random(p, seed=2), scale=1.5)


def check_against_plain(found: Passes, rows: Rows, model: Kinked) -> None:
    """All that comes out: but for the order of sums of up to max(p, d) numbers."""
    from memrecon_fast.reconstruction.passes import plain

    count, m = rows.count, len(model.factors)
    step, slopes = random(rows.width, m, seed=6), random(count, m, seed=7)
    residual, sides, gradient = plain.linearise(rows, model)
    its_residual, its_sides, its_gradient = found.linearise(rows, model)
    assert torch.equal(its_sides[:, :m], sides)
    assert_close(its_residual, residual)
    assert_close(its_gradient, gradient)
    assert_close(found.product(rows, model.factors, its_sides, step), plain.product(rows, model.factors, sides, step))
    assert_close(found.product_of_slopes(rows, slopes, step), plain.product_of_slopes(rows, slopes, step))
    assert rows.effort.passes == pytest.approx(12 * rows.cost)


def assert_close(found: Tensor, expected: Tensor) -> None:
    largest = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12 * largest)


def check_zeros(found: Passes, kind: tuple[bool, bool]) -> None:
    weights = torch.eye(8).repeat(5, 1)
    weights[0], weights[1] = 0.0, -0.0
    weights[2] = 1e-40  # denormal
    weights[3] = -1e-45
    columns = random(8, 3, seed=7)
    columns[0, 0] = -0.0
    columns[3, 0], columns[5, 0] = -1e-310, 2e-310
    model = Kinked(columns, random(3, seed=4), *kind)
    check_against_plain(found, Rows(weights, random(40, seed=2)), model)
    _, sides, _ = found.linearise(Rows(weights, random(40, seed=2)), model)
    assert set(sides[:, 0].tolist()) == ({0, 1} if model.rectified else {0, -1, 1})
