"""What a reconstruction is told, and what it answers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from memrecon_fast.common.checks import check_choice, check_integer, check_number
from memrecon_fast.common.text import counted
from memrecon_fast.results import Status

FEWEST = 4
"""So many inputs are tried first where their number is unknown."""
GAUSS_NEWTON, SGD = "gauss-newton", "sgd"
LEARNING_RATE = 20.0
"""Of the paper, for synthetic inputs (2000 for CIFAR-10)."""
_PER_UNKNOWN = 1.2
_DEPENDENT = 1e-5
"""Of singular values, to the largest: what the rounding of training in float32 leaves."""

_AS_MOVED = 2.0
"""Times as much as features moved, the true inputs left of θ at most (nets of two layers; residual nets)."""


def least_features(unknowns: int, outputs: int = 1) -> int:
    """So many features it takes at least, each an equation for every independent output: with fewer, other inputs
    explain θ as well."""
    return math.ceil(_PER_UNKNOWN * unknowns / outputs)


def most_inputs(p: int, unknowns: Callable[[int], int], outputs: int = 1) -> int:
    """For how many inputs p features are enough. unknowns: numbers to be found, of so many inputs."""
    most = 0
    while least_features(unknowns(most + 1), outputs) <= p:
        most += 1
    return most


def independent(theta: Tensor) -> int:
    """How many outputs of θ, (p,) or (outputs, p), are independent: those of a softmax add up to nothing."""
    return 1 if theta.dim() == 1 else int(torch.linalg.matrix_rank(theta.double(), rtol=_DEPENDENT))


@dataclasses.dataclass(frozen=True)
class ReconstructionSettings:
    """How a training set is looked for.

    tolerance: θ counts as explained where ‖r‖/‖θ‖ is not above it, r being what is left of it; otherwise more is tried.
    rows_per_unknown: the solver uses so many entries of θ for each number that is unknown, n·d of them, if there are
        as many; all of θ is compared in the end. More help where θ is noisy.
    method: "gauss-newton"; or "sgd", the paper's gradient descent with momentum 0.9 on all of θ, from one random start:
        a baseline, which takes thousands of times as long, and needs to be told n.
    learning_rate, steps: of "sgd" alone, and how many steps it takes at most.

    Raises TypeError or ValueError for what is out of range, and for what is set and not read by the method.
    """

    tolerance: float = 1e-5
    rows_per_unknown: float = 3.0
    method: str = GAUSS_NEWTON
    learning_rate: float = LEARNING_RATE
    steps: int = 100_000

    def __post_init__(self) -> None:
        check_number("tolerance", self.tolerance, low=0, low_is_allowed=False, high=1)
        check_number("rows_per_unknown", self.rows_per_unknown, low=1)
        check_choice("method", self.method, (GAUSS_NEWTON, SGD))
        check_number("learning_rate", self.learning_rate, low=0, low_is_allowed=False)
        check_integer("steps", self.steps, low=1)
        unread = ("rows_per_unknown",) if self.method == SGD else ("learning_rate", "steps")
        for field in dataclasses.fields(self):
            if field.name in unread and getattr(self, field.name) != field.default:
                raise ValueError(f"{field.name} is not read by the method {self.method!r}")


@dataclasses.dataclass(frozen=True, repr=False)
class Reconstruction:
    """n training inputs of d numbers, by falling `gains`; tensors are float64, on the CPU."""

    inputs: Tensor
    """(n, d): what the model was trained on, where the residual is small. Each of length √d, but where
    `lengths_known`; up to a factor of −1 where `signs_known` is False."""
    coefficients: Tensor
    """(n,): a of θ = Σ a_i φ(x_i); (n, outputs), where θ has several."""
    signs_known: Tensor
    """bool (n,): whether x_i and −x_i can be told apart."""
    gains: Tensor
    """(n,): by which share of ‖θ‖² the residual would rise without this input. Next to nothing: there is no such
    input."""
    residual: float
    """‖r‖/‖θ‖ over all entries of θ: what the inputs do not explain. Where it is not small, they are wrong; but for
    those that are `certain`, and where features `moved`: then even the true inputs leave something, up to about as much
    as that, other inputs may leave as little, and what several seeds find is likely."""
    iterations: int
    """Gauss–Newton steps; of "sgd", its own."""
    passes: float
    """Products of V, or of its transpose, with all inputs at once; of the body of a net forward or backward passes."""
    status: Status
    """CONVERGED where θ is explained to the tolerance, or inputs are `certain`; DIVERGED where "sgd" came to numbers
    that are not finite: these are the inputs before; else MAX_ITERATIONS."""
    certain: bool = False
    """Whether every input was found in what the units of the first layer of a net learned (see `units`), which does not
    rest on the residual. Measured, not proven: of some 200 small nets in float32 and float64 for which it is said none
    was wrong. It rests on plain gradient descent, with or without momentum and batches, and lengths on biases that were
    trained at the rate of the weights, or at `bias_rate` times that: other rates are noticed from about 1.5 times on,
    and refused."""
    moved: float = 0.0
    """Of a net whose body was trained as well: by how much the features of the inputs moved, ‖φ − φ_init‖/‖φ‖."""
    lengths_known: bool = False
    """Whether lengths were found as well. Nets without biases do not know them: |a| would be another instead."""

    def __repr__(self) -> str:
        count, known = len(self.inputs), int(self.signs_known.sum())
        weakest = f", the weakest explains {self.gains[-1]:.1e} of θ" if count else ""
        lengths = f", lengths {'' if self.lengths_known else 'not '}known"
        return (
            f"Reconstruction of {counted(count, 'input')} of {self.inputs.shape[1]} numbers{weakest}\n"
            f"  {self._explained()}; signs known of {known}{lengths}\n"
            f"  {counted(self.iterations, 'iteration')}, {self.passes:.0f} passes over V"
        )

    def _explained(self) -> str:
        left = f"{self.residual:.1e} of it is left"
        if self.certain:
            return f"certain, from what the units of the first layer learned; of θ, {self.residual:.1e} is left"
        if self.status == Status.CONVERGED:
            return f"explains θ: {left}"
        if self.residual <= _AS_MOVED * self.moved:
            return (
                f"explains θ in part: {left}; features moved by {self.moved:.1e} in training, so that the true inputs "
                "leave something, too: believe what several seeds find"
            )
        return f"does NOT explain θ: {left}"
