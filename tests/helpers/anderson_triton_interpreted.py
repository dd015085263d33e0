"""The accelerated solver's Triton kernels on the CPU, by Triton's interpreter: run by test_anderson_triton.py."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import pytest
import torch

from memrecon_fast.ops.admm.triton import INTERPRETED
from memrecon_fast.ops.anderson import triton as ops
from tests.helpers.against_plain import SHAPES, clone
from tests.helpers.against_plain_anderson import (
    ALL,
    ARGUMENTS,
    OF_IMAGES,
    OF_PIXELS,
    WEIGH,
    AndersonAgainstPlain,
    bits,
    launch,
    random_buffers,
    running,
)

OPERATIONS: dict[str, tuple[Any, ...]] = {str(operation[0]): operation for operation in ALL}
WRITTEN = {
    "measure": {"steps", "residuals", "gram"},
    "estimate": {"mask", "x", "best", "best_mask", "residual", "score", "best_score", "changed"},
    "assess": {
        *("residual", "milestone", "filled", "extrapolated", "held", "stalled", "mask_changes", "iterations"),
        *("below", "status"),
    },
    "weigh": {"head", "filled", "extrapolated", "base", "weights", "accepted", "rejected"},
    "mix": {"s"},
}


def test_this_is_the_interpreter() -> None:
    assert INTERPRETED


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of overflow and NaN
class TestInterpreted(AndersonAgainstPlain):
    ops: ClassVar[Any] = ops
    device: ClassVar[str] = "cpu"
    large_shapes: ClassVar[list[tuple[int, int]]] = [(2, 12289), (3, 3072)]
    most_rows: ClassVar[int] = 40

    # The interpreter takes some 50 ms for a row: fewer of them are enough, and a GPU runs all.

    @pytest.mark.parametrize("shape", [(rows, d) for rows, d in SHAPES if rows < 100])
    @pytest.mark.parametrize("operation", OF_IMAGES)
    def test_shapes(self, operation: tuple[Any, ...], shape: tuple[int, int]) -> None:
        super().test_shapes(operation, shape)

    @pytest.mark.parametrize("places", [1, 2, 3, 5])
    def test_every_place_and_number_of_evaluations(self, places: int) -> None:
        super().test_every_place_and_number_of_evaluations(places)

    @pytest.mark.parametrize("places", [9, 33])
    def test_many_places(self, places: int) -> None:
        buffers = random_buffers(6, 37, places, seed=1)
        for row, filled in enumerate((0, 1, places // 2, places - 2, places - 1, places - 1)):
            buffers["filled"][row] = filled
        for operation in ALL:
            self.check(operation, buffers)

    @pytest.mark.parametrize("settle", [0, 1, 2**31 - 1])
    @pytest.mark.parametrize("rows", [0, 1, 9])
    def test_weigh_on_random_products(self, rows: int, settle: int) -> None:
        super().test_weigh_on_random_products(rows, settle)

    def test_weigh_where_there_is_no_solution(self) -> None:
        nan, inf, huge = torch.nan, torch.inf, torch.finfo(torch.float64).max
        faults = [(0, 0, nan), (1, 3, nan), (0, 1, inf), (2, 2, inf), (0, 3, -inf), (1, 1, huge), (1, 2, huge)]
        faults += [(place, place, -1e6) for place in range(4)]
        rows = len(faults) + 2
        buffers = random_buffers(rows, 23, 4) | {"status": running(rows)}
        buffers["held"].fill_(2)
        buffers["filled"].fill_(3)
        for row, (i, j, value) in enumerate(faults):
            buffers["gram"][row, i, j] = buffers["gram"][row, j, i] = value
        buffers["gram"][-2] = 0.0
        buffers["gram"][-1] = 1.0
        actual = self.check(WEIGH, buffers)
        assert not actual["extrapolated"][-2:].any()

    @pytest.mark.parametrize("places", [3])
    def test_evaluations_one_after_the_other(self, places: int) -> None:
        super().test_evaluations_one_after_the_other(places)


@pytest.mark.parametrize(
    ("operation", "name"), [pair for key, names in ARGUMENTS.items() for pair in itertools.product([key], names)]
)
def test_what_is_refused(operation: str, name: str) -> None:
    # tests/ops/anderson/test_cpp.py has all else that the shared validation refuses.
    good = random_buffers(4, 6, 3)
    tensor = good[name]
    faults: list[tuple[Any, type[Exception], str]] = [
        (tensor.numpy(), TypeError, f"^{name} must be a tensor, not ndarray"),
        (tensor.to("meta"), ValueError, f"^{name} must be a dense tensor on cpu, not torch.strided on meta"),
        (tensor[..., None], ValueError, f"^{name} must have the shape "),
    ]
    if name in OF_PIXELS:
        memory = tensor.new_empty(tensor.numel() + 1)[1:]
        faults.append((memory.view(tensor.shape), ValueError, f"^{name} must begin at a multiple of 16 bytes"))
    for fault, error, message in faults:
        buffers: dict[str, Any] = clone(good) | {name: fault}
        with pytest.raises(error, match=message):
            launch(ops, OPERATIONS[operation], buffers)
        for other in set(good) - {name}:
            assert bits(buffers[other]).equal(bits(good[other])), f"{other} changed"


@pytest.mark.parametrize(("operation", "name"), [(key, name) for key, names in WRITTEN.items() for name in names])
def test_what_is_written_shares_no_memory(operation: str, name: str) -> None:
    good = random_buffers(4, 6, 3)
    for other in set(ARGUMENTS[operation]) - {name}:
        if good[other].dtype == good[name].dtype and good[other].shape == good[name].shape:
            with pytest.raises(ValueError, match=rf"^({name}|{other}) must share no memory with ({name}|{other})"):
                launch(ops, OPERATIONS[operation], good | {other: good[name]})
