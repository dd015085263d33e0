"""What any implementation of the operations on halves must do to be exchangeable for ops/halves/plain.py."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from memrecon_fast.ops.halves import Halves, Sums, plain
from tests.helpers.against_plain import bits

SHAPES = [
    *[(0, 1, 5), (1, 1, 1), (5, 1, 1), (2, 1, 3), (3, 1, 127), (2, 1, 128), (3, 1, 129), (2, 1, 2049), (3, 1, 4100)],
    *[(0, 3, 4), (2, 3, 1), (3, 25, 3), (2, 16, 4), (5, 7, 2), (2, 9, 70), (1, 257, 9)],
]
"""Rows, segments of a row, and numbers in each."""
KINDS = [(False, None), (True, None), (True, 0.01), (False, 0.0), (True, 0.0), (True, -0.5)]
"""With a bias or without, and the slope."""
_LIMITS = torch.finfo(torch.float32)
SPECIAL = [
    *[0.0, -0.0, 1e-45, -3e-40, _LIMITS.tiny, -1.1754942e-38, 65504.0, 65520.0, -1.0, 1 / 3, 1 + 2.0**-11],
    *[1 + 2.0**-22, 2.0**-14, 6e-8, 3e38, _LIMITS.max, -_LIMITS.max, torch.inf, -torch.inf, torch.nan],
]


def random_numbers(*shape: int) -> Tensor:
    """Of all signs, over 40 octaves."""
    generator = torch.Generator().manual_seed(sum(shape))
    found = torch.randn(shape, generator=generator)
    return found * torch.exp2(torch.randint(-20, 20, shape, generator=generator))


def random_sums(rows: int, segments: int, segment: int, bias: bool = True, slope: float | None = None) -> Sums:
    generator = torch.Generator().manual_seed(7)
    exponents, of_outputs = (torch.randint(-30, 30, (n,), generator=generator).int() for n in (rows, segment))
    return Sums(
        random_numbers(rows, segments * segment),
        exponents,
        of_outputs,
        random_numbers(segment) if bias else None,
        None if slope is None else torch.tensor([slope]),
    )


def special_rows() -> Tensor:
    """Of each pair of special values, in any order, one row; among them rows of nothing but small numbers."""
    values = torch.tensor(SPECIAL)
    pairs = torch.cartesian_prod(values, values)
    return torch.cat([pairs, pairs * 0.999], dim=1)


def special_sums() -> list[Sums]:
    """Of numbers and powers of two that leave what float32 has, in every kind; each pair of values in one of them."""
    extremes = torch.tensor([-126, -114, -1, 0, 1, 126], dtype=torch.int32)
    found = []
    for index, (bias, slope) in enumerate(KINDS):
        numbers = special_rows()[index :: len(KINDS)].contiguous()
        exponents = extremes[(torch.arange(len(numbers)) + index) % len(extremes)]
        of_outputs = torch.tensor([126, -114, 0, 5], dtype=torch.int32)
        added = torch.tensor([0.5, -3e38, 1e-45, -0.0]) if bias else None
        found.append(Sums(numbers, exponents, of_outputs, added, None if slope is None else torch.tensor([slope])))
    return found


def check_split(ops: Any, numbers: Tensor, segment: int, device: str) -> None:
    assert_same(ops.split(numbers.to(device), segment), plain.split(numbers, segment))


def check_sums(ops: Any, sums: Sums, device: str) -> None:
    tensors: dict[str, Any] = {name: None if one is None else one.to(device) for name, one in vars(sums).items()}
    there = dataclasses.replace(sums, **tensors)
    assert torch.equal(bits(ops.finish(there).cpu()), bits(plain.finish(sums)))
    assert_same(ops.split_sums(there), plain.split_sums(sums))


def assert_same(found: Halves, expected: Halves) -> None:
    assert torch.equal(found.exponents.cpu(), expected.exponents)
    assert found.values.dtype == torch.float16
    assert torch.equal(bits(found.values.cpu().float()), bits(expected.values.float()))
