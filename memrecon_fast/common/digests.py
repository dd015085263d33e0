"""SHA-256 of tensors and of modules, by which a run knows that it is given the same ones again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def digest_of(parts: Iterable[str | Tensor]) -> str:
    """SHA-256 of texts and tensors, the latter with their dtypes and shapes, one after the other."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            found.update(part.encode())
        else:
            found.update(f" {part.dtype} {tuple(part.shape)} ".encode())
            for dense in _dense_parts(part.detach()):
                found.update(
                    dense.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8).numpy().data
                )
    return found.hexdigest()


def parts_of_module(module: nn.Module, more: str = "") -> list[str | Tensor]:
    """Its layers, as they are printed, with `more` after them, and all parameters and buffers by name."""
    # not its qualified name, which a class within a function loses on the way to a worker process
    layers = f"{type(module).__name__} {module!r} {more}"
    layers = re.sub(r" at 0x[0-9a-fA-F]+", "", layers)  # addresses in memory
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return [layers, *(part for name in sorted(tensors) for part in (name, tensors[name]))]


def _dense_parts(tensor: Tensor) -> list[Tensor]:
    """Dense tensors that hold all of its values."""
    if tensor.layout == torch.sparse_coo:
        tensor = tensor.coalesce()
        return [tensor.indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    if tensor.is_quantized:
        return [tensor.int_repr(), tensor.dequantize()]
    return [tensor if tensor.layout == torch.strided else tensor.to_dense()]
