"""The accelerated solver's compiled CPU kernels against plain.py, on every instruction set, by one thread or more."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch

from tests.helpers.against_plain import Buffers, clone
from tests.helpers.against_plain_anderson import (
    ESTIMATE,
    ESTIMATE_MASK,
    MEASURE,
    MIX,
    OF_IMAGES,
    WEIGH,
    AndersonAgainstPlain,
    bits,
    launch,
    random_buffers,
)

_C: Any = pytest.importorskip("memrecon_fast._C", reason="built without the C++ kernels")
cpu: Any = pytest.importorskip("memrecon_fast.ops.cpp").Anderson


class TestCpu(AndersonAgainstPlain):
    ops: ClassVar[Any] = cpu
    device: ClassVar[str] = "cpu"
    large_shapes: ClassVar[list[tuple[int, int]]] = [(1, 70001), (7, 12289), (64, 1531)]  # enough for two threads
    threads = 1

    @pytest.fixture(params=_C.instruction_sets(), autouse=True)
    def instruction_set(self, request: pytest.FixtureRequest) -> Iterator[str]:
        """Run the test on each instruction set of this processor."""
        usual = _C.instruction_set()
        _C.use_instruction_set(request.param)
        yield request.param
        _C.use_instruction_set(usual)

    @pytest.mark.parametrize("threads", [2, 3])
    @pytest.mark.parametrize("operation", [*OF_IMAGES, WEIGH])
    def test_threads(self, operation: tuple[Any, ...], threads: int) -> None:
        self.threads = threads
        for rows, d, places in ((300, 2, 9),) if operation == WEIGH else ((7, 12289, 3), (64, 1531, 2)):
            self.check(operation, random_buffers(rows, d, places))

    def run(self, ops: Any, operation: tuple[Any, ...], buffers: Buffers) -> Buffers:
        if ops is not cpu:
            return super().run(ops, operation, buffers)
        with threads_of_torch(self.threads):
            return super().run(ops, operation, buffers)


@contextlib.contextmanager
def threads_of_torch(number: int) -> Iterator[None]:
    usual = torch.get_num_threads()
    torch.set_num_threads(number)
    yield
    torch.set_num_threads(usual)


@pytest.mark.parametrize("operation", [*OF_IMAGES, WEIGH])
def test_the_same_bits_on_all_instruction_sets_by_any_number_of_threads(operation: tuple[Any, ...]) -> None:
    shape = (300, 1, 9) if operation == WEIGH else (7, 12289, 4)
    usual = _C.instruction_set()
    results = []
    for name, threads in itertools.product(_C.instruction_sets(), (1, 2, 3)):
        buffers = random_buffers(*shape)
        _C.use_instruction_set(name)
        with threads_of_torch(threads):
            launch(cpu, operation, buffers)
        _C.use_instruction_set(usual)
        results.append(buffers)
    for other in results[1:]:
        assert all(torch.equal(bits(other[name]), bits(results[0][name])) for name in other)


@pytest.mark.parametrize("operation", [MEASURE, ESTIMATE, ESTIMATE_MASK])
def test_a_wrong_v_is_refused_before_anything_is_written(operation: tuple[Any, ...]) -> None:
    """tests/ops/test_state.py has what is refused."""
    good = random_buffers(4, 6, 3)
    for v in (good["v"].double(), good["v"][:3], torch.rand(6, 4).T):
        buffers = clone(good) | {"v": v}
        with pytest.raises((TypeError, ValueError), match=r"^v must "):
            launch(cpu, operation, buffers)
        for name in set(good) - {"v"}:
            assert torch.equal(bits(buffers[name]), bits(good[name])), f"{name} changed"


def test_v_may_share_memory_with_what_is_only_read() -> None:
    buffers = random_buffers(4, 6, 3)
    buffers["v"] = buffers["y"]
    expected: Buffers = clone(buffers)
    for side in (buffers, expected):
        launch(cpu, MEASURE, side)
        launch(cpu, MIX, side)
    assert all(torch.equal(bits(buffers[name]), bits(expected[name])) for name in buffers)
