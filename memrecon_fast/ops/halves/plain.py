"""Splitting into halves in plain torch: the truth, and what CPUs use."""

from __future__ import annotations

import torch
from torch import Tensor

from memrecon_fast.ops.halves import MAX_EXPONENT, TOP, Halves, Sums

_BIAS = 127
_MANTISSA = 23


def split(numbers: Tensor, segment: int) -> Halves:
    """See `HalvesOps`."""
    numbers = numbers.contiguous()
    exponents = _exponents(numbers)
    scaled = numbers * power_of_two(exponents)[:, None]
    high = scaled.half()
    low = (scaled - high.float()).half()
    rows, d = numbers.shape
    parts = [half.view(rows, d // segment, segment) for half in (high, high, low)]
    return Halves(torch.cat(parts, dim=2).view(rows, 3 * d), exponents)


def split_sums(sums: Sums) -> Halves:
    """See `HalvesOps`."""
    return split(finish(sums), sums.outputs)


def finish(sums: Sums) -> Tensor:
    """See `HalvesOps`: (sums · 2^−(exponents + of_outputs) + bias), and the activation of that."""
    rows, d = sums.sums.shape
    found = sums.sums.view(rows, d // sums.outputs, sums.outputs)
    exponents = -(sums.exponents[:, None, None] + sums.of_outputs)
    first = exponents >> 1  # in two steps: the power itself may be too large for a float32, or too small
    found = found * power_of_two(first) * power_of_two(exponents - first)
    if sums.bias is not None:
        found = found + sums.bias
    if sums.slope is not None:
        zero = torch.zeros_like(sums.slope)
        below = torch.where((sums.slope == 0) & (found <= 0), zero, found * sums.slope)
        found = torch.where(found > 0, found, below)
    return found.view(rows, d)


def split_weights(weights: Tensor) -> Halves:
    """Of weights [outputs, segments, segment] the right factor of the products with what `split` makes of a row with
    such segments, transposed: [outputs, 3 · segments · segment]."""
    outputs, segments, segment = weights.shape
    halves = split(weights.reshape(outputs, segments * segment), segment)
    high, _, low = halves.values.view(outputs, segments, 3, segment).unbind(2)
    return Halves(torch.stack([high, low, high], dim=2).view(outputs, -1), halves.exponents)


def power_of_two(exponents: Tensor) -> Tensor:
    """2^exponent, float32; int32 from −126 to 127."""
    return ((exponents + _BIAS) << _MANTISSA).view(torch.float32)


def _exponents(numbers: Tensor) -> Tensor:
    """Of the power of two that brings the largest number of each row to [2^TOP, 2^(TOP + 1)), at most MAX_EXPONENT."""
    # As integers, numbers without their sign have the same order; infinity and NaN are above all others.
    largest = (numbers.view(torch.int32) & 0x7FFFFFFF).amax(dim=1)
    return (TOP + _BIAS - (largest >> _MANTISSA)).clamp(max=MAX_EXPONENT)
