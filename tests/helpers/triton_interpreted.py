"""The Triton kernels on the CPU, by Triton's interpreter: run by test_triton.py, in a process of its own."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import pytest
import torch

from memrecon_fast.ops.admm import triton as ops
from tests.helpers.against_plain import ARGUMENTS, OF_PIXELS, AgainstPlain, bits, clone, launch, random_buffers

FURTHER: dict[str, tuple[Any, ...]] = {"close": (True,), "judge": (1e-9, 3, 200, 2)}


def test_this_is_the_interpreter() -> None:
    assert ops.INTERPRETED


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of overflow and NaN
class TestInterpreted(AgainstPlain):
    ops: ClassVar[Any] = ops
    device: ClassVar[str] = "cpu"
    large_shapes: ClassVar[list[tuple[int, int]]] = [(2, 12289), (7, 3072)]
    most_rows: ClassVar[int] = 400


@pytest.mark.parametrize(
    ("operation", "name"), [pair for key, names in ARGUMENTS.items() for pair in itertools.product([key], names)]
)
def test_what_is_refused(operation: str, name: str) -> None:
    good = random_buffers(4, 6)
    tensor = good[name]
    wrong = torch.float64 if tensor.dtype == torch.float32 else torch.uint8
    first = name == ARGUMENTS[operation][0]
    strided = torch.stack([tensor, tensor], dim=-1)[..., 0]
    faults: list[tuple[Any, type[Exception], str]] = [
        (tensor.numpy(), TypeError, f"^{name} must be a tensor, not ndarray"),
        (tensor.to(wrong), TypeError, f"^{name} must be of {tensor.dtype}, not {wrong}"),
        (tensor.to("meta"), ValueError, f"^{name} must be a dense tensor on cpu, not torch.strided on meta"),
        (tensor.to_sparse(), ValueError, f"^{name} must be a dense tensor on cpu, not torch.sparse_coo"),
        (tensor[..., None], ValueError, f"^{name} must have the shape "),
        (strided, ValueError, f"^{name} must be contiguous, but its strides are "),
    ]
    if not first:
        faults.append((tensor[:3], ValueError, rf"^{name} must have the shape \[4.*, not \[3"))
    if name in OF_PIXELS:
        shifted = torch.cat([tensor.reshape(-1)[:1], tensor.reshape(-1)])[1:].view(4, 6)
        faults.append((shifted, ValueError, f"^{name} must begin at a multiple of 16 bytes"))
    for fault, error, message in faults:
        buffers: dict[str, Any] = clone(good) | {name: fault}
        with pytest.raises(error, match=message):
            launch(ops, (operation, *FURTHER.get(operation, ())), buffers)
        for other in set(good) - {name}:
            assert torch.equal(bits(buffers[other]), bits(good[other])), f"{other} changed"


def test_rows_that_are_too_long_are_refused() -> None:
    # No rows: no memory is behind them, and none may be asked for.
    pixels = torch.zeros(0, ops.MAX_PIXELS + 1)
    with pytest.raises(ValueError, match=r"^there must be at most 1073741824 rows, and pixels in a row; not 0 of"):
        ops.start(pixels, pixels.clone(), pixels > 0, torch.zeros(0, 3))
