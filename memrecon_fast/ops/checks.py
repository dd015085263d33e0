"""What stands between Python and kernels that trust their pointers."""

from __future__ import annotations

import torch
from torch import Tensor


def check_buffers(written: tuple[str, ...], **buffers: Tensor) -> tuple[list[int], int, int]:
    """The addresses of the buffers, in their order, and rows and d, if a CPU kernel may have them.

    The first buffer says what [rows, d] is. All are float32 of this shape, contiguous and on the CPU; but mask is
    bool, and mse has the shape [rows]. Those named in `written` share no memory with any other.

    Raises TypeError for what is no tensor or has another dtype, ValueError for the rest.
    """
    shape = None
    addresses: list[int] = []
    spans: list[tuple[str, int, int]] = []
    for name, buffer in buffers.items():
        if not isinstance(buffer, Tensor):
            raise TypeError(f"{name} must be a tensor, not {type(buffer).__name__}")
        dtype = torch.bool if name == "mask" else torch.float32
        if buffer.dtype is not dtype:
            raise TypeError(f"{name} must be of {dtype}, not {buffer.dtype}")
        if not buffer.is_cpu or buffer.layout is not torch.strided:
            raise ValueError(f"{name} must be a dense tensor on the CPU, not {buffer.layout} on {buffer.device}")
        if shape is None:
            shape = buffer.shape
            if len(shape) != 2:
                raise ValueError(f"{name} must have the shape [rows, d], not {list(shape)}")
        expected = shape[:1] if name == "mse" else shape
        if buffer.shape != expected:
            raise ValueError(f"{name} must have the shape {list(expected)}, not {list(buffer.shape)}")
        if not buffer.is_contiguous():
            raise ValueError(f"{name} must be contiguous, but its strides are {list(buffer.stride())}")
        begin = buffer.data_ptr()
        end = begin + buffer.nbytes
        for other, other_begin, other_end in spans:
            if begin < other_end and other_begin < end and (name in written or other in written):
                raise ValueError(f"{name} must share no memory with {other}: one of them is written")
        addresses.append(begin)
        spans.append((name, begin, end))
    assert shape is not None
    return addresses, shape[0], shape[1]
