"""Linear layers on x86 processors with their weights packed once.

A product of some rows by a large matrix begins with bringing the matrix into the order in which it is read, and torch's
`linear` does so in each call. oneDNN, which comes with torch, multiplies by a matrix that was brought into that order
before. The sums are of float32 as well, in another order: last bits are others, and depend less on the number of rows
(`python -m benchmarks passes`).

The model is called as it is: a mode of torch sees each call of `linear` with one of the packed weights, and answers it.
What such a product cannot have is left to torch: weights that were changed since or belong to something else, other
dtypes, autocast in the model, gradients, calls from compiled code, and what torch transforms (`torch.func`, forward
derivatives: of such a product they would be 0).
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from memrecon_fast.common.typing import Autoencoder

MIN_WEIGHTS = 2**19
"""Of a layer; with smaller matrices little or nothing is gained."""
_ROWS = 64
"""For how many rows weights are packed; the order that comes of it does for any number."""
_X86 = ("x86_64", "amd64")


@dataclasses.dataclass(frozen=True)
class _Weight:
    weight: Tensor
    """Kept, so that no other tensor gets its `id`."""
    version: int
    """Of the weight when it was packed; torch counts its changes."""
    packed: Tensor


class Packed(TorchFunctionMode):
    """While it is entered, products by these weights, of `weights_of`, are those by packed ones."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()
        self._weights = {id(weight): _Weight(weight, weight._version, _pack(weight)) for weight in weights}

    def __len__(self) -> int:
        return len(self._weights)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is functional.linear and len(args) == 3 and not kwargs and not torch.compiler.is_compiling():
            x, weight, bias = args
            known = self._weights.get(id(weight))
            if known is not None and known.version == weight._version and _can_have(x, bias, weight.shape[1]):
                return torch.ops.mkldnn._linear_pointwise(x, known.packed, bias, "none", [], "")
        return func(*args, **(kwargs or {}))


def weights_of(autoencoder: Autoencoder) -> list[Tensor]:
    """The weights of its linear layers that are worth packing, each once; none where it is no module or is compiled, on
    another processor, or with a torch that lacks what it takes."""
    if not isinstance(autoencoder, nn.Module) or not is_available():
        return []
    modules = list(autoencoder.modules())
    if any(hasattr(one, "_orig_mod") or getattr(one, "_compiled_call_impl", None) is not None for one in modules):
        return []
    weights = [one._parameters.get("weight") for one in modules if isinstance(one, nn.Linear)]
    found = {id(weight): weight for weight in weights if weight is not None and _can_be_packed(weight)}
    return list(found.values())


def is_available() -> bool:
    """Whether weights can be packed on this machine, by this torch."""
    if platform.machine().lower() not in _X86 or not torch.backends.mkldnn.is_available():
        return False
    needed: list[tuple[object, str]] = [
        (torch.ops.mkldnn, "_linear_pointwise"),
        (torch.ops.mkldnn, "_reorder_linear_weight"),
        (torch.autograd.forward_ad, "_current_level"),
        (torch._C._functorch, "is_functorch_wrapped_tensor"),
    ]
    return all(hasattr(where, name) for where, name in needed)


def _can_be_packed(weight: Tensor) -> bool:
    usual = type(weight) in (Tensor, nn.Parameter) and _is_usual(weight) and not weight.is_inference()
    return usual and weight.dim() == 2 and weight.numel() >= MIN_WEIGHTS


def _is_usual(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.layout == torch.strided and tensor.device.type == "cpu"


def _pack(weight: Tensor) -> Tensor:
    with torch.no_grad():
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS)
    return packed


def _can_have(x: Any, bias: Any, inputs: int) -> bool:
    """Whether a product of this and a bias, or None, can be one by packed weights."""
    return (
        type(x) is Tensor
        and _is_usual(x)
        and x.dim() > 0
        and x.shape[-1] == inputs
        and (bias is None or (type(bias) in (Tensor, nn.Parameter) and _is_usual(bias)))
        and not torch.is_grad_enabled()
        and torch.autograd.forward_ad._current_level < 0
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
        and not torch.is_autocast_enabled("cpu")
        and bool(torch.backends.mkldnn.enabled)
    )
