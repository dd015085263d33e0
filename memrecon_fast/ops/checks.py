"""What stands between Python and kernels that trust their pointers."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

MAX_PLACES = 33
"""Of the ring of evaluations, q: what the kernels have room for."""

_PER_ROW: tuple[int | str, ...] = ("rows",)
_PIXELS: tuple[int | str, ...] = ("rows", "d")
_KINDS: dict[str, tuple[torch.dtype, tuple[int | str, ...]]] = {
    **dict.fromkeys(("s", "v", "y", "x", "best"), (torch.float32, _PIXELS)),
    **dict.fromkeys(("mask", "anchor", "best_mask"), (torch.bool, _PIXELS)),
    **dict.fromkeys(("steps", "residuals"), (torch.float32, ("rows", "q", "d"))),
    "gram": (torch.float64, ("rows", "q", "q")),
    "weights": (torch.float32, ("rows", "q")),
    "coefficients": (torch.float32, ("rows", 3)),
    **dict.fromkeys(("residual", "score", "best_score", "milestone"), (torch.float32, _PER_ROW)),
    **dict.fromkeys(("settled", "recurs", "renew", "changed", "extrapolated"), (torch.bool, _PER_ROW)),
    **dict.fromkeys(("iterations", "blocks", "below", "anchored", "period"), (torch.int32, _PER_ROW)),
    **dict.fromkeys(("head", "filled", "base", "held", "stalled"), (torch.int32, _PER_ROW)),
    **dict.fromkeys(("accepted", "rejected", "mask_changes"), (torch.int32, _PER_ROW)),
    "status": (torch.int8, _PER_ROW),
}
"""For each argument its dtype and its shape: [rows, d] are pixels, q is the number of places in the ring."""
_STRIDED = torch.strided


def check_buffers(
    written: tuple[str, ...], device_type: str = "cpu", alignment: int = 1, **buffers: Tensor
) -> tuple[list[int], int, int]:
    """The addresses of the buffers, in their order, and rows and d, if a kernel may have them.

    The first buffer says on which device, of type `device_type`, all are, and how many rows there are; the first one
    with pixels says what d is (1 where there is none), the first one with places what q is, at least 1 and at most
    `MAX_PLACES`. Each has the dtype and the shape of its name, and all are contiguous. Those with pixels begin at a
    multiple of `alignment` bytes. Those named in `written` share no memory with any other.

    Raises TypeError for what is no tensor or has another dtype, ValueError for the rest.
    """
    device: torch.device | None = None
    sizes: dict[int | str, int] = {3: 3}
    shapes: dict[tuple[int | str, ...], torch.Size] = {}
    addresses: list[int] = []
    spans: list[tuple[int, int, str]] = []
    for name, buffer in buffers.items():
        if not isinstance(buffer, Tensor):
            raise TypeError(f"{name} must be a tensor, not {type(buffer).__name__}")
        dtype, axes = _KINDS[name]
        if buffer.dtype is not dtype:
            raise TypeError(f"{name} must be of {dtype}, not {buffer.dtype}")
        if device is None and buffer.device.type == device_type:
            device = buffer.device
        if buffer.device != device or buffer.layout is not _STRIDED:
            place = device or device_type
            raise ValueError(f"{name} must be a dense tensor on {place}, not {buffer.layout} on {buffer.device}")
        shape = buffer.shape
        if shape != shapes.get(axes):
            if len(shape) != len(axes):
                raise _wrong_shape(name, sizes, shape)
            for axis, size in zip(axes, shape, strict=True):
                if sizes.setdefault(axis, size) != size:
                    raise _wrong_shape(name, sizes, shape)
            shapes[axes] = shape
        if not buffer.is_contiguous():
            raise ValueError(f"{name} must be contiguous, but its strides are {list(buffer.stride())}")
        begin = buffer.data_ptr()
        if axes[-1] == "d" and begin % alignment:
            raise ValueError(f"{name} must begin at a multiple of {alignment} bytes, as what torch allocates does")
        addresses.append(begin)
        spans.append((begin, begin + buffer.nbytes, name))
    if not 1 <= sizes.get("q", 1) <= MAX_PLACES:
        raise ValueError(f"there must be 1 to {MAX_PLACES} places for evaluations, not {sizes['q']}")
    # In the order of their addresses, a look at neighbours is enough to see that nothing is shared.
    spans.sort()
    previous_end = 0
    for begin, end, _ in spans:
        if begin < previous_end:
            _check_sharing(written, spans)
        previous_end = end
    return addresses, sizes.get("rows", 0), sizes.get("d", 1)


def _wrong_shape(name: str, sizes: dict[int | str, int], shape: torch.Size) -> ValueError:
    expected = ", ".join(str(sizes.get(axis, axis)) for axis in _KINDS[name][1])
    return ValueError(f"{name} must have the shape [{expected}], not {list(shape)}")


def _check_sharing(written: tuple[str, ...], spans: list[tuple[int, int, str]]) -> None:
    for (begin, end, name), (other_begin, other_end, other) in itertools.combinations(spans, 2):
        if begin < other_end and other_begin < end and (name in written or other in written):
            raise ValueError(f"{name} must share no memory with {other}: one of them is written")
