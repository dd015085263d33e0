"""Theorem 6 (in the appendix: 7): nearly the identity everywhere, and still every training image is an attractor."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from memrecon_fast.common.checks import check_number

_CORNERS = ((-2, 0.5), (-1, -1.0), (1, 1.0), (2, -0.5))
"""About a value v, in units of the half width h: where the slope of f(x) − x changes, and by how much."""


def half_width(points: Tensor, error: float) -> float:
    """The largest h for which `contracting_identity` has an expected reconstruction error of at most `error`.

    |f(x) − x| is at most h/2 in each entry, so that (h/2)² bounds the mean over the entries of (f(x) − x)², whatever
    the distribution of x is. The pieces about two values must not overlap: 4h is at most the smallest gap between
    different values of an entry.
    """
    check_number("error", error, low=0, low_is_allowed=False)
    gaps = [values.diff().min().item() for values in _values(points) if len(values) > 1]
    return min([2 * math.sqrt(error), *(gap / 4 for gap in gaps)])


def contracting_identity(points: Tensor, h: float) -> nn.Sequential:
    """A net of two layers with ReLU, float64, (B, d) → (B, d), whose Jacobian at each of the points is I/2.

    Each entry goes its own way. About each value v that some point has there (n at most):

        f(x) = v + (x − v)/2 where |x − v| ≤ h;  x where |x − v| ≥ 2h;  straight between them

    points: (n, d). h: half of the width of the pieces with slope ½, above 0, at most a quarter of the smallest gap, see
    `half_width`. Of the hidden units, two for each entry carry the identity, four each value: d·(4n + 2) at most.

    The points are attractors with ρ = ½; so is, for d > 1, every image that is put together of their entries: up to nᵈ,
    of which the theorem does not speak. On an interval that holds them, the integral of (f(x) − x)² is h³/3 a value.
    """
    check_number("h", h, low=0, low_is_allowed=False)
    columns = _values(points)
    size = len(columns)
    inward: list[tuple[int, float, float]] = []  # entry, sign, bias of a hidden unit
    outward: list[float] = []
    for entry, values in enumerate(columns):
        if len(values) > 1 and 4 * h > values.diff().min().item() * (1 + 1e-9):
            raise ValueError(f"h must be at most a quarter of the smallest gap between values of an entry, not {h:g}")
        inward += [(entry, 1.0, 0.0), (entry, -1.0, 0.0)]
        outward += [1.0, -1.0]
        for value in values.tolist():
            inward += [(entry, 1.0, -(value + at * h)) for at, _ in _CORNERS]
            outward += [change for _, change in _CORNERS]
    first = nn.Linear(size, len(inward), dtype=torch.float64)
    last = nn.Linear(len(inward), size, bias=False, dtype=torch.float64)
    with torch.no_grad():
        first.weight.zero_()
        last.weight.zero_()
        for unit, ((entry, sign, bias), weight) in enumerate(zip(inward, outward, strict=True)):
            first.weight[unit, entry] = sign
            first.bias[unit] = bias
            last.weight[entry, unit] = weight
    return nn.Sequential(first, nn.ReLU(), last)


def _values(points: Tensor) -> list[Tensor]:
    """The different values of each entry, rising. Raises ValueError for what are no points."""
    if points.ndim != 2 or 0 in points.shape or not points.isfinite().all():
        raise ValueError(f"points must be finite rows (n, d), not of shape {tuple(points.shape)}")
    return [column.unique(sorted=True) for column in points.double().T]
