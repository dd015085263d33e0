"""The accelerated solver's Triton kernels in Triton's interpreter: run by tests/ops/anderson/test_triton.py."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch

from memrecon_fast.ops.anderson import triton as ops
from memrecon_fast.ops.launch import INTERPRETED
from tests.helpers.against_plain import FEW_SHAPES, clone
from tests.helpers.against_plain_anderson import (
    ALL,
    ESTIMATE_MASK,
    MEASURE,
    OF_IMAGES,
    WEIGH,
    AndersonAgainstPlain,
    bits,
    launch,
    random_buffers,
    running,
)


def test_this_is_the_interpreter() -> None:
    assert INTERPRETED


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of overflow and NaN
class TestInterpreted(AndersonAgainstPlain):
    ops: ClassVar[Any] = ops
    device: ClassVar[str] = "cpu"
    large_shapes: ClassVar[list[tuple[int, int]]] = [(2, 12289), (3, 3072)]
    most_rows: ClassVar[int] = 40

    # The interpreter takes some 50 ms for a row: fewer of them are enough, and a GPU runs all.

    @pytest.mark.parametrize("shape", FEW_SHAPES)
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


@pytest.mark.parametrize("operation", [MEASURE, ESTIMATE_MASK])
def test_a_wrong_v_is_refused_before_anything_is_written(operation: tuple[Any, ...]) -> None:
    """tests/ops/test_state.py has what is refused."""
    good = random_buffers(4, 6, 3)
    for v in (good["v"].double(), good["v"][:3], good["v"].to("meta"), torch.rand(25)[1:].view(4, 6)):
        buffers = clone(good) | {"v": v}
        with pytest.raises((TypeError, ValueError), match=r"^v must "):
            launch(ops, operation, buffers)
        for other in set(good) - {"v"}:
            assert bits(buffers[other]).equal(bits(good[other])), f"{other} changed"
