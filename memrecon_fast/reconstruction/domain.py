"""Where the inputs of a net can lie: on the sphere or anywhere, in all dimensions or in a few that are known.

The first layer, where it is linear, is moved by gradient descent along the inputs alone,

    W − W_init = D X,   b − b_init = D 1,   D of n columns, one for each of the inputs, the rows of X,

where weights and biases were trained at the same rate, so the leading n right singular vectors of the change of (W, b)
span the (x_i, 1). After n of them the singular values
fall to what rounding leaves; where they do not, as after Adam or weight decay, nothing is known from them.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import torch
from torch import Tensor

from memrecon_fast.reconstruction.projected import Features

LEAST_GAP = 30.0
"""Of s_n/s_(n+1). Rounding moves by a few times less from one singular value to the next, and so do those of Adam."""


@dataclasses.dataclass(frozen=True, eq=False)
class Domain:
    """x = offset + basis·z: inputs are looked for by their coordinates z, of which there are `width`.

    on_sphere: their lengths are not looked for, but ‖z‖ = √width; there the offset is 0, and basis is such that
    ‖x‖ = √d.
    """

    d: int
    on_sphere: bool
    basis: Tensor | None = None
    """float64 (d, width); None: z is x."""
    offset: Tensor | None = None
    """float64 (d,); None: 0."""

    @property
    def width(self) -> int:
        """In how many dimensions the inputs are looked for."""
        return self.d if self.basis is None else self.basis.shape[1]

    @property
    def unknowns(self) -> int:
        """Numbers that are unknown of each input."""
        return self.width - self.on_sphere

    def inputs(self, z: Tensor) -> Tensor:
        """x (n, d) of coordinates (n, width)."""
        x = z if self.basis is None else z @ self.basis.T
        return x if self.offset is None else x + self.offset


@dataclasses.dataclass(frozen=True, eq=False)
class Inside:
    """Features of coordinates in a domain; see `projected.Features`."""

    model: Features
    domain: Domain

    def features(self, inputs: Tensor) -> Tensor:
        """φ(x(z_i)) (n, p)."""
        return self.model.features(self.domain.inputs(inputs))

    def times(self, inputs: Tensor, steps: Tensor) -> Tensor:
        """Dφ(x(z_i))·Dx·step_i (n, p)."""
        basis = self.domain.basis
        return self.model.times(self.domain.inputs(inputs), steps if basis is None else steps @ basis.T)

    def transposed_times(self, inputs: Tensor, values: Tensor) -> Tensor:
        """Its transpose times values_i (n, width)."""
        found, basis = self.model.transposed_times(self.domain.inputs(inputs), values), self.domain.basis
        return found if basis is None else found @ basis


@dataclasses.dataclass(frozen=True, eq=False)
class Span:
    """What the change of the first layer says of the inputs."""

    vectors: Tensor
    """The leading right singular vectors (d or d + 1, n)."""
    gap: float
    """s_n/s_(n+1), of the singular values of the change."""

    @property
    def count(self) -> int:
        """n: how many inputs there are, where none depends on the others."""
        return self.vectors.shape[1]


@dataclasses.dataclass(frozen=True, eq=False)
class FirstLayer:
    """A linear first layer, before and after training."""

    weight: Tensor
    """float64 (units, d)."""
    initial_weight: Tensor
    bias: Tensor | None
    """float64 (units,)."""
    initial_bias: Tensor | None
    rounding: float
    """Of the dtype it was trained in: the distance from 1 to the next number."""
    cuts_off: bool
    """Whether what it makes counts only where it is above 0, as ReLU has it."""
    bias_rate: float = 1.0
    """The learning rate of the biases, over that of the weights."""

    @property
    def bias_learned(self) -> bool:
        """Whether there are biases that were trained: then they tell lengths of inputs."""
        return self.bias is not None and self.initial_bias is not None and not torch.equal(self.bias, self.initial_bias)

    @functools.cached_property
    def change(self) -> Tensor:
        """Of (W, b), (units, d + 1), as if both had been trained at the same rate; of W alone, (units, d), where biases
        were not."""
        change = self.weight - self.initial_weight
        if self.bias is None or self.initial_bias is None or not self.bias_learned:
            return change
        return torch.cat([change, (self.bias - self.initial_bias)[:, None] / self.bias_rate], dim=1)

    @functools.cached_property
    def span(self) -> Span | None:
        """At the widest gap of the singular values, where there is one."""
        change = self.change
        _, values, vectors = torch.linalg.svd(change, full_matrices=False)
        size = float(self.weight.square().mean().sqrt())
        least = self.rounding * size * sum(math.sqrt(side) for side in change.shape)
        ratios = (values[:-1] / values[1:].clamp_min(least))[: len(values) // 2 + 1]  # with more, nothing is gained
        if not len(ratios) or float(ratios.max()) < LEAST_GAP:
            return None
        return Span(vectors[: int(ratios.argmax()) + 1].T, float(ratios.max()))


def domain_of(layer: FirstLayer | None, d: int, homogeneous: bool) -> Domain:
    """Where inputs are looked for. homogeneous: the net does not know their lengths."""
    if layer is None or layer.span is None:
        return Domain(d, homogeneous)
    if not layer.bias_learned:
        return Domain(d, homogeneous, math.sqrt(d / layer.span.count) * layer.span.vectors)
    return _affine(layer.span, layer.change)


def _affine(span: Span, change: Tensor) -> Domain:
    """Of (x, 1) in the span. Every unit's change of W, over that of b, is a mean of inputs, with weights of any sign:
    about where they are, and how far apart."""
    coordinates = change @ span.vectors
    bias = coordinates @ span.vectors[-1]
    weights = coordinates @ span.vectors[:-1].T
    offset = bias @ weights / bias.square().sum()
    _, values, directions = torch.linalg.svd(weights - bias[:, None] * offset, full_matrices=False)
    spread = float(values.norm() / bias.norm()) / math.sqrt(max(span.count - 1, 1))
    return Domain(offset.numel(), False, spread * directions[: span.count - 1].T, offset)
