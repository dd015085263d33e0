"""The passes in Triton on a GPU, against those of the CPU; and the same in every run."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from memrecon_fast.reconstruction.passes import Kinked, plain
from memrecon_fast.reconstruction.rows import Rows
from memrecon_fast.reconstruction.weights import Drawn
from tests.helpers.kinked import random

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.skipif(torch.version.hip is not None, reason="not a CUDA device"),
]
passes: Any = pytest.importorskip("memrecon_fast.reconstruction.passes.triton", reason="Triton is not installed")
if pytest.importorskip("memrecon_fast.ops.launch").INTERPRETED:
    pytest.skip("the kernels are interpreted, on the CPU", allow_module_level=True)
CUDA = torch.device("cuda")


@pytest.mark.parametrize(("p", "d", "n"), [(100_003, 192, 20), (5_000, 3072, 100), (1, 1, 1), (20_001, 67, 3)])
@pytest.mark.parametrize("drawn", [False, True])
def test_against_the_cpu(p: int, d: int, n: int, drawn: bool) -> None:
    """To rounding: sums are of up to p numbers of size √d, in another order."""
    weights = Drawn(p, d, seed=2**40 + 9)
    theta, step = random(p, seed=2), random(d, n + 1, seed=6)
    signs = torch.where(random(n, seed=3) < 0, -1.0, 1.0).double()
    model = Kinked(random(d, n + 1, seed=4), torch.cat([0.5 * signs, signs.new_ones(1)]), False, True)
    stored = weights[:]
    expected = plain.linearise(Rows(stored, theta), model)
    rows = Rows(weights if drawn else stored.to(CUDA), theta.to(CUDA))
    (residual, sides, gradient), again = passes.linearise(rows, model), passes.linearise(rows, model)
    assert torch.equal(sides.cpu(), expected[1])
    assert torch.equal(gradient, again[2])
    torch.testing.assert_close(residual.cpu(), expected[0], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(gradient.cpu(), expected[2], rtol=1e-10, atol=1e-9)
    product = passes.product(rows, model.factors, sides, step)
    assert torch.equal(product, passes.product(rows, model.factors, sides, step))
    of_plain = plain.product(Rows(stored, theta), model.factors, expected[1], step)
    torch.testing.assert_close(product.cpu(), of_plain, rtol=1e-10, atol=1e-8)


@pytest.mark.parametrize(("p", "d", "seed"), [(1, 1, 0), (45, 7, 3), (2000, 192, 2**64 - 1)])
def test_what_is_drawn_is_the_same_bit_for_bit(p: int, d: int, seed: int) -> None:
    found = passes.draw(Drawn(p, d, seed), CUDA).cpu()
    assert torch.equal(found.view(torch.int32), Drawn(p, d, seed)[:].view(torch.int32))
