"""The first call of an autoencoder: whether it does, and what it computes on the way."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from memrecon_fast.common.errors import is_out_of_memory, one_line
from memrecon_fast.common.outputs import OutputError
from memrecon_fast.engine.stated import layout_hint
from memrecon_fast.engine.three_products import is_product

TRIAL_ROWS = 16
"""In the batch that an autoencoder is tried on, if it takes so many."""
_OTHER_ROWS = (1, 2, 4, 8, 10, 20, 32, 64)
"""... and if that fails, in others, to say which it takes."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """What is known after a first call."""

    sizes: list[int]
    """The number of entries of every tensor that was computed."""
    unit: float
    """The distance from 1 to the next number, in the coarsest format of those tensors."""
    products: tuple[str, ...]
    """The names of torch's functions that multiplied matrices, but for products of halves."""


def call_first(apply: Callable[[Tensor], Tensor], images: Tensor) -> Trial:
    """Call f on float32 images (B, *image_shape), operation by operation, also where it is compiled.

    apply: of a `Prox`. Raises TypeError or ValueError where it fails, returns another shape or kind, or changes its
    input in place. What runs out of memory passes through.
    """
    before = images.clone()
    shape = tuple(images.shape)
    try:
        with _uncompiled(), _Watch() as computed:
            returned = apply(images)
    except OutputError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(
            f"autoencoder fails on a batch of shape {shape}: {one_line(error)}{layout_hint(shape[1:])}"
        ) from error
    if not returned.is_floating_point():
        raise TypeError(f"autoencoder must return a floating-point tensor, not {returned.dtype}")
    if returned.shape != shape:
        flat = returned.dim() == 2 and returned.numel() == images.numel()
        hint = f"; {_wrapped('model', f'Unflatten(1, {shape[1:]})')} does" if flat else ""
        raise ValueError(f"autoencoder must return the shape it is given, {shape}, not {tuple(returned.shape)}{hint}")
    if returned.layout != torch.strided or returned.is_meta:
        kind = "one on the device 'meta'" if returned.is_meta else f"a tensor of layout {returned.layout}"
        raise TypeError(f"autoencoder must return a dense tensor, not {kind}")
    if not torch.equal(images, before):
        raise ValueError("autoencoder changes its input in place; give it a first layer that does not")
    unit = max(computed.unit, torch.finfo(returned.dtype).eps)
    return Trial(computed.sizes, unit, tuple(dict.fromkeys(computed.products)))


def where_it_works(apply: Callable[[Tensor], Tensor], images: Tensor) -> str:
    """Of an f that failed on such images of `function.trial_images`: what they are and, where it is known on which
    others it does not fail, what to do; for the end of a message."""
    what = f"; it was tried on {len(images)} images, with pixels from {images.min():.0f} to {images.max():.0f}"
    inside = images.clamp(0, 1)
    if _works(apply, inside):
        return (
            f"{what}, and takes them where these lie in [0, 1]. On the way to an image they leave it: it must take "
            f"any, without a check, or see x.clamp(0, 1)"
        )
    shape = tuple(inside.shape[1:])
    if len(shape) > 1 and _works(apply, inside.flatten(1)):
        wrapped = _wrapped("Flatten()", "model", f"Unflatten(1, {shape})")
        return f"; it takes the images as flat vectors: {wrapped} takes them as they are"
    taken = [n for n in _OTHER_ROWS if _works(apply, inside[:1].expand(n, *shape).contiguous())]
    if not taken:
        return f"{what}. If it takes certain numbers of images alone, say so in its attribute batch_sizes, a range"
    numbers = ", ".join(map(str, taken))
    example = range(taken[0], taken[-1] + 1)
    return f"{what}, and takes {numbers} at a time: say so in its attribute, for instance batch_sizes = {example}"


def _wrapped(*layers: str) -> str:
    """Of a model, an autoencoder of images, as it is written in Python."""
    written = (layer if layer == "model" else f"torch.nn.{layer}" for layer in layers)
    return f"torch.nn.Sequential({', '.join(written)})"


def _works(apply: Callable[[Tensor], Tensor], images: Tensor) -> bool:
    try:
        return apply(images).shape == images.shape
    except Exception:  # it is a person's own code, and what it raises is said of the first call
        return False


def why_not_captured(apply: Callable[[Tensor], Tensor], images: Tensor) -> str:
    """Whether f waits for the GPU, which a capture does not survive, even in a second call; empty if not."""
    apply(images)  # what is compiled in a first call may wait
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch calls this mode a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        apply(images)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        return one_line(error)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    return ""


def _uncompiled() -> contextlib.AbstractContextManager[Any]:
    """What `torch.compile` compiled runs as it was: to be watched, it would be compiled for each operation."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled; `set_stance` would import it, for two seconds
        return contextlib.nullcontext()
    set_stance = getattr(torch.compiler, "set_stance", None)  # torch 2.6
    return set_stance("force_eager") if set_stance is not None else contextlib.nullcontext()


class _Watch(TorchFunctionMode):
    """Notes every tensor that torch's functions return, and which of them multiply matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.unit = torch.finfo(torch.float32).eps
        self.products: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if is_product(func):
            self.products.append(func.__name__)
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.sizes.append(result.numel())
            if result.is_floating_point():
                self.unit = max(self.unit, torch.finfo(result.dtype).eps)
        return result
