"""Copies between the host and the device that neither waits for; on a CPU, where both are the same, few copies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from memrecon_fast.engine.precision import allow_tf32, as_usual

T = TypeVar("T")


def upload(tensors: Sequence[Tensor], target: Tensor) -> None:
    """Copy tensors into `target`, one for each of its rows: on its device, or through the host if any is elsewhere."""
    if all(tensor.device == target.device for tensor in tensors):
        if target.is_cuda and not target.is_contiguous():
            target.copy_(torch.stack(list(tensors)))  # with `out`, each row would be a kernel of its own
        else:
            torch.stack(list(tensors), out=target)
        return
    on_host = [tensor.cpu() for tensor in tensors]
    if target.is_cuda:
        # pinned memory comes from torch's cache of it, and goes back there once the device has read it
        pinned = torch.empty(target.shape, dtype=target.dtype, device="cpu", pin_memory=True)
        torch.stack(on_host, out=pinned)
        target.copy_(pinned, non_blocking=True)
    else:
        torch.stack(on_host, out=target)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A small tensor on the host, copied to the device."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def to_host(tensor: Tensor) -> Tensor:
    """A copy on the host: it can be read once an event that is recorded after this call has happened."""
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


def on_this_stream(items: Iterable[T], device: torch.device) -> Iterator[T]:
    """The same items, to be read by a thread of their own: its work on a GPU joins the caller's stream.

    So what it computes there is computed before the caller's work reads it.
    """
    if device.type != "cuda":
        return iter(items)
    stream = torch.cuda.current_stream(device)

    def read() -> Iterator[T]:
        torch.cuda.set_stream(stream)
        yield from items

    return read()


@contextlib.contextmanager
def working_on(device: torch.device) -> Iterator[None]:
    """Without autograd, with this GPU the current one, on which kernels are launched, and whatever else is switched on
    in torch, see `precision.as_usual`. For a piece of work between two yields: it must not reach the caller."""
    with (
        torch.inference_mode(),
        torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext(),
        as_usual(device),
    ):
        yield


@contextlib.contextmanager
def differentiating_on(device: torch.device) -> Iterator[None]:
    """As `working_on`, with autograd; on a GPU the products of backward passes are those of float32, too."""
    on_gpu = device.type == "cuda"
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.cuda.device(device) if on_gpu else contextlib.nullcontext(),
        as_usual(device),
        allow_tf32(False) if on_gpu else contextlib.nullcontext(),
    ):
        yield
