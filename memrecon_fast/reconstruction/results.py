"""What a reconstruction is told, and what it answers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from memrecon_fast.common.checks import check_number
from memrecon_fast.common.text import counted
from memrecon_fast.results import Status

FEWEST = 4
"""So many inputs are tried first where their number is unknown."""
_PER_UNKNOWN = 1.2
_DEPENDENT = 1e-5
"""Of singular values, to the largest: what the rounding of training in float32 leaves."""


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

    Raises TypeError or ValueError for what is out of range.
    """

    tolerance: float = 1e-5
    rows_per_unknown: float = 3.0

    def __post_init__(self) -> None:
        check_number("tolerance", self.tolerance, low=0, low_is_allowed=False, high=1)
        check_number("rows_per_unknown", self.rows_per_unknown, low=1)


@dataclasses.dataclass(frozen=True, repr=False)
class Reconstruction:
    """n training inputs of d numbers, by falling `gains`; tensors are float64, on the CPU."""

    inputs: Tensor
    """(n, d), each of length √d: what the model was trained on, where the residual is small. Up to a factor of −1 where
    `signs_known` is False."""
    coefficients: Tensor
    """(n,): a of θ = Σ a_i φ(x_i); (n, outputs), where θ has several."""
    signs_known: Tensor
    """bool (n,): whether x_i and −x_i can be told apart."""
    gains: Tensor
    """(n,): by which share of ‖θ‖² the residual would rise without this input. Next to nothing: there is no such
    input."""
    residual: float
    """‖r‖/‖θ‖ over all entries of θ: what the inputs do not explain. Where it is not small, they are wrong."""
    iterations: int
    """Gauss–Newton steps."""
    passes: float
    """Products of V, or of its transpose, with all inputs at once; of the body of a net forward or backward passes."""
    status: Status
    """CONVERGED where θ is explained to the tolerance, else MAX_ITERATIONS."""

    def __repr__(self) -> str:
        count, known = len(self.inputs), int(self.signs_known.sum())
        weakest = f", the weakest explains {self.gains[-1]:.1e} of θ" if count else ""
        found = "explains" if self.status == Status.CONVERGED else "does NOT explain"
        return (
            f"Reconstruction of {counted(count, 'input')} of {self.inputs.shape[1]} numbers{weakest}\n"
            f"  {found} θ: {self.residual:.1e} of it is left; signs known of {known}\n"
            f"  {counted(self.iterations, 'iteration')}, {self.passes:.0f} passes over V"
        )
