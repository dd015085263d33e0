"""The number format of the autoencoder's forward passes; everything between them stays float32."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine import three_products

T = TypeVar("T")

_MULTIPLYING = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def in_format(autoencoder: Autoencoder, number_format: str, device: torch.device) -> list[Autoencoder]:
    """The autoencoder with its matrix products and convolutions in this format: ways to do it, best first.

    number_format: "float32", "tf32" (10 bits of mantissa, on NVIDIA GPUs), "bfloat16" (autocast), or "float32x3" (each
        product of float32 by three of float16 halves, see `three_products`; emulated on CPUs, slowly).

    float32 on a GPU is IEEE whatever torch's global switches say; they are put back after each call. For bfloat16 a
    module is copied if it can be, with the weights of its linear and convolutional layers rounded once: what is done to
    the original afterwards does not reach the copy. Otherwise they are rounded in every call. For float32x3 it must be
    a module that can be copied.

    Raises ValueError for tf32 on another device than an NVIDIA GPU, and for float32x3 as `three_products.replace`.
    """
    if number_format == "bfloat16":
        rounded = _with_rounded_weights(autoencoder) if isinstance(autoencoder, nn.Module) else None
        return [_autocast(one, device) for one in (rounded, autoencoder) if one is not None]
    if number_format == "float32x3":
        autoencoder = three_products.replace(autoencoder, device)
    if device.type != "cuda":
        if number_format == "tf32":
            raise ValueError(f"precision 'tf32' is a format of NVIDIA GPUs; the autoencoder is on {device}")
        return [autoencoder]

    def multiply_in_format(images: Tensor) -> Tensor:
        with multiplying_in(number_format, device), _full_sums(number_format == "float32x3"):
            return autoencoder(images)

    return [multiply_in_format]


def multiplying_in(number_format: str, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """The switches that products in this format need: around many forward passes, each of which finds them set."""
    if device.type != "cuda" or number_format == "bfloat16":
        return contextlib.nullcontext()
    return allow_tf32(number_format == "tf32")


def _autocast(autoencoder: Autoencoder, device: torch.device) -> Autoencoder:
    def in_bfloat16(images: Tensor) -> Tensor:
        # what is cached inside a CUDA Graph's capture would be read by others outside of it
        with torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False):
            return autoencoder(images)

    return in_bfloat16


def _with_rounded_weights(autoencoder: nn.Module) -> nn.Module | None:
    """A copy that shares what is not rounded, so that autocast need not round the weights in every call.

    None where the module cannot be copied: it keeps an activation or a lock, say.
    """
    shared = {id(tensor): tensor for tensor in (*autoencoder.parameters(), *autoencoder.buffers())}
    rounded = {}
    for module in autoencoder.modules():
        if isinstance(module, _MULTIPLYING):
            for parameter in module.parameters(recurse=False):
                rounded[id(parameter)] = nn.Parameter(parameter.detach().to(torch.bfloat16), requires_grad=False)
    try:
        return copy.deepcopy(autoencoder, memo={**shared, **rounded})
    except Exception:  # whatever its parts raise
        return None


def with_gradients(autoencoder: Autoencoder) -> Autoencoder:
    """For an autoencoder that computes gradients inside its forward pass: with autograd on, on a copy of the images."""

    def differentiable(images: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            return autoencoder(images.clone())  # made here: what inference mode made takes no gradient

    return differentiable


def unit_of(number_format: str) -> float:
    """The distance from 1 to the next number of this format, see `in_format`."""
    return {"tf32": 2.0**-10, "bfloat16": 2.0**-7}.get(number_format, 2.0**-23)


@contextlib.contextmanager
def as_usual(device: torch.device) -> Iterator[None]:
    """torch as if none of its switches that change results had been touched; as before at the end.

    Autocast is off, numbers are float32 where none are asked for, tensors come onto this device where none is, and on
    a CPU products of float32 are those of float32.
    """
    with contextlib.ExitStack() as switches:
        for kind in {"cpu", device.type}:
            if torch.is_autocast_enabled(kind):
                switches.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_dtype() != torch.float32:
            switches.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(torch.float32)
        if torch.empty(0).device.type not in ("cpu", device.type):  # torch 2.4 fails to name its default device
            switches.enter_context(device)
        if device.type == "cpu":
            _multiply_exactly(switches)
        yield


def _multiply_exactly(switches: contextlib.ExitStack) -> None:
    """Until the switches are put back, no product on a CPU is rounded to fewer bits than float32 has."""
    for switch in _on_cpu():
        before = switch.fp32_precision
        if before not in ("none", "ieee"):
            switches.callback(setattr, switch, "fp32_precision", before)
            switches.callback(setattr, switch, "fp32_precision", "none")  # the general switches, if they say so
            switch.fp32_precision = "ieee"


def _on_cpu() -> list[Any]:
    """The switches of what runs on a CPU."""
    mkldnn: Any = torch.backends.mkldnn
    return [mkldnn.matmul, mkldnn.conv, mkldnn.rnn] if _NEWER else []


@contextlib.contextmanager
def allow_tf32(allowed: bool) -> Iterator[None]:
    """Allow TF32 in the matrix products and convolutions of CUDA, or do not; as before at the end."""
    if _is_as_entered(allowed):
        yield
        return
    backends: Any = torch.backends
    # torch has two kinds of switches. Those of the older kind are in every version; where there are newer ones, these
    # decide, and what reads an older one that says otherwise fails: so both are set.
    matmul_precision = _read(torch.get_float32_matmul_precision)
    convolutions = _read(lambda: backends.cudnn.allow_tf32)
    newer = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul] if _NEWER else []
    newer_values = [switch.fp32_precision for switch in newer]
    try:
        backends.cuda.matmul.allow_tf32 = allowed
        backends.cudnn.allow_tf32 = allowed
        for switch in newer[:3]:
            switch.fp32_precision = "tf32" if allowed else "ieee"
        around, _entered.allowed = getattr(_entered, "allowed", None), allowed
        try:
            yield
        finally:
            _entered.allowed = around
    finally:
        if matmul_precision is not None:
            torch.set_float32_matmul_precision(matmul_precision)
        if convolutions is not None:
            backends.cudnn.allow_tf32 = convolutions
        for switch, value in zip(newer, newer_values, strict=True):
            switch.fp32_precision = "none"  # inherits from the general switches
            if switch.fp32_precision != value:
                switch.fp32_precision = value


_entered = threading.local()
"""What `allow_tf32` was last entered with in this thread, and not left yet."""


def _is_as_entered(allowed: bool) -> bool:
    """Whether the switches are set by an `allow_tf32` around this one; two are asked whether they still are."""
    if getattr(_entered, "allowed", None) is not allowed:
        return False
    backends: Any = torch.backends
    now = (_read(lambda: backends.cuda.matmul.allow_tf32), _read(lambda: backends.cudnn.allow_tf32))
    return now == (allowed, allowed)


@contextlib.contextmanager
def _full_sums(needed: bool) -> Iterator[None]:
    """Products of float16 on CUDA are summed in float32 all the way, if that is needed; as before at the end."""
    matmul: Any = torch.backends.cuda.matmul
    reduction, accumulation = "allow_fp16_reduced_precision_reduction", "allow_fp16_accumulation"
    before = {name: getattr(matmul, name) for name in (reduction, accumulation) if needed and hasattr(matmul, name)}
    if before and hasattr(matmul, split := f"{reduction}_split_k"):  # newer versions set both by one name
        before[reduction] = (before[reduction], getattr(matmul, split))
    try:
        for name in before:
            setattr(matmul, name, False)
        yield
    finally:
        for name, value in before.items():
            setattr(matmul, name, value)


_NEWER = hasattr(torch.backends.cudnn, "conv")  # torch 2.9


def _read(switch: Callable[[], T]) -> T | None:
    """None where it cannot be read: the newer switch was set to something that the older one cannot say."""
    try:
        return switch()
    except RuntimeError:
        return None
