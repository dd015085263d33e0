"""The accelerated solver's compiled CPU kernels against plain.py, on every instruction set, by one thread or more."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from tests.helpers.against_plain import Buffers, clone
from tests.helpers.against_plain_anderson import (
    ALL,
    ARGUMENTS,
    ASSESS,
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
cpu: Any = pytest.importorskip("memrecon_fast.ops.anderson.cpp")

KERNELS: dict[str, tuple[Any, ...]] = {str(operation[0]): operation for operation in ALL if operation != ASSESS}
WRITTEN = {
    "measure": {"steps", "residuals", "gram"},
    "estimate": {"mask", "x", "best", "best_mask", "residual", "score", "best_score", "changed"},
    "weigh": {"head", "filled", "extrapolated", "base", "weights", "accepted", "rejected"},
    "mix": {"s"},
}


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


def assert_refused(operation: str, buffers: dict[str, Any], error: type[Exception], message: str) -> None:
    before = {name: tensor.clone() for name, tensor in buffers.items() if isinstance(tensor, Tensor)}
    with pytest.raises(error, match=message):
        launch(cpu, KERNELS[operation], buffers)
    for name, tensor in before.items():
        if tensor.device.type == "cpu" and not tensor.is_sparse:
            assert torch.equal(bits(tensor), bits(buffers[name])), f"{name} changed"


@pytest.mark.parametrize(("operation", "name"), [(key, name) for key in KERNELS for name in ARGUMENTS[key]])
def test_what_is_refused(operation: str, name: str) -> None:
    good: dict[str, Any] = dict(random_buffers(4, 6, 3))
    tensor: Tensor = good[name]

    def refused(fault: Any, error: type[Exception], message: str) -> None:
        assert_refused(operation, good | {name: fault}, error, message)

    wrong = {torch.float32: torch.float64, torch.float64: torch.float32}.get(tensor.dtype, torch.uint8)
    refused(tensor.numpy(), TypeError, f"^{name} must be a tensor, not ndarray")
    refused(tensor.to(wrong), TypeError, f"^{name} must be of {tensor.dtype}, not {wrong}")
    refused(tensor.to("meta"), ValueError, f"^{name} must be a dense tensor on cpu, not .* on meta")
    refused(tensor.to_sparse(), ValueError, f"^{name} must be a dense tensor on cpu, not torch.sparse_coo")
    strided = torch.stack([tensor, tensor], dim=-1)[..., 0]
    refused(strided, ValueError, f"^{name} must be contiguous, but its strides are")
    more = tensor[..., None].contiguous()
    refused(more, ValueError, rf"^{name} must have the shape .*, not {re.escape(str(list(more.shape)))}")
    if name != ARGUMENTS[operation][0]:
        refused(
            tensor[:3], ValueError, rf"^{name} must have the shape \[4.*, not {re.escape(str([*tensor[:3].shape]))}$"
        )


@pytest.mark.parametrize(
    ("operation", "name", "dimension"),
    [
        *[("measure", "residuals", 1), ("measure", "residuals", 2), ("measure", "steps", 2)],
        *[("measure", "gram", 1), ("measure", "gram", 2), ("weigh", "gram", 2), ("weigh", "weights", 1)],
        *[("mix", "weights", 1), ("mix", "steps", 2), ("estimate", "best", 1), ("estimate", "best_mask", 1)],
    ],
)
def test_places_and_pixels_must_be_as_many_everywhere(operation: str, name: str, dimension: int) -> None:
    good: dict[str, Any] = dict(random_buffers(4, 6, 3))
    narrow = good[name].narrow(dimension, 0, 2).contiguous()
    message = re.escape(f"{name} must have the shape {list(good[name].shape)}, not {list(narrow.shape)}")
    assert_refused(operation, good | {name: narrow}, ValueError, f"^{message}$")


@pytest.mark.parametrize("places", [0, 34])
@pytest.mark.parametrize("operation", ["measure", "weigh", "mix"])
def test_too_few_or_too_many_places_are_refused(operation: str, places: int) -> None:
    buffers = random_buffers(2, 5, 3)
    for name, shape in {"steps": (2, places, 5), "residuals": (2, places, 5), "weights": (2, places)}.items():
        buffers[name] = torch.zeros(shape)
    buffers["gram"] = torch.zeros(2, places, places, dtype=torch.float64)
    assert_refused(operation, buffers, ValueError, f"^there must be 1 to 33 places for evaluations, not {places}$")


@pytest.mark.parametrize(
    ("operation", "name", "other"),
    [
        (operation, *pair)
        for operation, written in WRITTEN.items()
        for pair in itertools.combinations(ARGUMENTS[operation], 2)
        if written & set(pair)
    ],
)
def test_aliasing_is_refused(operation: str, name: str, other: str) -> None:
    buffers = random_buffers(4, 6, 3)
    shared = {side: buffers[side].clone() for side in (name, other)}
    size, other_size = (tensor.nbytes for tensor in shared.values())
    memory = torch.zeros(size + other_size, dtype=torch.uint8)

    def put(side: str, begin: int) -> None:
        inside = memory[begin : begin + shared[side].nbytes]
        buffers[side] = inside.view(shared[side].dtype).view(shared[side].shape)

    put(name, 0)
    width = shared[other].element_size()
    for begin in (0, (size - 1) // width * width):  # all of it, and the last bytes
        put(other, begin)
        message = f"^({name}|{other}) must share no memory with ({name}|{other})"
        assert_refused(operation, dict(buffers), ValueError, message)
    if size % width == 0:  # side by side is not shared
        put(other, size)
        for side, tensor in shared.items():
            buffers[side].copy_(tensor)
        launch(cpu, KERNELS[operation], buffers)


def test_arguments_that_are_only_read_may_share() -> None:
    buffers = random_buffers(4, 6, 3)
    buffers["v"] = buffers["y"]
    buffers["head"] = buffers["filled"]
    expected: Buffers = clone(buffers)
    for side in (buffers, expected):
        launch(cpu, MEASURE, side)
        launch(cpu, MIX, side)
    assert all(torch.equal(bits(buffers[name]), bits(expected[name])) for name in buffers)
