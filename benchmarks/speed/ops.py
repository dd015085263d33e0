"""The fused ops against `ops/admm/plain.py`, and against a copy that moves as many bytes: their floor."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks.measuring import Compare
from memrecon_fast.ops.admm import Admm, AdmmState, plain
from memrecon_fast.ops.cpp import Admm as Kernels
from memrecon_fast.results import RUNNING

GAMMA = 0.5
SIZES = [(64, 768), (64, 3072), (64, 12288), (600, 12288)]
# bytes read and written per pixel
BYTES = {"start": 9, "step": 17, "close": 27, "advance": 12}


@pytest.mark.parametrize(("rows", "pixels"), SIZES)
@pytest.mark.parametrize("op", list(BYTES))
def test_op(compare: Compare, op: str, rows: int, pixels: int) -> None:
    (ours, v), (theirs, _) = slots(rows, pixels), slots(rows, pixels)
    call(Kernels, op, ours, v)()
    call(plain, op, theirs, v)()
    assert all(torch.equal(getattr(ours, name), getattr(theirs, name)) for name in ("s", "x", "mask"))
    copied = BYTES[op] * rows * pixels // 2  # a copy reads and writes
    source, target = torch.zeros(copied, dtype=torch.uint8), torch.ones(copied, dtype=torch.uint8)
    compare(
        call(Kernels, op, ours, v),
        {"plain": call(plain, op, theirs, v), "copy": lambda: target.copy_(source)},
        rounds=2000 if rows * pixels < 100_000 else 300,
        op=op,
        rows=rows,
        pixels=pixels,
        bytes=BYTES[op] * rows * pixels,
    )


def slots(rows: int, pixels: int) -> tuple[AdmmState, Tensor]:
    """Random images, and v."""
    generator = torch.Generator().manual_seed(0)
    state = AdmmState.allocate(rows, pixels, torch.device("cpu"))
    s, v, y, x = torch.rand(4, rows, pixels, generator=generator)
    for buffer, image in ((state.s, s), (state.y, y), (state.x, x)):
        buffer.copy_(image)
    for mask in (state.mask, state.anchor):
        mask.copy_(torch.rand(rows, pixels, generator=generator) < 0.5)
    state.status.fill_(RUNNING)
    state.coefficients.copy_(plain.coefficients(torch.full((rows,), GAMMA, dtype=torch.float64)))
    return state, v.clone()


def call(ops: Admm, op: str, state: AdmmState, v: Tensor) -> Callable[[], None]:
    calls: dict[str, Callable[[], None]] = {
        "start": lambda: ops.start(state),
        "step": lambda: ops.step(state, v),
        "close": lambda: ops.close(state, v, estimate_mask=True),
        "advance": lambda: ops.advance(state, v),
    }
    return calls[op]
