"""Linear layers on x86 processors with their weights packed once, in a copy of a model.

A product of some rows by a large matrix begins with bringing the matrix into the order in which it is read, and torch's
`linear` does so in each call. oneDNN, which comes with torch, multiplies by a matrix that was brought into that order
before. The sums are of float32 as well, in another order: last bits are others, and depend less on the number of rows
(`python -m benchmarks passes`).

What such a layer cannot have is given to its own forward: other dtypes, autocast in the model, gradients, calls from
compiled code, and what torch transforms (`torch.func`, forward derivatives: of such a product they would be 0).
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable

import torch
from torch import Tensor, nn

from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.copies import copy_sharing, has_hooks, has_own_forward

MIN_WEIGHTS = 2**19
"""Of a layer; with smaller matrices little or nothing is gained."""
_ROWS = 64
"""For how many rows weights are packed; the order that comes of it does for any number."""
_X86 = ("x86_64", "amd64")


def pack(autoencoder: Autoencoder) -> nn.Module | None:
    """A copy of the autoencoder whose large linear layers have packed weights; all else it shares.

    None where there is nothing to be packed: no module, or a compiled one, no such layer, another processor or a torch
    without oneDNN; or where it cannot be copied.
    """
    if not isinstance(autoencoder, nn.Module) or not _is_available():
        return None
    if not _large_layers(autoencoder) or any(hasattr(module, "_orig_mod") for module in autoencoder.modules()):
        return None
    try:
        copied = copy_sharing(autoencoder)
    except Exception:  # whatever its parts raise
        return None
    for layer in _large_layers(copied):
        vars(layer)["forward"] = functools.partial(_forward, layer.forward, _packed(layer), layer)
    return copied


def _is_available() -> bool:
    if platform.machine().lower() not in _X86 or not torch.backends.mkldnn.is_available():
        return False
    needed: list[tuple[object, str]] = [
        (torch.ops.mkldnn, "_linear_pointwise"),
        (torch.ops.mkldnn, "_reorder_linear_weight"),
    ]
    needed += [(torch.autograd.forward_ad, "_current_level"), (torch._C._functorch, "is_functorch_wrapped_tensor")]
    return all(hasattr(where, name) for where, name in needed)


def _large_layers(model: nn.Module) -> list[nn.Linear]:
    return [module for module in model.modules() if isinstance(module, nn.Linear) and _can_be_packed(module)]


def _can_be_packed(layer: nn.Linear) -> bool:
    if has_own_forward(layer, nn.Linear) or has_hooks(layer):
        return False
    tensors = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
    return layer.weight.numel() >= MIN_WEIGHTS and all(map(_is_usual, tensors))


def _is_usual(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.layout == torch.strided and tensor.device.type == "cpu"


def _packed(layer: nn.Linear) -> Tensor:
    with torch.no_grad():
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), _ROWS)
    return packed


def _forward(usual: Callable[[Tensor], Tensor], packed: Tensor, layer: nn.Linear, x: Tensor) -> Tensor:
    """Of a layer with packed weights."""
    if (
        torch.compiler.is_compiling()
        or type(x) is not Tensor
        or not _is_usual(x)
        or x.dim() == 0
        or x.shape[-1] != layer.in_features
        or torch.is_grad_enabled()
        or torch.autograd.forward_ad._current_level >= 0
        or torch._C._functorch.is_functorch_wrapped_tensor(x)
        or torch.is_autocast_enabled("cpu")
        or not torch.backends.mkldnn.enabled
    ):
        return usual(x)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, layer.bias, "none", [], "")
    return product
