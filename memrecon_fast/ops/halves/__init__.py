"""Products of float32 matrices by three products of float16 halves, with float32 sums: what a tensor core can do.

A row of numbers is multiplied by a power of two, so that its largest is in [2¹⁴, 2¹⁵), and split: each is high + low,
two float16 numbers with 22 bits together, or more exactly: what is above 2⁻¹⁶ of the largest is kept to 2⁻²² of itself,
anything else to 2⁻³⁹ of the largest. Of a row a and an output's weights w

    a·w = high_a·high_w + high_a·low_w + low_a·high_w

but for low_a·low_w, 2⁻²² of it. So it is one product of three times the length, of [high, high, low] and [high, low,
high], whose float32 sums are multiplied by a power of two for the row and one for the output: exact, but where the
result overflows or has fewer bits than a normal number.

bfloat16 halves need no such scale, but have 16 bits together: an error of 4e-6, where this one is that of float32
(tests/ops/halves/test_plain.py). Unscaled float16 loses small numbers: those below 2⁻¹⁴ have fewer bits.

A row with infinity or NaN becomes a row of NaN; no other row changes. `plain` says what each operation does, `triton`
is for GPUs, bit for bit the same.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from typing import Any, Protocol

import torch
from torch import Tensor

MAX_EXPONENT = 126
"""Of the power of two that a row is multiplied by."""
TOP = 14
"""The largest number of a row is brought to [2^TOP, 2^(TOP + 1)): the most that float16 has room for."""


@dataclasses.dataclass(frozen=True, eq=False)
class Halves:
    """Numbers, split."""

    values: Tensor
    """float16 [rows, 3d]: of each segment of a row, such as the channels of a pixel, the high halves, these once more,
    and the low ones."""
    exponents: Tensor
    """int32 [rows]: high + low is 2^exponent times the number."""


@dataclasses.dataclass(frozen=True, eq=False)
class Sums:
    """What a product left, [rows, d]: numbers that are yet to be scaled, and given a bias and an activation.

    d is a multiple of the number of outputs: pixels, with the outputs of each next to one another. All tensors must be
    contiguous: making one raises ValueError where they are not, or do not fit together.
    """

    sums: Tensor
    """float32 [rows, d]."""
    exponents: Tensor
    """int32 [rows], of the row that was multiplied."""
    of_outputs: Tensor
    """int32 [outputs], of the weights."""
    bias: Tensor | None = None
    """float32 [outputs]."""
    slope: Tensor | None = None
    """float32 [1]: what numbers below 0 are multiplied by; 0: they become 0. None: no activation."""

    def __post_init__(self) -> None:
        of_rows, of_outputs = tuple(self.sums.shape[:1]), (self.outputs,)
        shapes = {"exponents": of_rows, "of_outputs": of_outputs, "bias": of_outputs, "slope": (1,)}
        for name, shape in shapes.items():
            tensor = getattr(self, name)
            if tensor is not None and (tensor.shape != shape or not tensor.is_contiguous()):
                raise ValueError(f"{name} must be contiguous, of shape {shape}, not {tuple(tensor.shape)}")
        if not self.sums.is_contiguous() or self.sums.shape[1] % self.outputs:
            raise ValueError(f"sums must be contiguous, [rows, a multiple of {self.outputs}]")

    @property
    def outputs(self) -> int:
        """How many there are."""
        return len(self.of_outputs)


class HalvesOps(Protocol):
    """What every implementation offers; `plain` says what each function does."""

    def split(self, numbers: Tensor, segment: int) -> Halves:
        """Numbers, float32 [rows, d]; d ≥ 1 is a multiple of the segment."""

    def split_sums(self, sums: Sums) -> Halves:
        """The numbers that sums stand for, in segments of the outputs."""

    def finish(self, sums: Sums) -> Tensor:
        """The numbers that sums stand for, float32 [rows, d]."""


def choose(device: torch.device) -> HalvesOps:
    """The fastest for tensors on this device."""
    in_triton = device.type == "cuda" and importlib.util.find_spec("triton") is not None
    found: Any = importlib.import_module(f"{__name__}.{'triton' if in_triton else 'plain'}")
    return found  # type: ignore[no-any-return]


def multiply(left: Tensor, right: Tensor) -> Tensor:
    """left · right, float16 [m, k] and [k, n]: float32 [m, n], sums of exact products.

    On a CPU, which multiplies no halves so, right may be float32: it is emulated by a product of float32.
    """
    if left.is_cuda:
        return torch.mm(left, right, out_dtype=torch.float32)
    return torch.mm(left.float(), right.float())
