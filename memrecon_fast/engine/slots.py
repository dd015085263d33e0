"""What a solver keeps for every slot, and how images get into slots and out of them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from memrecon_fast.results import RUNNING

SomeSlots = TypeVar("SomeSlots", bound="Slots")
JUDGED = {
    "residual": torch.float32,
    **dict.fromkeys(("settled", "recurs", "renew"), torch.bool),
    **dict.fromkeys(("iterations", "blocks", "below", "anchored", "period"), torch.int32),
    "status": torch.int8,
}
"""What `judge` keeps for every slot."""


@dataclasses.dataclass(frozen=True)
class Slots:
    """Row i of every tensor belongs to slot i; see `ops/admm/plain.py` for what the operations make of them."""

    x: Tensor
    """float32 [S, d]: the estimate."""
    residual: Tensor
    """float32 [S]: the MSE between the last two estimates, NaN where there was only one."""
    iterations: Tensor
    """int32 [S]: estimates made, or known to equal one that was."""
    below: Tensor
    """int32 [S]: comparisons running that were passed."""
    status: Tensor
    """int8 [S]: RUNNING, or a `Status`: such a slot changes no more until it is loaded again."""


@dataclasses.dataclass(frozen=True)
class JudgedSlots(Slots):
    """With what `judge` needs to know that estimates repeat."""

    settled: Tensor
    """bool [S]: the mask was estimated as it was before: all estimates to come are known to equal this one."""
    recurs: Tensor
    """bool [S]: the estimate number `anchored` was followed by what follows this one."""
    renew: Tensor
    """bool [S]: this estimate is the new anchor."""
    blocks: Tensor
    """int32 [S]: estimates made."""
    anchored: Tensor
    """int32 [S]: the number of the estimate that the search for cycles compares with; 0: none yet."""
    period: Tensor
    """int32 [S]: the number of estimates between the last two that were found to be followed by the same; 0: none."""


def judged_buffers(slots: int, pixels: int, device: torch.device) -> dict[str, Tensor]:
    """The tensors of `JudgedSlots`, all zero, by name."""
    vectors = {name: torch.zeros(slots, dtype=dtype, device=device) for name, dtype in JUDGED.items()}
    return {"x": torch.zeros(slots, pixels, dtype=torch.float32, device=device), **vectors}


def judged(slots: JudgedSlots) -> dict[str, Tensor]:
    """Arguments of `judge`."""
    return {name: getattr(slots, name) for name in JUDGED}


def clear(slots: JudgedSlots) -> None:
    """Make these slots those of an image that was just loaded, with an estimate of zero."""
    for name in ("x", *JUDGED):
        getattr(slots, name).zero_()
    slots.status.fill_(RUNNING)


def narrow(slots: SomeSlots, begin: int, end: int) -> SomeSlots:
    """A view of the slots [begin, end)."""
    return type(slots)(**{name: tensor[begin:end] for name, tensor in tensors(slots).items()})


def tensors(slots: Slots) -> dict[str, Tensor]:
    """All tensors of the slots, by name."""
    return {field.name: getattr(slots, field.name) for field in dataclasses.fields(slots)}


def take(slots: SomeSlots, indices: Tensor) -> SomeSlots:
    """A copy of the slots with these indices, int64 [n]."""
    of = rows_at(indices)
    return type(slots)(**{name: of(tensor) for name, tensor in tensors(slots).items()})


def rows_at(indices: Tensor) -> Callable[[Tensor], Tensor]:
    """What copies the rows with these indices, int64 [n], of a tensor."""
    return functools.partial(torch.index_select, dim=0, index=indices)


def put(rows: Slots, slots: Slots, indices: Tensor) -> None:
    """Make the slots with these indices, int64 [n], what `rows` has."""
    into = tensors(slots)
    for name, tensor in tensors(rows).items():
        into[name].index_copy_(0, indices, tensor)
