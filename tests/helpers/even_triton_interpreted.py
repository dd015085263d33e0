"""The Triton kernels of the even model on the CPU, by Triton's interpreter: run by
tests/reconstruction/test_even_triton.py, in a process of its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from memrecon_fast.ops.launch import INTERPRETED
from memrecon_fast.reconstruction import even, even_triton
from memrecon_fast.reconstruction.even import Even
from memrecon_fast.reconstruction.rows import Rows
from memrecon_fast.reconstruction.weights import Drawn

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of products of 32 bits that overflow
CPU = torch.device("cpu")


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def point(n: int, d: int) -> Even:
    signs = torch.where(random(n, seed=3) < 0, -1.0, 1.0).double()
    return Even(random(n, d, seed=4), signs, random(d, seed=5))


def check(rows: Rows, at: Even, step: Tensor) -> None:
    """All that comes out, as from `even`, which is float64 as well: but for the order of sums of up to max(p, d)
    numbers."""
    expected, found = even.linearise(rows, at), even_triton.linearise(rows, at)
    assert torch.equal(found.sides, expected.sides)
    torch.testing.assert_close(found.residual, expected.residual, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.gradient, expected.gradient, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(even_triton.product(found, step), expected.product(step), rtol=1e-11, atol=1e-11)
    assert rows.effort.passes == 8


def test_this_is_the_interpreter() -> None:
    assert INTERPRETED


@pytest.mark.parametrize(
    ("p", "d", "n"), [(97, 5, 3), (1, 1, 1), (64, 64, 15), (33, 67, 16), (31, 130, 1), (100, 9, 40)]
)
@pytest.mark.parametrize("drawn", [False, True])
def test_shapes(p: int, d: int, n: int, drawn: bool) -> None:
    weights = Drawn(p, d, seed=2**40 + 9) if drawn else random(p, d, seed=1).float()
    check(Rows(weights, random(p, seed=2), scale=1.5), point(n, d), random(d, n + 1, seed=6))


def test_programs_with_several_blocks_of_rows_and_some_with_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(even_triton, "PROGRAMS", 2)
    rows = Rows(random(70, 6, seed=1).float(), random(70, seed=2))
    check(rows, point(2, 6), random(6, 3, seed=6))


def test_the_first_rows_alone() -> None:
    rows = Rows(random(70, 6, seed=1).float(), random(70, seed=2)).first(41)
    at, step = point(2, 6), random(6, 3, seed=6)
    found = even_triton.linearise(rows, at)
    torch.testing.assert_close(found.gradient, even.linearise(rows, at).gradient)
    torch.testing.assert_close(even_triton.product(found, step), even.linearise(rows, at).product(step))


def test_zeros_signs_of_zeros_and_denormal_numbers() -> None:
    weights = torch.eye(8).repeat(5, 1)
    weights[0], weights[1] = 0.0, -0.0
    weights[2] = 1e-40  # denormal
    weights[3] = -1e-45
    images = torch.zeros(2, 8, dtype=torch.float64)
    images[0, 0], images[1] = -0.0, random(8, seed=7)
    images[0, 3], images[0, 5] = -1e-310, 2e-310  # denormal
    at = Even(images, torch.tensor([1.0, -1.0]).double(), random(8, seed=5))
    check(Rows(weights, random(40, seed=2)), at, random(8, 3, seed=6))
    assert set(even_triton.linearise(Rows(weights, random(40, seed=2)), at).sides[0].tolist()) == {0, -1, 1}


@pytest.mark.parametrize(("p", "d", "seed"), [(1, 1, 0), (45, 7, 3), (33, 130, 2**64 - 1), (5, 64, 2**33)])
def test_what_is_drawn_is_the_same_bit_for_bit(p: int, d: int, seed: int) -> None:
    found = even_triton.draw(Drawn(p, d, seed), CPU)
    assert torch.equal(found.view(torch.int32), Drawn(p, d, seed)[:].view(torch.int32))


def test_what_the_kernels_cannot_have_is_refused() -> None:
    theta = random(40, seed=2)
    with pytest.raises(ValueError, match="V must be float32, contiguous"):
        even_triton.linearise(Rows(random(40, 6, seed=1), theta), point(2, 6))
    with pytest.raises(ValueError, match="V must be float32, contiguous"):
        even_triton.linearise(Rows(random(6, 40, seed=1).float().T, theta), point(2, 6))
    with pytest.raises(ValueError, match="at most 255 images, not 256"):
        even_triton.linearise(Rows(random(40, 2, seed=1).float(), theta), point(256, 2))
