"""float32 by three products of halves (`ops/halves`): the linear layers and 2d convolutions of a copy of a model.

Each such layer of the copy has another forward: it splits what it is given, multiplies it with the weights, which are
split once, and scales what comes out. In an `nn.Sequential`, scale, bias, a ReLU, LeakyReLU or PReLU of one slope, and
the split for the next layer are one operation. Weights stay where they are, so that others can read them; slices of
a sequence and single layers work as before.

A convolution is a product of the patches of the halves: torch's own takes halves, but rounds what comes out to halves,
too. Patches are copies, of so many images at a time that they take `MAX_PATCH_BYTES`, or of four.

What a layer cannot have so is given to its own forward, in float32: other dtypes, autocast in the model, shapes that do
not fit. There are no gradients.
"""

from __future__ import annotations

import contextvars
import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from memrecon_fast.common.errors import one_line
from memrecon_fast.ops import halves
from memrecon_fast.ops.halves import Halves, HalvesOps, Sums, plain

MAX_PATCH_BYTES = 2**30
MIN_CAPABILITY = (7, 0)
"""Of a GPU that multiplies float16 with float32 sums."""
MULTIPLYING = (
    *(nn.Linear, nn.Bilinear, nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.MultiheadAttention, nn.RNNBase),
)
"""Layers that multiply by weights; of them, `Linear` and `Conv2d` are replaced."""
PRODUCTS = {
    *("linear", "bilinear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    *("matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "mv", "addmm", "addmv", "addbmm", "baddbmm", "inner"),
    *("einsum", "tensordot", "chain_matmul", "multi_dot"),
    *("scaled_dot_product_attention", "multi_head_attention_forward"),
}
"""torch's functions that multiply matrices, by name."""
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_ours = contextvars.ContextVar("ours", default=False)
"""Whether a product is one of halves."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Layer:
    """What the new forward of a layer needs."""

    module: nn.Linear | nn.Conv2d
    """Of the copy; its weights are those of the original."""
    usual: Callable[[Tensor], Tensor]
    """Its own forward."""
    right: Tensor
    """The right factor of its products, [3k, outputs]."""
    of_outputs: Tensor
    bias: Tensor | None
    channels_last: bool
    """The weights are in memory with the channels innermost, which torch's convolutions go by."""
    ops: HalvesOps


@dataclasses.dataclass(frozen=True, eq=False)
class _Pending:
    """What a layer's product left."""

    sums: Sums
    shape: tuple[int, ...]
    """Of the numbers, with the outputs last."""
    is_image: bool
    """The outputs belong to the second axis: what a convolution left."""
    channels_last: bool = False
    """Such images are to be in memory with the channels innermost."""


_Value = Tensor | _Pending


def why_not_on(device: torch.device) -> str | None:
    """Why products of halves cannot be had there; None where they can."""
    if device.type == "cpu":
        return None
    if device.type != "cuda" or torch.version.hip is not None:
        return f"it is made for NVIDIA GPUs, and emulated on CPUs; the autoencoder is on {device}"
    capability = torch.cuda.get_device_capability(device)
    if capability < MIN_CAPABILITY:
        found, needed = (f"{major}.{minor}" for major, minor in (capability, MIN_CAPABILITY))
        return f"it needs tensor cores, compute capability {needed}; {torch.cuda.get_device_name(device)} has {found}"
    few = torch.zeros(8, 8, dtype=torch.float16, device=device)
    try:
        halves.multiply(few, few)
    except (TypeError, RuntimeError, NotImplementedError) as error:
        return f"it needs a torch whose mm takes out_dtype, as 2.8 does; that of {torch.__version__}: {one_line(error)}"
    return None


def replace(autoencoder: Any, device: torch.device) -> nn.Module:
    """A copy of the autoencoder whose linear layers and 2d convolutions are three products of halves; it shares the
    weights. What was compiled is copied as it was before.

    Raises ValueError where the device has no such products, and for what is no module, has no such layer, or cannot be
    copied.
    """
    if (reason := why_not_on(device)) is not None:
        raise ValueError(f"precision 'float32x3' is not available: {reason}")
    what = "precision 'float32x3' replaces the linear layers and 2d convolutions of a model"
    if not isinstance(autoencoder, nn.Module):
        raise ValueError(f"{what}: the autoencoder must be an nn.Module, not {type(autoencoder).__name__}")
    if not any(isinstance(module, MULTIPLYING) and _why_not(module) is None for module in autoencoder.modules()):
        others = "".join(f"; it has {one}" for one in not_replaced(autoencoder)[:1])
        raise ValueError(f"{what}: this one has none that could be{others}")
    autoencoder = getattr(autoencoder, "_orig_mod", autoencoder)
    shared = {id(tensor): tensor for tensor in (*autoencoder.parameters(), *autoencoder.buffers())}
    try:
        copied: nn.Module = copy.deepcopy(autoencoder, memo=dict(shared))
    except Exception as error:  # whatever its parts raise
        raise ValueError(f"{what} in a copy of it, and it cannot be copied: {one_line(error)}") from error
    with torch.no_grad():
        _replace_in(copied)
    return copied


def not_replaced(autoencoder: Any) -> tuple[str, ...]:
    """The layers of a model that multiply, but are not replaced: name, kind and why."""
    if not isinstance(autoencoder, nn.Module):
        return ()
    kinds = {name: _why_not(module) for name, module in autoencoder.named_modules() if isinstance(module, MULTIPLYING)}
    return tuple(f"{name or 'the model itself'} ({kind})" for name, kind in kinds.items() if kind is not None)


def is_product(function: Any) -> bool:
    """Whether it is one of torch's functions that multiply matrices, and is not called for a product of halves."""
    return getattr(function, "__name__", "") in PRODUCTS and not _ours.get()


def _why_not(module: nn.Module) -> str | None:
    """Why a layer that multiplies is not replaced; None where it is."""
    kind = type(module).__name__
    if not isinstance(module, (nn.Linear, nn.Conv2d)):
        return kind
    of_torch = nn.Linear if isinstance(module, nn.Linear) else nn.Conv2d
    changed = type(module).forward is not of_torch.forward or "forward" in vars(module)
    if changed or (isinstance(module, nn.Conv2d) and type(module)._conv_forward is not nn.Conv2d._conv_forward):
        return f"{kind} with a forward of its own"
    if any(getattr(module, hooks) for hooks in _HOOKS):
        return f"{kind} with hooks"
    weight = module.weight
    if weight.dtype != torch.float32 or weight.layout != torch.strided or not weight.numel():
        return f"{kind} with weights of {weight.dtype}, {weight.layout}, {tuple(weight.shape)}"
    if isinstance(module, nn.Conv2d) and module.groups != 1:
        return f"{kind} in {module.groups} groups"
    return None


def _replace_in(copied: nn.Module) -> None:
    layers: dict[nn.Module, _Layer] = {}
    for module in copied.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and _why_not(module) is None:
            layers[module] = _split(module)
    forwards: dict[nn.Module, Callable[[Tensor], Tensor]] = {
        module: functools.partial(_forward, layer) for module, layer in layers.items()
    }
    for module in copied.modules():
        if type(module) is nn.Sequential and "forward" not in vars(module):
            first = next((layers[child] for child in module if child in layers), None)
            if first is not None:
                steps = (layers.get(child) or _activation(child, first.right.device) for child in module)
                forwards[module] = functools.partial(_run, tuple(steps), first.ops)
    for module, forward in forwards.items():
        vars(module)["forward"] = forward  # torch calls what a module has before what its class has


def _split(module: nn.Linear | nn.Conv2d) -> _Layer:
    weight = module.weight.detach()
    if isinstance(module, nn.Conv2d):
        segments = weight.permute(0, 2, 3, 1).reshape(len(weight), -1, module.in_channels)
    else:
        segments = weight[:, None]
    split = plain.split_weights(segments)
    # on a CPU products of halves are products of float32: these are exact, and it is done once
    right = split.values.T if weight.is_cuda else split.values.float().T
    bias = None if module.bias is None else module.bias.detach().contiguous()
    ops, channels_last = halves.choose(weight.device), weight.dim() == 4 and _is_channels_last(weight)
    return _Layer(module, module.forward, right, split.exponents, bias, channels_last, ops)


def _activation(module: nn.Module, device: torch.device) -> Tensor | nn.Module:
    """The slope of an activation that can be part of an operation on halves, float32 [1]; any other module as it is."""
    if any(getattr(module, hooks) for hooks in _HOOKS) or "forward" in vars(module):
        return module
    if type(module) is nn.PReLU and module.weight.numel() == 1 and module.weight.dtype == torch.float32:
        return module.weight.detach()
    if type(module) is nn.ReLU or type(module) is nn.LeakyReLU:
        slope = 0.0 if type(module) is nn.ReLU else module.negative_slope
        return torch.tensor([slope], dtype=torch.float32, device=device)
    return module


def _forward(layer: _Layer, x: Tensor) -> Tensor:
    """Of a layer by itself."""
    return _finish(_multiply(layer, x), layer.ops)


def _run(steps: tuple[_Layer | Tensor | nn.Module, ...], ops: HalvesOps, x: Tensor) -> Tensor:
    """Of a sequence."""
    value: _Value = x
    for step in steps:
        if isinstance(step, _Layer):
            value = _multiply(step, value)
        elif not isinstance(step, Tensor):
            value = step(_finish(value, ops))
        elif isinstance(value, _Pending) and value.sums.slope is None:
            value = dataclasses.replace(value, sums=dataclasses.replace(value.sums, slope=step))
        else:
            value = functional.prelu(_finish(value, ops), step)
    return _finish(value, ops)


def _finish(value: _Value, ops: HalvesOps) -> Tensor:
    """The numbers, in the shape and memory format that torch's own layer gives them."""
    if isinstance(value, Tensor):
        return value
    found = ops.finish(value.sums).view(value.shape)
    if not value.is_image:
        return found
    found = found.permute(0, 3, 1, 2)
    return found if value.channels_last else found.contiguous()


def _multiply(layer: _Layer, value: _Value) -> _Value:
    """What the layer makes of it; by its own forward, where it cannot have it."""
    is_convolution = isinstance(layer.module, nn.Conv2d)
    padded = is_convolution and layer.module.padding_mode != "zeros"
    if isinstance(value, _Pending) and (value.is_image != is_convolution or padded or not _fits(layer, value.shape)):
        value = _finish(value, layer.ops)
    if isinstance(value, Tensor):
        if torch.is_grad_enabled() and value.requires_grad:
            raise RuntimeError("precision 'float32x3' has no gradients, and the autoencoder asks for them")
        if not _takes(layer, value):
            return layer.usual(value)
    return _convolve(layer, value) if is_convolution else _multiply_rows(layer, value)


def _takes(layer: _Layer, x: Tensor) -> bool:
    """Whether it is a tensor that the layer can have in halves."""
    if x.dtype != torch.float32 or x.layout != torch.strided or x.device != layer.right.device:
        return False
    if torch.is_autocast_enabled(x.device.type):  # by the model itself
        return False
    is_convolution = isinstance(layer.module, nn.Conv2d)
    if x.dim() != 4 if is_convolution else x.dim() == 0:
        return False
    return _fits(layer, (*x.shape[:1], *x.shape[2:], x.shape[1]) if is_convolution else tuple(x.shape))


def _fits(layer: _Layer, shape: tuple[int, ...]) -> bool:
    """Whether numbers have a shape for the layer; what it multiplies is last."""
    module = layer.module
    if isinstance(module, nn.Linear):
        return shape[-1] == module.in_features
    left, right, top, bottom = module._reversed_padding_repeated_twice
    sizes = _output_size(module, shape[1] + top + bottom, shape[2] + left + right)
    return shape[-1] == module.in_channels and min(sizes) > 0


def _multiply_rows(layer: _Layer, value: _Value) -> _Pending:
    if isinstance(value, Tensor):
        shape = tuple(value.shape)
        split = layer.ops.split(value.reshape(math.prod(shape[:-1]), shape[-1]), shape[-1])
    else:
        shape, split = value.shape, layer.ops.split_sums(value.sums)
    return _Pending(
        _sums(layer, _product(split.values, layer.right), split), (*shape[:-1], len(layer.of_outputs)), False
    )


def _convolve(layer: _Layer, value: _Value) -> _Pending:
    module = layer.module
    assert isinstance(module, nn.Conv2d)
    padding: Sequence[int] = module._reversed_padding_repeated_twice
    if isinstance(value, Tensor):
        channels_last = layer.channels_last or _is_channels_last(value)
        if module.padding_mode != "zeros":
            value, padding = functional.pad(value, padding, mode=module.padding_mode), (0, 0, 0, 0)
        rows = value.permute(0, 2, 3, 1)
        shape = tuple(rows.shape)
        split = layer.ops.split(rows.reshape(shape[0], math.prod(shape[1:])), shape[-1])
    else:
        channels_last = layer.channels_last or value.channels_last
        shape, split = value.shape, layer.ops.split_sums(value.sums)
    images = functional.pad(split.values.view(*shape[:-1], 3 * shape[-1]), (0, 0, *padding))
    height, width = _output_size(module, images.shape[1], images.shape[2])
    products = [
        _product(_patches(some, module), layer.right) for some in images.split(_images_at_a_time(module, images))
    ]
    found = (shape[0], height, width, len(layer.of_outputs))
    sums = (products[0] if len(products) == 1 else torch.cat(products)).view(shape[0], math.prod(found[1:]))
    return _Pending(_sums(layer, sums, split), found, True, channels_last)


def _output_size(module: nn.Conv2d, height: int, width: int) -> tuple[int, int]:
    """Of a convolution of images that are padded, and have this size."""
    sizes = zip((height, width), module.kernel_size, module.stride, module.dilation, strict=True)
    found = [(size - dilation * (kernel - 1) - 1) // stride + 1 for size, kernel, stride, dilation in sizes]
    return found[0], found[1]


def _patches(images: Tensor, module: nn.Conv2d) -> Tensor:
    """[images · height · width, kernel · channels], of padded images with the channels last."""
    count, height, width, channels = images.shape
    of_image, of_row, of_pixel, _ = images.stride()
    sizes = _output_size(module, height, width)
    (down, right), (further_down, further_right) = module.stride, module.dilation
    strides = (of_image, down * of_row, right * of_pixel, further_down * of_row, further_right * of_pixel, 1)
    patches = images.as_strided((count, *sizes, *module.kernel_size, channels), strides, images.storage_offset())
    return patches.reshape(count * math.prod(sizes), math.prod(module.kernel_size) * channels)


def _images_at_a_time(module: nn.Conv2d, images: Tensor) -> int:
    """A multiple of four: with that, bits on a CPU do not depend on it."""
    _, height, width, channels = images.shape
    size = (
        images.element_size()
        * math.prod(_output_size(module, height, width))
        * math.prod(module.kernel_size)
        * channels
    )
    return max(MAX_PATCH_BYTES // (4 * size), 1) * 4


def _sums(layer: _Layer, sums: Tensor, split: Halves) -> Sums:
    return Sums(sums, split.exponents, layer.of_outputs, layer.bias)


def _product(left: Tensor, right: Tensor) -> Tensor:
    before = _ours.set(True)
    try:
        return halves.multiply(left, right)
    finally:
        _ours.reset(before)


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()
