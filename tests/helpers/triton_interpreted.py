"""The Triton kernels on the CPU, by Triton's interpreter: run by test_triton.py, in a process of its own."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch

from memrecon_fast.ops.admm import AdmmState
from memrecon_fast.ops.admm import triton as ops
from memrecon_fast.ops.launch import INTERPRETED, MAX_PIXELS
from tests.helpers.against_plain import (
    CLOSE_ESTIMATING_MASK,
    FEW_SHAPES,
    OF_IMAGES,
    AgainstPlain,
    bits,
    clone,
    launch,
    random_buffers,
    state_of,
)


def test_this_is_the_interpreter() -> None:
    assert INTERPRETED


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of overflow and NaN
class TestInterpreted(AgainstPlain):
    ops: ClassVar[Any] = ops
    device: ClassVar[str] = "cpu"
    large_shapes: ClassVar[list[tuple[int, int]]] = [(2, 12289), (7, 3072)]
    most_rows: ClassVar[int] = 100

    @pytest.mark.parametrize("shape", FEW_SHAPES)
    @pytest.mark.parametrize("operation", OF_IMAGES)
    def test_shapes(self, operation: tuple[Any, ...], shape: tuple[int, int]) -> None:
        super().test_shapes(operation, shape)


@pytest.mark.parametrize("operation", [("step",), CLOSE_ESTIMATING_MASK, ("advance",)])
def test_a_wrong_v_is_refused_before_anything_is_written(operation: tuple[Any, ...]) -> None:
    """tests/ops/test_state.py has what is refused."""
    good = random_buffers(4, 6)
    shifted = torch.rand(25)[1:].view(4, 6)
    for v in (good["v"].double(), good["v"][:3], good["v"].to("meta"), torch.rand(6, 4).T, shifted):
        buffers = clone(good) | {"v": v}
        with pytest.raises((TypeError, ValueError), match=r"^v must "):
            launch(ops, operation, buffers)
        for other in set(good) - {"v"}:
            assert torch.equal(bits(buffers[other]), bits(good[other])), f"{other} changed"


def test_what_cannot_be_compared_is_refused() -> None:
    a, out = torch.rand(4, 6), torch.zeros(4)
    with pytest.raises(ValueError, match=r"^b must begin at a multiple of 16 bytes"):
        ops.mean_squares(a, torch.rand(25)[1:].view(4, 6), out)


def test_slots_elsewhere_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    state = state_of(AdmmState, random_buffers(4, 6))
    monkeypatch.setattr("memrecon_fast.ops.launch.DEVICE_TYPE", "cuda")
    with pytest.raises(ValueError, match=r"^the slots must be on cuda, not on cpu$"):
        ops.start(state)


def test_rows_that_are_too_long_are_refused() -> None:
    state = AdmmState.allocate(0, MAX_PIXELS + 1, torch.device("cpu"))  # no rows: no memory is behind them
    with pytest.raises(ValueError, match=r"^there must be at most 1073741824 rows, and pixels in a row; not 0 of"):
        ops.start(state)
