"""Tensors that no operation may have: what stands in the place of a good one, of every kind that torch has."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode


class _Subclass(Tensor):
    """A tensor with memory, but of a type that may answer anything."""


class _Wrapper(Tensor):
    """A tensor without memory."""

    @staticmethod
    def __new__(cls, like: Tensor) -> _Wrapper:
        return Tensor._make_wrapper_subclass(cls, like.shape, dtype=like.dtype)

    @classmethod
    def __torch_dispatch__(cls, func: Any, *_: Any) -> Any:
        raise NotImplementedError(str(func))


def resized(tensor: Tensor, size: int) -> Tensor:
    """The tensor, its storage changed to so many bytes."""
    tensor.untyped_storage().resize_(size)
    return tensor


def set_elsewhere(tensor: Tensor) -> Tensor:
    """The tensor, made one of other memory, which is cut."""
    tensor.set_(torch.zeros_like(tensor).untyped_storage(), 0, tensor.shape, tensor.stride())
    return resized(tensor, tensor.nbytes // 2)


def _fake(tensor: Tensor) -> Tensor:
    with FakeTensorMode():
        return torch.zeros(tensor.shape, dtype=tensor.dtype)


def _escaped(transform: Callable[..., Any], tensor: Tensor) -> Tensor:
    """What a transform of torch.func gives its function, kept beyond its end."""
    seen: list[Tensor] = []

    def keep(inner: Tensor) -> Tensor:
        seen.append(inner)
        return inner.sum()

    transform(keep)(tensor)
    return seen[0]


def _quantized(tensor: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are deprecated
        return torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.quint8)


def _nested(tensor: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are a prototype
        return torch.nested.nested_tensor(list(tensor))


def _shifted(tensor: Tensor) -> Tensor:
    """In memory, but where no allocator puts it."""
    longer = torch.zeros(tensor.numel() + 1, dtype=tensor.dtype)
    return longer[1:].view(tensor.shape)


def _narrow_storage(tensor: Tensor) -> Tensor:
    """A view of the end of a storage, which is then cut."""
    longer = torch.zeros(2 * tensor.numel(), dtype=tensor.dtype)
    view = longer[tensor.numel() :].view(tensor.shape)
    longer.untyped_storage().resize_(tensor.nbytes)
    return view


WITHOUT_MEMORY: dict[str, Callable[[Tensor], Any]] = {
    "freed": lambda tensor: resized(tensor.clone(), 0),
    "cut by a byte": lambda tensor: resized(tensor.clone(), max(tensor.nbytes - 1, 0)),
    "cut to a byte": lambda tensor: resized(tensor.clone(), 1),
    "a view of what was cut": _narrow_storage,
    "set elsewhere": lambda tensor: set_elsewhere(tensor.clone()),
    "fake": _fake,
    "meta": lambda tensor: tensor.to("meta"),
    "zero": lambda tensor: torch._efficientzerotensor(tensor.shape, dtype=tensor.dtype),
    "wrapper": _Wrapper,
    "functional": lambda tensor: torch._to_functional_tensor(tensor),
    "vmap": lambda tensor: _escaped(torch.vmap, tensor[None]),
    "grad": lambda tensor: _escaped(torch.func.grad, tensor.float()),
}
"""Whose entries are not in memory, or not all of them; where there are none, some are as good as any."""
NO_PLAIN: dict[str, Callable[[Tensor], Any]] = {
    "subclass": lambda tensor: tensor.as_subclass(_Subclass),
    "negative": lambda tensor: torch._neg_view(tensor.float()),
    "conjugate": lambda tensor: tensor.to(torch.complex64).conj(),
    "imaginary": lambda tensor: tensor.to(torch.complex64).conj().imag,
    "sparse": lambda tensor: tensor.to_sparse(),
    "quantized": _quantized,
    "nested": _nested,
    "mkldnn": lambda tensor: tensor.float().to_mkldnn(),
}
OTHERWISE_WRONG: dict[str, Callable[[Tensor], Any]] = {
    "expanded": lambda tensor: (
        tensor.flatten()[:1].expand(tensor.numel()).view(tensor.shape)
        if tensor.numel() == 1
        else torch.zeros(1, dtype=tensor.dtype).expand(tensor.shape)
    ),
    "huge": lambda tensor: torch.zeros(1, dtype=tensor.dtype).expand(2**40, *tensor.shape[1:]),
    "strided": lambda tensor: torch.stack([tensor, tensor], dim=-1)[..., 0],
    "transposed": lambda tensor: tensor.mT.contiguous().mT if tensor.dim() > 1 else tensor.flip(0)[::2],
    "shifted": _shifted,
    "fewer rows": lambda tensor: tensor[1:].clone(),
    "more rows": lambda tensor: torch.cat([tensor, tensor]),
    "another axis": lambda tensor: tensor[..., None],
    "no axis": lambda tensor: torch.zeros((), dtype=tensor.dtype),
    "empty": lambda tensor: torch.zeros(0, dtype=tensor.dtype),
    "double": lambda tensor: tensor.double(),
    "half": lambda tensor: tensor.half(),
    "bytes": lambda tensor: tensor.to(torch.uint8),
    "array": lambda tensor: tensor.numpy(),
    "list": lambda tensor: tensor.tolist(),
    "none": lambda tensor: None,
    "number": lambda tensor: 1.0,
    "parameter": lambda tensor: nn.Parameter(tensor, requires_grad=tensor.is_floating_point()),
}
KINDS = WITHOUT_MEMORY | NO_PLAIN | OTHERWISE_WRONG
