"""Operations on broken tensors, chosen at random: of every group and every backend for the CPU, at every argument.

    python -m tests.ops.fuzz [--calls 10000] [--seed 0]

In each call one tensor is of a kind that no operation may have (`helpers/broken.py`), or loses its memory after the
state was made, or all buffers have bytes at random, places of the ring among them. A call may succeed, or raise
TypeError or ValueError with the name of a buffer. Anything else is printed and makes the exit code 1; a segmentation
fault ends the process.
"""

from __future__ import annotations

import argparse
import collections
import functools
import random
import sys
import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from memrecon_fast import ops
from memrecon_fast.ops import admm, anderson
from memrecon_fast.ops.admm import AdmmState, IterationState, Pairs
from memrecon_fast.ops.anderson import AndersonState
from memrecon_fast.ops.state import Order, State
from memrecon_fast.results import RUNNING
from tests.helpers.broken import KINDS, resized, set_elsewhere

Buffers = dict[str, Any]

CPU = torch.device("cpu")
OPERATIONS: list[tuple[str, str, type[State], Order, dict[str, Any]]] = [
    ("admm", "start", AdmmState, admm.START, {}),
    ("admm", "start", AndersonState, admm.START, {}),
    ("admm", "step", AdmmState, admm.STEP, {}),
    ("admm", "close", AdmmState, admm.CLOSE, {"estimate_mask": False}),
    ("admm", "close", AdmmState, admm.CLOSE, {"estimate_mask": True}),
    ("admm", "advance", IterationState, admm.ADVANCE, {}),
    ("admm", "mean_squares", Pairs, admm.MEAN_SQUARES, {}),
    ("admm", "stop", IterationState, admm.STOP, {"tolerance": 0.1, "patience": 2, "limit": 9, "first_comparison": 2}),
    ("anderson", "measure", AndersonState, anderson.MEASURE, {}),
    ("anderson", "estimate", AndersonState, anderson.ESTIMATE, {"estimate_mask": False}),
    ("anderson", "estimate", AndersonState, anderson.ESTIMATE, {"estimate_mask": True}),
    (
        "anderson",
        "stop",
        AndersonState,
        anderson.STOP,
        {"tolerance": 0.1, "patience": 2, "stall": 3, "settled_counts": 2, "limit": 9},
    ),
    ("anderson", "weigh", AndersonState, anderson.WEIGH, {"settle": 1}),
    ("anderson", "mix", AndersonState, anderson.MIX, {}),
]
SHAPES = [(4, 6, 3), (1, 1, 1), (0, 5, 2), (3, 0, 4), (0, 0, 1), (7, 513, 2), (2, 40, 33), (5, 4, 6)]
LATER: dict[str, Callable[[Tensor], Any]] = {
    "freed later": lambda tensor: resized(tensor, 0),
    "cut later": lambda tensor: resized(tensor, tensor.nbytes // 2),
    "freed and given less": lambda tensor: resized(resized(tensor, 0), min(1, tensor.nbytes)),
    "moved": lambda tensor: resized(resized(tensor, 2**20), tensor.nbytes),
    "set elsewhere later": set_elsewhere,
}
SHARED, AT_RANDOM = "shared", "at random"
NAMES = {"v", *(name for kind in (AdmmState, AndersonState, Pairs) for name in kind.buffers())}


def main() -> int:
    """Exit code 0 where each call was made or refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    torch.manual_seed(options.seed)
    backends = [name for name in ("torch", "cpp") if ops.backends()[name] == "available"]
    outcomes: collections.Counter[str] = collections.Counter()
    for _ in range(options.calls):
        outcomes[_attempt(chance, ops.choose(chance.choice(backends), CPU))] += 1
    print(f"{options.calls} calls of {' and '.join(backends)}: {dict(outcomes)}")
    return 1 if outcomes["wrong"] else 0


def _attempt(chance: random.Random, operations: ops.Operations) -> str:
    """One call: "made", "refused", or "wrong"."""
    group, name, kind, order, numbers = chance.choice(OPERATIONS)
    function = functools.partial(getattr(getattr(operations, group), name), **numbers)
    fault = chance.choice([*KINDS, *LATER, *LATER, SHARED, *[AT_RANDOM] * 5])
    victim = chance.choice(order.names if chance.random() < 0.9 else [*kind.buffers()])
    buffers = _good(kind, *chance.choice(SHAPES))
    try:
        if kind is Pairs:
            _compare(function, buffers, victim, fault, chance)
        else:
            _operate(function, kind, order, buffers, victim, fault, chance)
    except Exception as error:
        if isinstance(error, (TypeError, ValueError)) and str(error).split(" ")[0] in NAMES:
            return "refused"
        print(f"{operations.backend} {name}, {victim} {fault}:", file=sys.stderr)
        traceback.print_exc(limit=-3)
        return "wrong"
    return "made"


def _good(kind: type[State], rows: int, d: int, places: int) -> Buffers:
    """The buffers of a state, with entries that an operation may find there, and v."""
    tensors = kind.allocate(rows, d, CPU, places).tensors() | {"v": torch.randn(rows, d)}
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            tensor.normal_()
        elif name == "status":
            tensor.fill_(RUNNING)
        else:
            tensor.random_(0, min(places, 2))
    return tensors


def _compare(function: Any, buffers: Buffers, victim: str, fault: str, chance: random.Random) -> None:
    for one in LATER, KINDS:
        if fault in one:
            buffers[victim] = one[fault](buffers[victim])
    if fault == SHARED:
        buffers[victim] = _sharing(buffers[victim], buffers[chance.choice([*buffers])])
    function(*(buffers[name] for name in ("a", "b", "out")))


def _operate(
    function: Any, kind: type[State], order: Order, buffers: Buffers, victim: str, fault: str, chance: random.Random
) -> None:
    fewer = chance.random() < 0.3
    if fewer:
        buffers["v"] = buffers["v"][1:].clone()
    if fault in KINDS:
        buffers[victim] = KINDS[fault](buffers[victim])
    elif fault == SHARED:
        buffers[victim] = _sharing(buffers[victim], buffers[chance.choice([*buffers])])
    state = kind(**{name: buffers[name] for name in kind.buffers()})

    def given() -> list[Any]:
        slots = state.narrow(max(state.rows - 1, 0)) if fewer else state
        return [slots, buffers["v"]] if "v" in order.names else [slots]

    if chance.random() < 0.5:
        function(*given())
    if fault in LATER:
        LATER[fault](buffers[victim])
    elif fault == AT_RANDOM:
        for tensor in buffers.values():
            tensor.view(torch.uint8).random_()
        buffers["status"].fill_(RUNNING)
    function(*given())
    last = torch.tensor([state.rows - 1] * (state.rows > 0), dtype=torch.int64)
    with torch.inference_mode():
        state.put(last, state.take(last))


def _sharing(tensor: Tensor, other: Tensor) -> Tensor:
    """A tensor like the first, in memory of the other one where there is enough."""
    begin = other.flatten().view(torch.uint8)[: tensor.nbytes]
    return begin.view(tensor.dtype).view(tensor.shape) if begin.nbytes == tensor.nbytes else other


if __name__ == "__main__":
    sys.exit(main())
