"""The even model against automatic differentiation and dense matrices, by blocks and as a whole."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from memrecon_fast.reconstruction import weights as blocks
from memrecon_fast.reconstruction.even import Even
from memrecon_fast.reconstruction.linearised import linearise
from memrecon_fast.reconstruction.rows import Rows


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def example(p: int = 97, d: int = 5, n: int = 3) -> tuple[Rows, Even]:
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0])[:n].double()
    return Rows(random(p, d, seed=1), random(p, seed=2)), Even(random(n, d, seed=3), signs, random(d, seed=4))


def model(rows: Rows, unknowns: Tensor, signs: Tensor) -> Tensor:
    products = rows.scale * rows.weights[:].double() @ unknowns
    found: Tensor = 0.5 * products[:, :-1].abs() @ signs + products[:, -1]
    return found


@pytest.fixture(params=[2**21, 1], ids=["whole", "blocks"])
def by_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a whole, or 64 rows at a time."""
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", request.param)


@pytest.mark.usefixtures("by_blocks")
@pytest.mark.parametrize(("p", "d", "n"), [(97, 5, 3), (1, 1, 1), (64, 7, 1), (129, 2, 4)])
def test_residual_gradient_and_product_are_those_of_the_jacobian(p: int, d: int, n: int) -> None:
    rows, at = example(p, d, n)
    jacobian = torch.autograd.functional.jacobian(lambda x: model(rows, x, at.signs), at.model.columns).reshape(p, -1)
    found = linearise(rows, at)
    expected = rows.theta - model(rows, at.model.columns, at.signs)
    torch.testing.assert_close(found.residual, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.gradient.flatten(), jacobian.T @ expected, rtol=1e-11, atol=1e-11)
    step = random(d, n + 1, seed=5)
    torch.testing.assert_close(
        found.product(step).flatten(), jacobian.T @ (jacobian @ step.flatten()), rtol=1e-11, atol=1e-11
    )
    assert found.loss == pytest.approx(float(expected.square().sum()))


@pytest.mark.usefixtures("by_blocks")
def test_products_with_rows() -> None:
    rows = Rows(random(130, 6, seed=7).float(), random(130, seed=8), scale=3.0)
    dense = 3 * rows.weights[:].double()
    right, left = random(6, 4, seed=9), random(130, 4, seed=10)
    torch.testing.assert_close(rows.times(right), dense @ right)
    torch.testing.assert_close(rows.transposed_times(left), dense.T @ left)
    torch.testing.assert_close(rows.gram(), dense.T @ dense)
    assert rows.effort.passes == 3
    assert rows.first(5).count == 5
    torch.testing.assert_close(rows.first(5).times(right), dense[:5] @ right)
    torch.testing.assert_close(rows.of(right).weights, dense @ right)


def test_the_metric_is_the_mean_over_gaussian_rows_where_the_angle_says_so() -> None:
    """E[sgn(g·u) sgn(g·w)] = 1 − 2θ/π, and E[… g gᵀ] that times I, and a part of rank 2 that the metric leaves out: at
    cos θ = 0.6, ¼ of it is [[0.1788, 0.1019], …] in the plane of u and w; and where they agree, exactly ¼ I."""
    u, w = torch.tensor([1.0, 0, 0]).double(), torch.tensor([0.6, 0.8, 0]).double()
    at = Even(torch.stack([u, w]), torch.tensor([1.0, -1.0]).double(), torch.zeros(3).double())
    rows = Rows(random(200_000, 3, seed=11), torch.zeros(200_000).double())
    here = linearise(rows, at)
    step = torch.zeros(3, 3).double()
    step[2, 0] = 1  # across the plane, where the metric is exact
    found, expected = here.product(step), here.metric(step)
    torch.testing.assert_close(found / rows.count, expected / rows.count, rtol=0, atol=5e-3)  # 5·¼√3/√p
    across = -(1 - 2 * math.acos(0.6) / math.pi) / 4
    assert float(expected[2, 1]) / rows.count == pytest.approx(across)
    torch.testing.assert_close(here.solve_metric(here.metric(step)), step)


def test_a_step_moves_images_and_offset() -> None:
    _, at = example()
    step = random(5, 4, seed=12)
    there = at.moved(step)
    torch.testing.assert_close(there.model.columns, at.model.columns + step)
    assert torch.equal(there.signs, at.signs)
