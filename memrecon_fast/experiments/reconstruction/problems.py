"""Models that were fitted, and what comes back of their inputs."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

import memrecon_fast as mf
from memrecon_fast.experiments.experiment import Row
from memrecon_fast.reconstruction import Comparison, RandomFeatures, Reconstruction, ReconstructionSettings, compare
from memrecon_fast.reconstruction.feature_residual import feature_residual
from memrecon_fast.reconstruction.projected import Counted, onto_sphere
from memrecon_fast.reconstruction.projected_fit import descend
from memrecon_fast.reconstruction.results import least_features
from memrecon_fast.reconstruction.search import Model

BESIDE = 0.3
"""Of √d: how far from the true inputs a start lies that tells whether these can be identified at all."""
_STEPS_FROM_BESIDE = 60
_NOISE_OF_LABELS = 0.1
_OF_SOLVED = ("whole", "recovered", "rho", "rho_std", "rho_worst", "explained", "outside", "passes", "seconds")


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """A model, and what it was fitted to."""

    model: RandomFeatures
    inputs: Tensor
    """float64 (n, d), each of length √d."""
    labels: Tensor
    theta: Tensor
    """(p,), the least solution, of p < n features of the least squares."""


def on_sphere(n: int, d: int, seed: int) -> Tensor:
    """Inputs (n, d) drawn uniformly from the sphere of radius √d."""
    return onto_sphere(torch.randn(n, d, generator=_generator(seed, 1), dtype=torch.float64))


def noisy_linear(inputs: Tensor, seed: int) -> Tensor:
    """Labels (n,) of a linear model with noise, as in the paper's Figure 3."""
    n, d = inputs.shape
    generator = _generator(seed, 2)
    slope = torch.randn(d, generator=generator, dtype=torch.float64) / math.sqrt(d)
    return inputs @ slope + _NOISE_OF_LABELS * torch.randn(n, generator=generator, dtype=torch.float64)


def fit(inputs: Tensor, labels: Tensor, p: int, seed: int, activation: str = "relu") -> Problem:
    """A model of p random features that was fitted to the labels."""
    model = RandomFeatures.from_seed(p, inputs.shape[1], seed, activation)
    features = model.features(inputs)
    theta = torch.linalg.lstsq(features, labels[:, None].double(), driver="gelsd").solution[:, 0]
    return Problem(model, inputs, labels.double(), theta)


def training_error(problem: Problem) -> float:
    """The mean squared error on the labels."""
    return float((problem.model.features(problem.inputs) @ problem.theta - problem.labels).square().mean())


@dataclasses.dataclass(frozen=True, eq=False)
class Solved:
    """What came back, and what it took."""

    found: Reconstruction
    compared: Comparison
    outside: float
    """‖P⊥φ‖/‖φ‖ of the features of the true inputs, P⊥ away from those that were found; their mean."""
    seconds: float
    """Of processor time."""

    @property
    def whole(self) -> bool:
        """Whether every input came back."""
        return self.compared.recovered == len(self.compared.distance)


def solve(problem: Problem, seed: int) -> Solved | None:
    """By `mf.reconstruct`, which is told n; None where it refuses, as there are fewer parameters than unknowns."""
    if problem.model.p < least_features(problem.model.unknowns(len(problem.inputs))):
        return None
    return solved(problem.model, problem.theta, problem.inputs, seed)


def solved(model: Model, theta: Tensor, inputs: Tensor, seed: int) -> Solved:
    """By `mf.reconstruct`, which is told n, and compared with the true inputs (n, d).

    Raises ValueError where it refuses.
    """
    n, d = inputs.shape
    began = time.thread_time()
    found = mf.reconstruct(model, theta, n, seed=seed)
    seconds = time.thread_time() - began
    outside = float(feature_residual(model, inputs, found.inputs).mean())
    return Solved(found, compare(inputs, found.inputs, up_to_sign=n > d), outside, seconds)


def from_beside(problem: Problem, seed: int) -> tuple[float, float]:
    """ρ and ‖r‖/‖θ‖ of Gauss–Newton steps that begin beside the true inputs: where other inputs explain θ as well,
    these are not found even so."""
    noise = torch.randn(problem.inputs.shape, generator=_generator(seed, 3), dtype=torch.float64)
    start = onto_sphere(problem.inputs + BESIDE * noise)
    here = descend(Counted(problem.model), problem.theta[None], start, _STEPS_FROM_BESIDE)
    up_to_sign = len(start) > start.shape[1]
    return compare(problem.inputs, here.at.inputs, up_to_sign).error, math.sqrt(here.loss) / float(problem.theta.norm())


def row_of(training_errors: Sequence[float], solved: Sequence[Solved | None]) -> Row:
    """Of several seeds: medians, means and their deviations, of those that were not refused; None where all were."""
    row: Row = {"training_error": statistics.fmean(training_errors)}
    done = [one for one in solved if one is not None]
    if not done:
        return row | dict.fromkeys(_OF_SOLVED)
    errors = [one.compared.error for one in done]
    of_solved = (
        sum(one.whole for one in done),
        sum(one.compared.recovered / len(one.compared.distance) for one in done) / len(solved),
        statistics.fmean(errors),
        statistics.pstdev(errors),
        max(errors),
        sum(one.found.residual <= ReconstructionSettings().tolerance for one in done),
        statistics.fmean(one.outside for one in done),
        statistics.median(one.found.passes for one in done),
        statistics.median(one.seconds for one in done),
    )
    return row | dict(zip(_OF_SOLVED, of_solved, strict=True))


def reduced(pictures: Tensor, size: int) -> Tensor:
    """Pictures (n, C, H, W) of size × size, averaged over areas."""
    return torch.nn.functional.interpolate(pictures, (size, size), mode="area")


def two_classes(n: int, seed: int) -> Tensor:
    """Labels (n,) of ±1, as many of each as can be, in another order for each seed."""
    order = torch.randperm(n, generator=Generator().manual_seed(4_000_012 + seed))
    return torch.where(order % 2 == 0, 1.0, -1.0)


def _generator(seed: int, purpose: int) -> Generator:
    """Of another stream than the weights', which `RandomFeatures.from_seed` draws."""
    return Generator().manual_seed(1_000_003 * purpose + seed)
