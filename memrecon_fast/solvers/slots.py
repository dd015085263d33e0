"""What a solver keeps for every slot, and the rule by which the work on an image ends."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import torch
from torch import Tensor

from memrecon_fast.settings import Status

RUNNING = -1
"""The status of a slot whose image is still worked on."""

SomeSlots = TypeVar("SomeSlots", bound="Slots")


@dataclasses.dataclass(frozen=True)
class Slots:
    """Row i of every tensor belongs to slot i."""

    x: Tensor
    """float32 [S, d]: the estimate."""
    residual: Tensor
    """float32 [S]: the MSE between the last two estimates, NaN where there was only one."""
    iterations: Tensor
    """int32 [S]: estimates made."""
    below: Tensor
    """int32 [S]: comparisons running with an MSE below the tolerance."""
    status: Tensor
    """int8 [S]: RUNNING, or a `Status`."""


def common_buffers(slots: int, pixels: int, device: torch.device) -> dict[str, Tensor]:
    """The tensors of `Slots`, all zero, by name."""
    return {
        "x": torch.zeros(slots, pixels, dtype=torch.float32, device=device),
        "residual": torch.zeros(slots, dtype=torch.float32, device=device),
        "iterations": torch.zeros(slots, dtype=torch.int32, device=device),
        "below": torch.zeros(slots, dtype=torch.int32, device=device),
        "status": torch.zeros(slots, dtype=torch.int8, device=device),
    }


def narrow(slots: SomeSlots, begin: int, end: int) -> SomeSlots:
    """A view of the slots [begin, end)."""
    return type(slots)(**{field.name: getattr(slots, field.name)[begin:end] for field in dataclasses.fields(slots)})


def move(slots: Slots, source: int, target: int) -> None:
    """Copy all that belongs to slot `source` to slot `target`."""
    for field in dataclasses.fields(slots):
        tensor = getattr(slots, field.name)
        tensor[target] = tensor[source]


def clear(slots: Slots) -> None:
    """Make the counters of these slots those of an image that was just loaded, with an estimate of zero."""
    for tensor in (slots.x, slots.residual, slots.iterations, slots.below):
        tensor.zero_()
    slots.status.fill_(RUNNING)


def judge(slots: Slots, *, tolerance: float, patience: int, limit: int, first_comparison: int) -> None:
    """Count one more estimate, whose MSE to the one before is in `residual`, and say which images are done.

    Comparisons count from estimate number `first_comparison` on; before it, `residual` becomes NaN.
    """
    slots.iterations.add_(1)
    finite = slots.residual.isfinite()
    slots.residual.masked_fill_(slots.iterations < first_comparison, torch.nan)
    slots.below.add_(1).mul_(slots.residual < tolerance)
    slots.status.masked_fill_(slots.iterations >= limit, int(Status.MAX_ITERATIONS))
    slots.status.masked_fill_(slots.below >= patience, int(Status.CONVERGED))
    slots.status.masked_fill_(~finite, int(Status.DIVERGED))
