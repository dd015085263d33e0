"""The accelerated solver's Triton kernels on a GPU against its plain.py."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch

from memrecon_fast.ops.anderson import plain
from tests.helpers.against_plain import Buffers, clone
from tests.helpers.against_plain_anderson import (
    ESTIMATE_MASK,
    MEASURE,
    MIX,
    STOP,
    WEIGH,
    AndersonAgainstPlain,
    assert_same,
    bits,
    launch,
    random_buffers,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.skipif(torch.version.hip is not None, reason="not a CUDA device"),
]
ops: Any = pytest.importorskip("memrecon_fast.ops.anderson.triton", reason="Triton is not installed")
if pytest.importorskip("memrecon_fast.ops.launch").INTERPRETED:
    pytest.skip("the kernels are interpreted, on the CPU", allow_module_level=True)

LOOP: list[tuple[Any, ...]] = [MEASURE, ESTIMATE_MASK, STOP, WEIGH, MIX]


class TestGPU(AndersonAgainstPlain):
    ops: ClassVar[Any] = ops
    device: ClassVar[str] = "cuda"
    large_shapes: ClassVar[list[tuple[int, int]]] = [(600, 12288), (64, 3072), (61, 12289), (7, 196608), (3, 1_000_003)]


@pytest.mark.parametrize(("rows", "d", "places"), [(64, 3072, 6), (5, 769, 9), (16, 70, 2), (1, 1, 1)])
def test_captured_in_a_graph(rows: int, d: int, places: int) -> None:
    before = random_buffers(rows, d, places)
    here, eager = on_gpu(before), on_gpu(before)
    for operation in LOOP:  # compiles: a capture has no room for that
        launch(ops, operation, on_gpu(before))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for operation in LOOP:
            launch(ops, operation, here)
    for name, tensor in on_cpu(here).items():
        assert torch.equal(bits(tensor), bits(before[name])), name  # nothing ran yet
    for _ in range(3):
        graph.replay()
        for operation in LOOP:
            launch(ops, operation, eager)
        for name, tensor in on_cpu(here).items():
            assert torch.equal(bits(tensor), bits(on_cpu(eager)[name])), name


@pytest.mark.parametrize("operation", [MEASURE, MIX])
@pytest.mark.parametrize(("rows", "d"), [(30_000, 12288), (30_000, 12289)])
def test_more_pixels_than_an_int32_counts(operation: tuple[Any, ...], rows: int, d: int) -> None:
    places = 6
    assert rows * places * d > 2**31
    if torch.cuda.mem_get_info()[0] < 1.2 * rows * d * (16 + 8 * places):
        pytest.skip("too little memory")
    some = [0, 1, 5, rows // 2, *range(2**31 // (places * d) - 2, 2**31 // (places * d) + 3), rows - 2, rows - 1]
    few = random_buffers(len(some), d, places)
    buffers = {}
    for name, tensor in few.items():
        buffers[name] = torch.zeros(rows, *tensor.shape[1:], dtype=tensor.dtype, device="cuda")
        buffers[name][some] = tensor.cuda()
    expected = clone(few)
    launch(plain, operation, expected)
    launch(ops, operation, buffers)
    assert_same(operation, {name: buffers[name][some].cpu() for name in buffers}, expected)
    others = torch.ones(rows, dtype=torch.bool)
    others[some] = False
    for name, tensor in buffers.items():  # the others are not running, and stay 0
        assert not tensor.reshape(rows, -1).any(dim=1).cpu()[others].any(), name


def on_gpu(buffers: Buffers) -> Buffers:
    """Copies."""
    return {name: tensor.cuda() for name, tensor in buffers.items()}


def on_cpu(buffers: Buffers) -> Buffers:
    """Copies."""
    return {name: tensor.cpu() for name, tensor in buffers.items()}
