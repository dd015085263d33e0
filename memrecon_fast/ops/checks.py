"""What stands between Python and kernels that trust their pointers."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

_KINDS: dict[str, tuple[torch.dtype, tuple[int, ...] | None, int]] = {
    **dict.fromkeys(("s", "v", "y", "x"), (torch.float32, None, 4)),
    **dict.fromkeys(("mask", "anchor"), (torch.bool, None, 1)),
    "coefficients": (torch.float32, (3,), 12),
    "residual": (torch.float32, (), 4),
    **dict.fromkeys(("settled", "recurs", "renew"), (torch.bool, (), 1)),
    **dict.fromkeys(("iterations", "blocks", "below", "anchored", "period"), (torch.int32, (), 4)),
    "status": (torch.int8, (), 1),
}
"""For each argument its dtype, what follows the rows in its shape (None stands for the d pixels), and how many bytes
that makes per row, or per pixel."""
_STRIDED = torch.strided


def check_buffers(
    written: tuple[str, ...], device_type: str = "cpu", alignment: int = 1, **buffers: Tensor
) -> tuple[list[int], int, int]:
    """The addresses of the buffers, in their order, and rows and d, if a kernel may have them.

    The first buffer says what [rows, d] is and on which device, of type `device_type`, all are; d is 1 where it is one
    of those that have one entry per row. Each has the dtype and the shape of its name, and all are contiguous. Those
    with pixels begin at a multiple of `alignment` bytes. Those named in `written` share no memory with any other.

    Raises TypeError for what is no tensor or has another dtype, ValueError for the rest.
    """
    device: torch.device | None = None
    pixels: tuple[int, ...] = ()
    rows, d = 0, 1
    addresses: list[int] = []
    spans: list[tuple[int, int, str]] = []
    for name, buffer in buffers.items():
        if not isinstance(buffer, Tensor):
            raise TypeError(f"{name} must be a tensor, not {type(buffer).__name__}")
        dtype, trailing, width = _KINDS[name]
        if buffer.dtype is not dtype:
            raise TypeError(f"{name} must be of {dtype}, not {buffer.dtype}")
        shape = buffer.shape
        if device is None:
            device = buffer.device
            if device.type != device_type:
                raise ValueError(f"{name} must be a dense tensor on {device_type}, not {buffer.layout} on {device}")
            if len(shape) != (2 if trailing is None else 1):
                raise ValueError(
                    f"{name} must have the shape {'[rows, d]' if trailing is None else '[rows]'}, not {list(shape)}"
                )
            pixels = shape
            rows = shape[0]
            if trailing is None:
                d = shape[1]
        if buffer.device != device or buffer.layout is not _STRIDED:
            raise ValueError(f"{name} must be a dense tensor on {device}, not {buffer.layout} on {buffer.device}")
        expected = pixels if trailing is None else (rows, *trailing)
        if shape != expected:
            raise ValueError(f"{name} must have the shape {list(expected)}, not {list(shape)}")
        if not buffer.is_contiguous():
            raise ValueError(f"{name} must be contiguous, but its strides are {list(buffer.stride())}")
        begin = buffer.data_ptr()
        if trailing is None and begin % alignment:
            raise ValueError(f"{name} must begin at a multiple of {alignment} bytes, as what torch allocates does")
        addresses.append(begin)
        spans.append((begin, begin + rows * (d if trailing is None else 1) * width, name))
    # In the order of their addresses, a look at neighbours is enough to see that nothing is shared.
    spans.sort()
    previous_end = 0
    for begin, end, _ in spans:
        if begin < previous_end:
            _check_sharing(written, spans)
        previous_end = end
    return addresses, rows, d


def _check_sharing(written: tuple[str, ...], spans: list[tuple[int, int, str]]) -> None:
    for (begin, end, name), (other_begin, other_end, other) in itertools.combinations(spans, 2):
        if begin < other_end and other_begin < end and (name in written or other in written):
            raise ValueError(f"{name} must share no memory with {other}: one of them is written")
