"""The passes of the even model on a GPU, against those of the CPU; and the same in every run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from memrecon_fast.reconstruction import even
from memrecon_fast.reconstruction.even import Even
from memrecon_fast.reconstruction.rows import Rows
from memrecon_fast.reconstruction.weights import Drawn

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.skipif(torch.version.hip is not None, reason="not a CUDA device"),
]
even_triton: Any = pytest.importorskip("memrecon_fast.reconstruction.even_triton", reason="Triton is not installed")
if pytest.importorskip("memrecon_fast.ops.launch").INTERPRETED:
    pytest.skip("the kernels are interpreted, on the CPU", allow_module_level=True)
CUDA = torch.device("cuda")


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("p", "d", "n"), [(100_003, 192, 20), (5_000, 3072, 100), (1, 1, 1), (20_001, 67, 3)])
@pytest.mark.parametrize("drawn", [False, True])
def test_against_the_cpu(p: int, d: int, n: int, drawn: bool) -> None:
    """To rounding: sums are of up to p numbers of size √d, in another order."""
    weights = Drawn(p, d, seed=2**40 + 9)
    theta, step = random(p, seed=2), random(d, n + 1, seed=6)
    at = Even(random(n, d, seed=4), torch.where(random(n, seed=3) < 0, -1.0, 1.0).double(), random(d, seed=5))
    stored = weights[:]
    expected = even.linearise(Rows(stored, theta), at)
    rows = Rows(weights if drawn else stored.to(CUDA), theta.to(CUDA))
    found, again = even_triton.linearise(rows, at), even_triton.linearise(rows, at)
    assert torch.equal(found.sides.cpu(), expected.sides)
    assert torch.equal(found.gradient, again.gradient)
    torch.testing.assert_close(found.residual.cpu(), expected.residual, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(found.gradient.cpu(), expected.gradient, rtol=1e-10, atol=1e-9)
    product = even_triton.product(found, step)
    assert torch.equal(product, even_triton.product(found, step))
    torch.testing.assert_close(product.cpu(), expected.product(step), rtol=1e-10, atol=1e-8)


@pytest.mark.parametrize(("p", "d", "seed"), [(1, 1, 0), (45, 7, 3), (2000, 192, 2**64 - 1)])
def test_what_is_drawn_is_the_same_bit_for_bit(p: int, d: int, seed: int) -> None:
    found = even_triton.draw(Drawn(p, d, seed), CUDA).cpu()
    assert torch.equal(found.view(torch.int32), Drawn(p, d, seed)[:].view(torch.int32))
