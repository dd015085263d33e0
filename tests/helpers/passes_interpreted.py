"""The Triton kernels of passes on the CPU, by Triton's interpreter: run by tests/reconstruction/test_passes_triton.py,
in a process of its own."""

from __future__ import annotations

import pytest
import torch

from memrecon_fast.ops.launch import INTERPRETED
from memrecon_fast.reconstruction.passes import plain, triton
from memrecon_fast.reconstruction.rows import Rows
from memrecon_fast.reconstruction.weights import Drawn
from tests.helpers.kinked import (
    KINDS,
    assert_close,
    check_against_plain,
    check_zeros,
    kinked,
    random,
    rows_of,
)

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of products of 32 bits that overflow
CPU = torch.device("cpu")


def test_this_is_the_interpreter() -> None:
    assert INTERPRETED


@pytest.mark.parametrize(
    ("p", "d", "m"), [(97, 5, 4), (1, 1, 1), (64, 64, 16), (33, 67, 17), (31, 130, 2), (100, 9, 41)]
)
@pytest.mark.parametrize("stored_as", [torch.float32, None])
def test_shapes(p: int, d: int, m: int, stored_as: torch.dtype | None) -> None:
    check_against_plain(triton, rows_of(p, d, stored_as), kinked(d, m))


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(kind: tuple[bool, bool]) -> None:
    check_against_plain(triton, rows_of(70, 6, torch.float32), kinked(6, 3, kind))


def test_programs_with_several_blocks_of_rows_and_some_with_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "PROGRAMS", 2)
    check_against_plain(triton, rows_of(70, 6, torch.float32), kinked(6, 3))


def test_the_first_rows_alone() -> None:
    rows, model, step = rows_of(70, 6, torch.float32).first(41), kinked(6, 3), random(6, 3, seed=6)
    residual, sides, gradient = triton.linearise(rows, model)
    expected = plain.linearise(rows, model)
    assert_close(residual, expected[0])
    assert_close(gradient, expected[2])
    found = triton.product(rows, model.factors, sides, step)
    assert_close(found, plain.product(rows, model.factors, expected[1], step))


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_signs_of_zeros_and_denormal_numbers(kind: tuple[bool, bool]) -> None:
    check_zeros(triton, kind)


@pytest.mark.parametrize(("p", "d", "seed"), [(1, 1, 0), (45, 7, 3), (33, 130, 2**64 - 1), (5, 64, 2**33)])
def test_what_is_drawn_is_the_same_bit_for_bit(p: int, d: int, seed: int) -> None:
    found = triton.draw(Drawn(p, d, seed), CPU)
    assert torch.equal(found.view(torch.int32), Drawn(p, d, seed)[:].view(torch.int32))


def test_what_the_kernels_cannot_have_is_refused() -> None:
    theta = random(40, seed=2)
    with pytest.raises(ValueError, match="V must be float32, contiguous"):
        triton.linearise(Rows(random(40, 6, seed=1), theta), kinked(6, 3))
    with pytest.raises(ValueError, match="V must be float32, contiguous"):
        triton.linearise(Rows(random(6, 40, seed=1).float().T, theta), kinked(6, 3))
    with pytest.raises(ValueError, match="at most 256 columns, not 257"):
        triton.linearise(Rows(random(40, 2, seed=1).float(), theta), kinked(2, 257))
