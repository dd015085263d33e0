"""Copies between the host and the device that neither waits for; on a CPU, where both are the same, few copies."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from memrecon_fast.engine.precision import allow_tf32, as_usual

T = TypeVar("T")
_END = object()
MAX_COPIES = 4
"""Images that lie in more pieces than that are stacked before they go to the device."""


def upload(tensors: Sequence[Tensor], target: Tensor) -> None:
    """Copy tensors into `target`, one for each of its rows: on its device, or through the host if any is elsewhere."""
    if all(tensor.device == target.device for tensor in tensors):
        if target.is_cuda and not target.is_contiguous():
            target.copy_(torch.stack(list(tensors)))  # with `out`, each row would be a kernel of its own
        else:
            torch.stack(list(tensors), out=target)
        return
    on_host = [tensor.cpu() for tensor in tensors]
    if target.is_cuda and (blocks := _pinned_runs(on_host)):
        copy_blocks(blocks, target)
    elif target.is_cuda:
        # pinned memory comes from torch's cache of it, and goes back there once the device has read it
        pinned = torch.empty(target.shape, dtype=target.dtype, device="cpu", pin_memory=True)
        torch.stack(on_host, out=pinned)
        target.copy_(pinned, non_blocking=True)
    else:
        torch.stack(on_host, out=target)


def runs(images: Sequence[Tensor]) -> list[Tensor]:
    """The images, of one shape and dtype, as views (n, *shape) of as many of them as follow each other in memory."""
    found = []
    begin = 0
    for end in range(1, len(images) + 1):
        if end == len(images) or not _follows(images[end - 1], images[end]):
            first = images[begin]
            found.append(first.as_strided((end - begin, *first.shape), (first.numel(), *first.stride())))
            begin = end
    return found


def _follows(one: Tensor, other: Tensor) -> bool:
    return (
        one.is_contiguous()
        and other.is_contiguous()
        and other.untyped_storage().data_ptr() == one.untyped_storage().data_ptr()
        and other.storage_offset() == one.storage_offset() + one.numel()
    )


def _pinned_runs(images: Sequence[Tensor]) -> list[Tensor]:
    """The images in a few pieces that the device can read by itself; none where there are more, or they are not so."""
    blocks = runs(images)
    return blocks if len(blocks) <= MAX_COPIES and all(block.is_pinned() for block in blocks) else []


def copy_blocks(blocks: Sequence[Tensor], target: Tensor) -> None:
    """Copy blocks of rows into the rows of `target`, one behind the other, without waiting for it."""
    begin = 0
    for block in blocks:
        target[begin : begin + len(block)].copy_(block, non_blocking=True)
        begin += len(block)


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


def on_one_stream(items: Generator[T, None, None], device: torch.device) -> Generator[T, None, None]:
    """The same items: on a GPU all are computed on the stream that was the current one as the first was asked for.

    Whoever asks for the next one on another stream finds it computed, and what was done there with those before done.
    """
    if device.type != "cuda":
        return items
    return _on_one_stream(items, device)


def _on_one_stream(items: Generator[T, None, None], device: torch.device) -> Generator[T, None, None]:
    stream = torch.cuda.current_stream(device)
    with contextlib.closing(items):
        while True:
            caller = torch.cuda.current_stream(device)
            if caller != stream:
                stream.wait_stream(caller)
            with torch.cuda.stream(stream):
                item = next(items, _END)
            if caller != stream:
                caller.wait_stream(stream)
            if item is _END:
                return
            yield item  # type: ignore[misc]


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
