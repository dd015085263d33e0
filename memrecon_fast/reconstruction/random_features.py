"""Random features: a fixed first layer with an activation, and a linear layer that was fitted.  Iurada et al.

φ(x) = σ(V x),   V of p rows with independent entries N(0, 1/d),   ‖x‖ = √d,
θ = the least solution of φ(x_i)·θ = y_i for n inputs, which lies in the span of the features: θ = Σ_i a_i φ(x_i).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from memrecon_fast.common.checks import check_choice, check_integer, check_seed
from memrecon_fast.common.memory import available_memory, in_units
from memrecon_fast.reconstruction.weights import Drawn, Weights, blocks, is_finite

TORCH, PHILOX = "torch", "philox"
"""What draws V from a seed."""


@dataclasses.dataclass(frozen=True)
class Activation:
    """σ and its derivative, elementwise. Its even part is |t|/2 for all that there are: see `even`."""

    name: str
    value: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]
    odd: Callable[[Tensor], Tensor]
    """σ(t) − |t|/2."""


def _relu_derivative(t: Tensor) -> Tensor:
    return (t > 0).to(t.dtype)


ACTIVATIONS = {
    one.name: one
    for one in (
        Activation("relu", torch.relu, _relu_derivative, lambda t: 0.5 * t),
        Activation(
            "relu+tanh",
            lambda t: torch.relu(t) + torch.tanh(t),
            lambda t: _relu_derivative(t) + 1 - torch.tanh(t).square(),
            lambda t: 0.5 * t + torch.tanh(t),
        ),
    )
}


@dataclasses.dataclass(frozen=True, eq=False)
class RandomFeatures:
    """A model of p random features of inputs in d dimensions.

    weights: V, float32 or float64 (p, d), finite; or `Drawn`, which is made again wherever it is needed, in memory that
    does not grow with it. activation: a name of `ACTIVATIONS`.

    Raises TypeError or ValueError for anything else.
    """

    weights: Weights
    activation: str = "relu"

    def __post_init__(self) -> None:
        stored = not isinstance(self.weights, Drawn)
        if stored and getattr(self.weights, "dtype", None) not in (torch.float32, torch.float64):
            found = self.weights.dtype if isinstance(self.weights, Tensor) else type(self.weights).__name__
            raise TypeError(f"weights must be a tensor of float32 or float64, not {found}")
        if len(self.weights.shape) != 2 or not math.prod(self.weights.shape):
            raise ValueError(f"weights must be a matrix (p, d), not of shape {tuple(self.weights.shape)}")
        if isinstance(self.weights, Tensor) and self.weights.device.type != "cpu":
            raise ValueError(f"weights must be on the CPU, not on {self.weights.device}: weights.cpu()")
        if not is_finite(self.weights):
            raise ValueError("weights have entries that are NaN or infinite")
        check_choice("activation", self.activation, tuple(ACTIVATIONS))

    @classmethod
    def from_seed(
        cls, p: int, d: int, seed: int = 42, activation: str = "relu", generator: str = TORCH
    ) -> RandomFeatures:
        """With weights `torch.randn(p, d, dtype=torch.float64) / √d` after `torch.manual_seed(seed)`; or, with the
        generator "philox", `Drawn(p, d, seed)`: never stored, which takes more time and hardly any memory."""
        check_integer("p", p, low=1)
        check_integer("d", d, low=1)
        check_seed(seed)
        check_choice("generator", generator, (TORCH, PHILOX))
        if generator == PHILOX:
            return cls(Drawn(p, d, seed), activation)
        free = available_memory()
        if free is not None and 2 * 8 * p * d > free:
            raise ValueError(
                f"{p} features of {d} numbers take {in_units(2 * 8 * p * d)} of memory; {in_units(free)} are free"
            )
        random = torch.Generator().manual_seed(seed)
        weights = torch.randn(p, d, generator=random, dtype=torch.float64)
        return cls(weights / math.sqrt(d), activation)

    @property
    def p(self) -> int:
        """How many features there are."""
        return self.weights.shape[0]

    @property
    def d(self) -> int:
        """Of how many numbers an input is made."""
        return self.weights.shape[1]

    def unknowns(self, inputs: int, outputs: int = 1) -> int:
        """Numbers to be found with so many inputs: themselves, and the offset of the even model (see `even`)."""
        return (inputs + 1) * self.d

    def features(self, inputs: Tensor) -> Tensor:
        """φ(x) of each of the inputs (n, d): (n, p). Like all that follows float64, whatever V is stored as."""
        inputs, value = inputs.double(), ACTIVATIONS[self.activation].value
        found = inputs.new_empty(len(inputs), self.p)
        for where, block in blocks(self.weights):
            found[:, where] = value(inputs @ block.T)
        return found

    def times(self, inputs: Tensor, steps: Tensor) -> Tensor:
        """Dφ(x_i)·step_i (n, p): steps (n, d)."""
        inputs, steps, derivative = inputs.double(), steps.double(), ACTIVATIONS[self.activation].derivative
        found = inputs.new_empty(len(inputs), self.p)
        for where, block in blocks(self.weights):
            torch.mul(derivative(inputs @ block.T), steps @ block.T, out=found[:, where])
        return found

    def transposed_times(self, inputs: Tensor, values: Tensor) -> Tensor:
        """Dφ(x_i)ᵀ·values_i (n, d): values (n, p)."""
        inputs, values, derivative = inputs.double(), values.double(), ACTIVATIONS[self.activation].derivative
        found = torch.zeros_like(inputs)
        for where, block in blocks(self.weights):
            found.addmm_(derivative(inputs @ block.T) * values[:, where], block)
        return found

    def fit(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """θ (p,), float64: the least solution of φ(x_i)·θ = y_i for inputs (n, d) and labels (n,).

        Raises ValueError where n is more than p, or the features of the inputs depend on each other.
        """
        if inputs.dim() != 2 or inputs.shape[1] != self.d or labels.shape != inputs.shape[:1]:
            raise ValueError(
                f"inputs must be (n, {self.d}) and labels (n,), not {tuple(inputs.shape)} and {tuple(labels.shape)}"
            )
        features = self.features(inputs)
        factor, failed = torch.linalg.cholesky_ex(features @ features.T)
        if failed or factor.diagonal().min() < 1e-7 * factor.diagonal().max():
            raise ValueError(
                "the features of the inputs depend on each other: there are more inputs than features, or duplicates"
            )
        return torch.cholesky_solve(labels.double()[:, None], factor)[:, 0] @ features
