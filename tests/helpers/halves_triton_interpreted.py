"""The Triton kernels of halves on the CPU, by Triton's interpreter: run by tests/ops/halves/test_triton.py, in a
process of its own."""

from __future__ import annotations

import pytest
import torch

from memrecon_fast.ops.halves import plain
from memrecon_fast.ops.halves import triton as ops
from memrecon_fast.ops.launch import INTERPRETED
from tests.helpers.against_plain_halves import (
    KINDS,
    SHAPES,
    assert_same,
    check_split,
    check_sums,
    random_numbers,
    random_sums,
    special_rows,
    special_sums,
)

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of overflow and NaN


def test_this_is_the_interpreter() -> None:
    assert INTERPRETED


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape: tuple[int, int, int]) -> None:
    rows, segments, segment = shape
    check_split(ops, random_numbers(rows, segments * segment), segment, "cpu")
    check_sums(ops, random_sums(*shape, bias=True, slope=0.01), "cpu")


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(kind: tuple[bool, float | None]) -> None:
    check_sums(ops, random_sums(3, 5, 6, *kind), "cpu")


def test_special_values() -> None:
    check_split(ops, special_rows(), 2, "cpu")
    for sums in special_sums():
        check_sums(ops, sums, "cpu")


def test_what_is_not_contiguous_is_split_all_the_same() -> None:
    for numbers in (random_numbers(6, 8).T, random_numbers(8, 12)[:, ::2], random_numbers(1, 6).expand(8, 6)):
        assert_same(ops.split(numbers, 2), plain.split(numbers.clone(memory_format=torch.contiguous_format), 2))
