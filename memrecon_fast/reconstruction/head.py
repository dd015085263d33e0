"""Nets with a linear head: the features are what its body makes of an input.

    f(x) = head · φ(x) + …,   θ = head − head_init = Σ_i a_i φ(x_i)ᵀ

as gradient descent on the head alone makes it, for any loss. Where the body is trained as well, features moved while θ
was learned, and θ is in the span of none of them: most nearly in that of the means of those before and after.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from memrecon_fast.reconstruction.domain import Domain, FirstLayer


@dataclasses.dataclass(frozen=True, eq=False)
class Head:
    """The features of the body of a net.

    body: (n, *input_shape) → (n, p), differentiable, each row a function of its own input alone; computed in float64,
    which an nn.Module must be in (`body.double()`), and in eval mode. input_shape: of one input; d is its product.
    domain: where inputs can lie; None: at a length of √d. initial: the body before it was trained, where it was: the
    features are the mean of those before and after. first: its first layer, where that is linear and was trained.
    (`from_states` finds all of these.)

    Raises TypeError or ValueError for a body that does not fit.
    """

    body: Callable[[Tensor], Tensor]
    input_shape: tuple[int, ...]
    domain: Domain | None = None
    initial: Callable[[Tensor], Tensor] | None = None
    first: FirstLayer | None = None

    def __post_init__(self) -> None:
        if isinstance(self.body, nn.Module):
            if any(module.training for module in self.body.modules()):
                raise ValueError(
                    "the body is in training mode, in which an image's features may depend on others: body.eval()"
                )
            others = {parameter.dtype for parameter in self.body.parameters()} - {torch.float64}
            if others:
                raise TypeError(f"the body must be in float64, not {', '.join(map(str, others))}: body.double()")
        found = self.features(torch.zeros(2, self.d, dtype=torch.float64))
        if found.dim() != 2 or len(found) != 2 or found.dtype != torch.float64:
            raise ValueError(
                f"the body must make float64 features (n, p) of inputs (n, {str(self.input_shape)[1:-1]}), not "
                f"{found.dtype} {tuple(found.shape)} of two of them"
            )

    @property
    def d(self) -> int:
        """Of how many numbers an input is made."""
        return math.prod(self.input_shape)

    @functools.cached_property
    def p(self) -> int:
        """How many features there are."""
        return self.features(torch.zeros(1, self.d, dtype=torch.float64)).shape[1]

    @property
    def where(self) -> Domain:
        """Where inputs can lie."""
        return self.domain or Domain(self.d, on_sphere=True)

    def unknowns(self, inputs: int, outputs: int = 1) -> int:
        """Numbers to be found with so many inputs: where each is in the domain, and its coefficients."""
        return inputs * (self.where.unknowns + outputs)

    def features(self, inputs: Tensor) -> Tensor:
        """φ(x) of each of the inputs (n, d): (n, p)."""
        with torch.no_grad():
            return self._body(inputs)

    def times(self, inputs: Tensor, steps: Tensor) -> Tensor:
        """Dφ(x_i)·step_i (n, p): steps (n, d). By the backward pass of a backward pass."""
        inputs = inputs.detach().requires_grad_()
        features = self._body(inputs)
        weights = torch.zeros_like(features, requires_grad=True)
        (pulled,) = torch.autograd.grad(features, inputs, weights, create_graph=True)
        (found,) = torch.autograd.grad(pulled, weights, steps)
        return found

    def transposed_times(self, inputs: Tensor, values: Tensor) -> Tensor:
        """Dφ(x_i)ᵀ·values_i (n, d): values (n, p)."""
        inputs = inputs.detach().requires_grad_()
        (found,) = torch.autograd.grad(self._body(inputs), inputs, values)
        return found

    def moved(self, inputs: Tensor) -> float:
        """By how much the features of the inputs (n, d) moved in training: ‖φ − φ_init‖/‖φ‖."""
        if self.initial is None:
            return 0.0
        shaped = inputs.reshape(len(inputs), *self.input_shape)
        with torch.no_grad():
            after, before = self.body(shaped), self.initial(shaped)
        return float((after - before).norm() / after.norm())

    def _body(self, inputs: Tensor) -> Tensor:
        shaped = inputs.reshape(len(inputs), *self.input_shape)
        return self.body(shaped) if self.initial is None else 0.5 * (self.body(shaped) + self.initial(shaped))
