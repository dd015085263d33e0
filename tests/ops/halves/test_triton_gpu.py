"""Halves on a GPU: the kernels against ops/halves/plain.py, and what the tensor cores make of the products."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from memrecon_fast.ops import halves
from memrecon_fast.ops.halves import Sums, plain
from tests.helpers.against_plain_halves import (
    KINDS,
    SHAPES,
    check_split,
    check_sums,
    random_numbers,
    random_sums,
    special_rows,
    special_sums,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.skipif(torch.version.hip is not None, reason="not a CUDA device"),
]
ops: Any = pytest.importorskip("memrecon_fast.ops.halves.triton", reason="Triton is not installed")
if pytest.importorskip("memrecon_fast.ops.launch").INTERPRETED:
    pytest.skip("the kernels are interpreted, on the CPU", allow_module_level=True)


@pytest.mark.parametrize("shape", [*SHAPES, (600, 1, 12288), (64, 4096, 48), (7, 65536, 3)])
def test_shapes(shape: tuple[int, int, int]) -> None:
    rows, segments, segment = shape
    check_split(ops, random_numbers(rows, segments * segment), segment, "cuda")
    for kind in KINDS:
        check_sums(ops, random_sums(*shape, *kind), "cuda")


def test_special_values() -> None:
    check_split(ops, special_rows(), 2, "cuda")
    for sums in special_sums():
        check_sums(ops, sums, "cuda")


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(600, 1024, 1024), (64, 12288, 1024), (4, 1024, 12288)])
def test_a_product_on_tensor_cores_is_far_better_than_tf32(rows: int, inputs: int, outputs: int) -> None:
    """How tensor cores round their sums is not documented: an eighth of the error of TF32 at the most, and printed."""
    generator = torch.Generator().manual_seed(0)
    a = torch.nn.functional.leaky_relu(torch.randn(rows, inputs, generator=generator))
    weights = torch.randn(outputs, inputs, generator=generator) * (2 / inputs) ** 0.5
    exact = a.double() @ weights.double().T
    left, right = ops.split(a.cuda(), inputs), plain.split_weights(weights.cuda()[:, None])
    sums = halves.multiply(left.values, right.values.T)
    found = ops.finish(Sums(sums, left.exponents, right.exponents)).cpu().double()
    error = float((found - exact).norm() / exact.norm())
    print(f"{rows} x {inputs} x {outputs}: {error:.1e}")
    assert error < 3e-4 / 8
