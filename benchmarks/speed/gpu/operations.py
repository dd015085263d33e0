"""The operations of both solvers: their arguments, random buffers for them, and the kernels against plain torch."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from benchmarks.speed.gpu.device import Device
from memrecon_fast.ops import admm, anderson
from memrecon_fast.ops.admm import AdmmState, plain, triton
from memrecon_fast.ops.anderson import AndersonState
from memrecon_fast.ops.anderson import plain as anderson_plain
from memrecon_fast.ops.anderson import triton as anderson_triton
from memrecon_fast.ops.state import Order, State
from memrecon_fast.results import RUNNING, Status
from memrecon_fast.settings import PROGRESS

Buffers = dict[str, Tensor]
Functions = dict[str, ModuleType]
"""By solver, what has its operations."""
OPERATIONS: dict[str, list[tuple[Any, ...]]] = {
    "paper": [
        *[("start",), ("step",), ("close", False), ("close", True), ("advance",), ("mean_squares",)],
        *[("stop", tolerance, patience, 7, first) for tolerance, patience, first in ((0.3, 3, 2), (0.0, 1, 1))],
    ],
    "accelerated": [
        *[("measure",), ("estimate", False), ("estimate", True)],
        *[("stop", 0.3, 3, 4, 2, 7), ("weigh", 2), ("mix",)],
    ],
}
"""By solver, with their numbers."""
FILES = {"paper": "ops/admm/plain.py", "accelerated": "ops/anderson/plain.py"}
OF_PIXELS = ("s", "v", "y", "x", "best", "mask", "anchor", "best_mask", "steps", "residuals")
"""The buffers with an entry for each pixel; the others have one for each row, or a few."""
_SUMS = {
    **dict.fromkeys(("close", "advance", "mean_squares"), ("residual",)),
    "estimate": ("residual", "score", "best_score"),
}
"""What an operation sums over pixels, but for `gram`."""


PLAIN: Functions = {"paper": plain, "accelerated": anderson_plain}
KERNELS: Functions = {"paper": triton, "accelerated": anderson_triton}
STATES: dict[str, type[State]] = {"paper": AdmmState, "accelerated": AndersonState}
ORDERS = {
    "paper": {
        "start": admm.START,
        "step": admm.STEP,
        "close": admm.CLOSE,
        "advance": admm.ADVANCE,
        "stop": admm.STOP,
        "mean_squares": Order("v x residual!"),  # v is compared with x
    },
    "accelerated": {
        "measure": anderson.MEASURE,
        "estimate": anderson.ESTIMATE,
        "stop": anderson.STOP,
        "weigh": anderson.WEIGH,
        "mix": anderson.MIX,
    },
}
_NUMBERS = {
    ("paper", "close"): ("estimate_mask",),
    ("paper", "stop"): ("tolerance", "patience", "limit", "first_comparison"),
    ("accelerated", "estimate"): ("estimate_mask",),
    ("accelerated", "stop"): ("tolerance", "patience", "stall", "settled_counts", "limit"),
    ("accelerated", "weigh"): ("settle",),
}


class Failed(Exception):
    """A check that was not passed: how."""


def prepare(functions: Functions, solver: str, operation: tuple[Any, ...], buffers: Buffers) -> Callable[[], None]:
    """What runs an operation in place; the buffers that it does not name are 0."""
    name, *numbers = operation
    function, names = getattr(functions[solver], name), ORDERS[solver][name].names
    if name == "mean_squares":
        return functools.partial(function, *(buffers[argument] for argument in names))
    given = {argument: buffers[argument] for argument in names if argument != "v"}
    v = [buffers["v"]] if "v" in names else []
    keywords = dict(zip(_NUMBERS.get((solver, name), ()), numbers, strict=True))
    return functools.partial(function, _state(STATES[solver], given), *v, **keywords)


def _state(kind: type[State], given: Buffers) -> State:
    sizes = {"d": 1, "q": 1}
    for name, tensor in given.items():
        axes = kind.buffers()[name].axes
        sizes |= {axis: size for axis, size in zip(axes, tensor.shape, strict=True) if isinstance(axis, str)}
    empty = kind.allocate(sizes["rows"], sizes["d"], next(iter(given.values())).device, sizes["q"])
    return dataclasses.replace(empty, **given)


def random_buffers(rows: int, d: int, places: int = 0) -> Buffers:
    """Images, a γ of its own for each row, and counters; two of three rows are running.

    With a ring of so many places, where there are any, whose residuals are of different sizes.
    """
    generator = torch.Generator().manual_seed(rows + d)

    def counter(below: int) -> Tensor:
        return torch.randint(below, (rows,), generator=generator, dtype=torch.int32)

    buffers = {name: torch.randn(rows, d, generator=generator) for name in ("s", "v", "y", "x", "best")}
    for name in ("mask", "anchor", "best_mask"):
        buffers[name] = torch.rand(rows, d, generator=generator) < 0.5
    buffers["coefficients"] = plain.coefficients(0.05 + 3 * torch.rand(rows, generator=generator, dtype=torch.float64))
    for name in ("residual", "score"):
        buffers[name] = torch.rand(rows, generator=generator)
    for name in ("settled", "recurs", "renew", "changed", "extrapolated"):
        buffers[name] = torch.rand(rows, generator=generator) < 0.5
    for name in ("iterations", "blocks", "below", "anchored", "period"):
        buffers[name] = counter(7)
    for name in ("held", "accepted", "rejected", "stalled", "mask_changes"):
        buffers[name] = counter(7)
    # of any score: progress or not, and better than the best one or not, however it is rounded
    buffers["milestone"] = buffers["score"] / PROGRESS * torch.where(torch.arange(rows) % 2 == 0, 0.5, 2.0)
    buffers["best_score"] = torch.where(torch.rand(rows, generator=generator) < 0.5, 1e-6, 1e6)
    others = torch.randint(len(Status), (rows,), generator=generator, dtype=torch.int8)
    buffers["status"] = torch.where(torch.arange(rows) % 3 == 2, others, torch.tensor(RUNNING, dtype=torch.int8))
    if places:
        sizes = torch.pow(10.0, 2 * torch.rand(rows, places, 1, generator=generator) - 1)
        buffers["steps"] = torch.randn(rows, places, d, generator=generator)
        buffers["residuals"] = sizes * torch.randn(rows, places, d, generator=generator)
        products = _products(buffers["residuals"].double())
        buffers["gram"] = (products + products.transpose(1, 2)) / 2  # the same bits on both sides of the diagonal
        buffers["weights"] = torch.randn(rows, places, generator=generator)
        buffers["weights"][torch.rand(rows, places, generator=generator) < 0.4] = 0.0
        buffers |= {name: counter(places) for name in ("head", "filled", "base")}
    return buffers


def compare_operation(
    device: Device, solver: str, operation: tuple[Any, ...], shapes: tuple[tuple[int, ...], ...]
) -> str:
    """A kernel against plain torch on the device, and on the CPU; raises `Failed`, or says what was compared."""
    name = operation[0]
    for shape in shapes:
        random = random_buffers(*shape)
        before = {argument: random[argument] for argument in ORDERS[solver][name].names}
        got = {argument: tensor.to(device.torch, copy=True) for argument, tensor in before.items()}
        prepare(KERNELS, solver, operation, got)()
        for where in (device.torch, torch.device("cpu")):
            expected = {argument: tensor.to(where, copy=True) for argument, tensor in before.items()}
            with mock.patch.object(Tensor, "sqrt", _root):
                prepare(PLAIN, solver, operation, expected)()
            for argument, tensor in expected.items():
                what = f"{argument} {list(shape)} against {where}"
                if name == "measure" and argument == "gram":
                    _must_be_products(what, got, expected, before[argument])
                else:
                    must_equal(what, got[argument], tensor, ulps=1 if argument in _SUMS.get(name, ()) else 0)
    within = {"measure": ", gram to the rounding of sums"} | {of: ", sums within 1 ulp" for of in _SUMS}
    return f"{len(shapes)} shapes{within.get(name, '')}"


def must_equal(what: str, got: Tensor, expected: Tensor, ulps: int = 0) -> None:
    """Bit for bit; what is summed in another order, in float64, to one unit in the last place of float32."""
    got, expected = bits(got.cpu()), bits(expected.cpu())
    wrong = (got.long() - expected.long()).abs() > ulps if ulps else got != expected
    if wrong.any():
        raise Failed(
            f"{what}: {int(wrong.sum())} of {wrong.numel()} entries differ, first at {wrong.nonzero()[0].tolist()}"
        )


def bits(tensor: Tensor) -> Tensor:
    """The bits of float32, those of all NaNs made equal; other tensors as they are."""
    return torch.where(tensor.isnan(), torch.nan, tensor).view(torch.int32) if tensor.dtype == torch.float32 else tensor


def _must_be_products(what: str, got: Buffers, expected: Buffers, before: Tensor) -> None:
    """A sum of d terms in float64 is off by at most d ε/2 Σ|terms|, in any order: once for each side.

    What is no new product must be the same bit for bit.
    """
    gram, plainly = got["gram"].cpu(), expected["gram"].cpu()
    residuals = expected["residuals"].cpu().double()
    bound = residuals.shape[2] * torch.finfo(torch.float64).eps * _products(residuals.abs())
    bound = bound.masked_fill((plainly == before) | (plainly == 0), 0.0)
    wrong = ((gram - plainly).abs() > bound) | (gram != gram.transpose(1, 2))
    if wrong.any():
        raise Failed(f"{what}: {int(wrong.sum())} of {wrong.numel()} products differ")


def _products(residuals: Tensor) -> Tensor:
    return residuals @ residuals.transpose(1, 2)


def _root(tensor: Tensor) -> Tensor:
    """Rounded to nearest, as GPUs do it; torch's on CPUs is off by the last bit in one of about fifty numbers."""
    return torch.from_numpy(np.sqrt(tensor.cpu().numpy())).to(tensor.device)
