"""The fused ops against `ops/admm/plain.py`, and against a copy that moves as many bytes: their floor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.measuring import Compare
from memrecon_fast.ops.admm import cpp as cpu
from memrecon_fast.ops.admm import plain
from memrecon_fast.results import RUNNING

GAMMA = 0.5
SIZES = [(64, 768), (64, 3072), (64, 12288), (600, 12288)]
# bytes read and written per pixel
BYTES = {"start": 9, "step": 17, "close": 27, "advance": 12}


@pytest.mark.parametrize(("rows", "pixels"), SIZES)
@pytest.mark.parametrize("op", list(BYTES))
def test_op(compare: Compare, op: str, rows: int, pixels: int) -> None:
    ours, theirs = buffers(rows, pixels), buffers(rows, pixels)
    call(cpu, op, ours)()
    call(plain, op, theirs)()
    assert all(torch.equal(ours[name], theirs[name]) for name in ("s", "x", "mask"))
    copied = BYTES[op] * rows * pixels // 2  # a copy reads and writes
    source, target = torch.zeros(copied, dtype=torch.uint8), torch.ones(copied, dtype=torch.uint8)
    compare(
        call(cpu, op, ours),
        {"plain": call(plain, op, theirs), "copy": lambda: target.copy_(source)},
        rounds=2000 if rows * pixels < 100_000 else 300,
        op=op,
        rows=rows,
        pixels=pixels,
        bytes=BYTES[op] * rows * pixels,
    )


def buffers(rows: int, pixels: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = {name: torch.rand(rows, pixels, generator=generator) for name in ("s", "v", "y", "x")}
    return images | {
        "mask": torch.rand(rows, pixels, generator=generator) < 0.5,
        "anchor": torch.rand(rows, pixels, generator=generator) < 0.5,
        "residual": torch.zeros(rows),
        **{name: torch.zeros(rows, dtype=torch.bool) for name in ("settled", "recurs", "renew")},
        "status": torch.full((rows,), RUNNING, dtype=torch.int8),
        "coefficients": plain.coefficients(torch.full((rows,), GAMMA, dtype=torch.float64)),
    }


def call(module: Any, op: str, b: dict[str, Tensor]) -> Callable[[], None]:
    names = {
        "start": ("s", "y", "mask", "coefficients"),
        "step": ("s", "v", "y", "mask", "coefficients"),
        "close": (
            *("s", "v", "y", "mask", "anchor", "x"),
            *("residual", "settled", "recurs", "renew", "status", "coefficients"),
        ),
        "advance": ("x", "v", "residual", "status"),
    }[op]
    arguments = [b[name] for name in names] + ([True] if op == "close" else [])
    function = getattr(module, op)
    return lambda: function(*arguments)
