"""Two-layer autoencoders with tied weights, which are Moreau proximity operators (arXiv 2310.02897, Theorem 1)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from memrecon_fast.autoencoders.architecture import Architecture
from memrecon_fast.autoencoders.layers import check_activation, check_image_shape, make_activation, seeded_generator
from memrecon_fast.common.checks import check_integer

_WIDTH = 256  # of the preset
# W is made of so many times the parameter: with this, Adam's learning rate of 1e-3 is right.
_STEEPNESS = 10.0
# Of what W is made of: with more, the rounding of its Cholesky factor would show in W's singular values. Trainings on
# photographs came to 25 (the largest singular value).
_LARGEST_NORM = 1e4
_FIRST_SLOPE = 0.25
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class Tied(nn.Module):
    """f(x) = Wᵀρ(Wx), (15), with the singular values of W in [0, 1] and ρ' in [0, 1], whatever the parameters are.

    So its Jacobian WᵀDW is symmetric with eigenvalues in [0, 1] at every image: f is a proximity operator, and ADMM
    with it minimises a convex function (Definition 2, Theorem 1 and Corollary 1 of arXiv 2310.02897).

    image_shape: (channels, height, width), d entries. width: m ≥ 1, the rows of W.
    activation: ρ. "softplus"; "leaky_relu" (slope 0.01); or "prelu", one slope for all, which is kept in [0, 1]. The
        theorem asks for a differentiable ρ: the last two are that almost everywhere, and f is still the proximity
        operator of a convex function, as ρ does not fall and is 1-Lipschitz. With Softplus, whose derivative is below
        1, f has a single fixed point, and reconstructs far less well.
    seed: of the initial weights, which depend on nothing else.

    The parameter is a matrix V of any values; with the singular values s of 10 V, those of W are s/√(1 + s²). W is made
    in float64 and rounded once, so that its singular values exceed 1 by no more than that rounding (1e-7). In eval mode
    it is made once, and again when V was changed; on a GPU, what is written by way of `.data` is noticed at the next
    `.eval()` only.

    Maps float32 (B, *image_shape) to the same, contiguous; the input is left as it was. Raises ValueError or TypeError
    for arguments outside these ranges.
    """

    def __init__(
        self, image_shape: Sequence[int], width: int, activation: str = "leaky_relu", *, seed: int = 42
    ) -> None:
        super().__init__()
        self.image_shape = _checked(image_shape, width, activation)
        self.width, self.activation = width, activation
        size = math.prod(self.image_shape)
        values = torch.empty(width, size).normal_(std=max(width, size) ** -0.5, generator=seeded_generator(seed))
        self.unconstrained = nn.Parameter(values)
        """V, (m, d)."""
        self.rho: nn.Module = _SlopeWithin() if activation == "prelu" else make_activation(activation)
        self._kept: _Kept | None = None

    def arguments(self) -> dict[str, Any]:
        """What builds this architecture again: the arguments of the class, for JSON."""
        return {"image_shape": list(self.image_shape), "width": self.width, "activation": self.activation}

    @property
    def weight(self) -> Tensor:
        """W, (m, d), with singular values in [0, 1]; not to be written to."""
        free = self.unconstrained
        differentiated = torch.is_grad_enabled() and free.requires_grad
        if self.training or differentiated or torch.compiler.is_compiling():
            return constrained(free)
        if self._kept is None or not self._kept.is_of(free):
            self._kept = _Kept.make(free)
        return self._kept.weight

    def train(self, mode: bool = True) -> Tied:
        """Into training mode or out of it; W is made anew."""
        self._kept = None
        return super().train(mode)

    def forward(self, images: Tensor) -> Tensor:
        """The reconstructions, (B, *image_shape)."""
        weight = self.weight
        codes: Tensor = self.rho(functional.linear(images.flatten(1), weight))
        return functional.linear(codes, weight.T).view(images.shape)


def constrained(free: Tensor) -> Tensor:
    """W of V, both (m, d): the same singular vectors up to a rotation, singular values s/√(1 + s²) where 10 V has s.

    With LLᵀ = I + VVᵀ, W = L⁻¹V has WWᵀ = I − (LᵀL)⁻¹; of VᵀV where that is smaller. Every W with singular values
    below 1 is one of these, up to a rotation. A smooth map: dividing V by its largest singular value instead
    trains worse (a loss of 1.9e-3 after 300 steps on 20 photographs of 8×8, against 2.8e-4), as all others shrink with
    it. NaN in V makes NaN.
    """
    exact = _STEEPNESS * free.double()
    exact = exact * (_LARGEST_NORM / exact.norm().clamp(min=_LARGEST_NORM))
    wide = exact.shape[0] <= exact.shape[1]
    gram = exact @ exact.T if wide else exact.T @ exact
    # without a check, for which a GPU would be waited for: of what is finite there is always a factor
    factor, _ = torch.linalg.cholesky_ex(gram + torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
    made: Tensor = torch.linalg.solve_triangular(factor if wide else factor.T, exact, upper=not wide, left=wide)
    return made.to(free.dtype).contiguous()


@dataclasses.dataclass(frozen=True)
class _Kept:
    """A W, and the V that it was made of."""

    weight: Tensor
    of: Tensor
    """V: a copy, but on a GPU V itself, so that its memory becomes no other's."""
    version: int
    """How often V had been written to; −1 where torch does not count that."""

    @classmethod
    def make(cls, free: Tensor) -> _Kept:
        """W as an ordinary tensor, also in inference mode: it may be differentiated with later."""
        with torch.inference_mode(False), torch.no_grad():
            of = free.clone() if free.is_cpu else free.detach()
            return cls(constrained(of), of, _version(free))

    def is_of(self, free: Tensor) -> bool:
        """Whether V is what it was. On a CPU its entries are compared, as torch does not count what is written by way
        of `.data` or NumPy. On a GPU, which a comparison would wait for, its address and torch's count are."""
        if free.dtype != self.of.dtype or free.device != self.of.device:
            return False
        if free.is_cpu:
            return np.array_equal(_bits(free), _bits(self.of))  # six times as fast as torch.equal
        return free.data_ptr() == self.of.data_ptr() and 0 <= self.version == _version(free)


def _bits(tensor: Tensor) -> Any:
    return tensor.detach().contiguous().view(_INTEGERS[tensor.element_size()]).numpy()


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


class _SlopeWithin(nn.Module):
    """PReLU with one slope, kept in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.unconstrained = nn.Parameter(torch.tensor([math.log(_FIRST_SLOPE / (1 - _FIRST_SLOPE))]))

    def forward(self, values: Tensor) -> Tensor:
        return functional.prelu(values, self.unconstrained.sigmoid())


def _checked(image_shape: Sequence[int], width: int, activation: str) -> tuple[int, int, int]:
    """The image shape. Raises as `Tied`."""
    shape = check_image_shape(image_shape)
    check_integer("width", width, low=1)
    check_activation(activation)
    return shape


def _shapes(
    image_shape: Sequence[int], width: int, activation: str = "leaky_relu", *, seed: int = 42
) -> Iterator[tuple[int, ...]]:
    """See `Architecture.shapes`."""
    shape = _checked(image_shape, width, activation)
    yield (width, math.prod(shape))
    if activation == "prelu":
        yield (1,)


def _preset(image_shape: Sequence[int], activation: str, width: int | None, seed: int) -> Tied:
    return Tied(image_shape, _WIDTH if width is None else width, activation, seed=seed)


ARCHITECTURE = Architecture(Tied, presets={"tied": _preset}, shapes=_shapes)
