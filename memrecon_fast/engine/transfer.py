"""Between the host and the device, without the one waiting for the other; on a CPU, where they are the same, copies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def upload(tensors: Sequence[Tensor], target: Tensor) -> None:
    """Copy tensors on the host into `target`, one for each of its rows."""
    if target.is_cuda:
        # pinned memory comes from torch's cache of it, and goes back there once the device has read it
        pinned = torch.empty(target.shape, dtype=target.dtype, device="cpu", pin_memory=True)
        torch.stack(list(tensors), out=pinned)
        target.copy_(pinned, non_blocking=True)
    else:
        torch.stack(list(tensors), out=target)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A small tensor on the host, on the device."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def to_host(tensor: Tensor) -> Tensor:
    """On its way to the host: there once an event that is recorded after this has happened."""
    if not tensor.is_cuda:
        return tensor
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
    return pinned.copy_(tensor, non_blocking=True)


def record_event(device: torch.device) -> torch.cuda.Event | None:
    """An event that happens once the device has done all it was given so far; None for a CPU, where that is now."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event


@contextlib.contextmanager
def working_on(device: torch.device) -> Iterator[None]:
    """Without autograd, and with this GPU the current one: kernels are launched on that."""
    with torch.inference_mode(), torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        yield
