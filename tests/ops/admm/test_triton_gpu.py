"""The Triton kernels on a GPU against ops/admm/plain.py: the tests of the interpreter, and what only a GPU can run."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch

from memrecon_fast.ops.admm import plain
from memrecon_fast.results import RUNNING
from tests.helpers.against_plain import (
    CLOSE_ESTIMATING_MASK,
    OF_IMAGES,
    AgainstPlain,
    Buffers,
    assert_same,
    clone,
    launch,
    random_buffers,
    vectors,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.skipif(torch.version.hip is not None, reason="not a CUDA device"),
]
ops: Any = pytest.importorskip("memrecon_fast.ops.admm.triton", reason="Triton is not installed")
if pytest.importorskip("memrecon_fast.ops.launch").INTERPRETED:
    pytest.skip("the kernels are interpreted, on the CPU", allow_module_level=True)

LOOP = [("start",), ("step",), ("step",), CLOSE_ESTIMATING_MASK, ("stop", 1e-9, 3, 200, 2), ("advance",)]


class TestGPU(AgainstPlain):
    ops: ClassVar[Any] = ops
    device: ClassVar[str] = "cuda"
    large_shapes: ClassVar[list[tuple[int, int]]] = [(600, 12288), (64, 3072), (61, 12289), (7, 196608), (3, 1_000_003)]


@pytest.mark.parametrize(("rows", "d"), [(64, 3072), (5, 769), (16, 70), (1, 1)])
def test_captured_in_a_graph(rows: int, d: int) -> None:
    before = random_buffers(rows, d)
    expected, here = clone(before), on_gpu(before)
    for operation in LOOP:  # compiles: a capture has no room for that
        launch(ops, operation, on_gpu(before))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for operation in LOOP:
            launch(ops, operation, here)
    assert_same(on_cpu(here), before)  # nothing ran yet
    for _ in range(2):
        graph.replay()
        for operation in LOOP:
            launch(plain, operation, expected)
        assert_same(on_cpu(here), expected)


@pytest.mark.parametrize("operation", OF_IMAGES)
@pytest.mark.parametrize(("rows", "d"), [(175_000, 12288), (174_763, 12289)])
def test_more_pixels_than_an_int32_counts(operation: tuple[Any, ...], rows: int, d: int) -> None:
    assert rows * d > 2**31
    if torch.cuda.mem_get_info()[0] < 20 * rows * d:
        pytest.skip("too little memory")
    images = {name: torch.empty(rows, d, device="cuda") for name in "svyx"}
    images |= {name: torch.empty(rows, d, dtype=torch.bool, device="cuda") for name in ("mask", "anchor")}
    buffers = images | on_gpu(vectors([0.1 + row % 7 for row in range(rows)]))
    some = [0, 1, 5, rows // 2, *range(2**31 // d - 2, 2**31 // d + 3), rows - 2, rows - 1]
    few = random_buffers(len(some), d) | {"status": torch.full((len(some),), RUNNING, dtype=torch.int8)}
    for name in images:
        buffers[name].zero_()
        buffers[name][some] = few[name].cuda()
    for name in set(few) & set(buffers) - set(images):
        few[name] = buffers[name][some].cpu()
    launch(plain, operation, few)
    launch(ops, operation, buffers)
    assert_same({name: buffers[name][some].cpu() for name in buffers}, {name: few[name] for name in buffers})
    others = torch.ones(rows, dtype=torch.bool)
    others[some] = False
    # In all other rows each image is 0 and erased: so 0 stays, and 0 ≤ 0 ≤ 2·0 counts as kept.
    if operation == CLOSE_ESTIMATING_MASK:
        assert buffers["mask"].all(dim=1).cpu()[others].all()
        buffers["mask"].zero_()
    for name in images:
        assert not buffers[name].any(dim=1).cpu()[others].any(), name


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_buffers_say_on_which_gpu() -> None:
    before = random_buffers(5, 97)
    here = {name: tensor.to("cuda:1") for name, tensor in before.items()}
    launch(ops, ("step",), here)
    launch(plain, ("step",), before)
    assert_same(on_cpu(here), before)


def on_gpu(buffers: Buffers) -> Buffers:
    """Copies."""
    return {name: tensor.cuda() for name, tensor in buffers.items()}


def on_cpu(buffers: Buffers) -> Buffers:
    """Copies."""
    return {name: tensor.cpu() for name, tensor in buffers.items()}
