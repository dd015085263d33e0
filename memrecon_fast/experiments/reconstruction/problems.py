"""Models of random features that were fitted, and what comes back of their inputs."""

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
from memrecon_fast.reconstruction import Comparison, RandomFeatures, Reconstruction, compare
from memrecon_fast.reconstruction.feature_residual import feature_residual
from memrecon_fast.reconstruction.projected import Counted, onto_sphere
from memrecon_fast.reconstruction.projected_fit import descend
from memrecon_fast.reconstruction.results import least_features

BESIDE = 0.3
"""Of √d: how far from the true inputs a start lies that tells whether these can be identified at all."""
_STEPS_FROM_BESIDE = 60
_NOISE_OF_LABELS = 0.1


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
    seconds: float
    """Of processor time."""

    @property
    def whole(self) -> bool:
        """Whether every input came back."""
        return self.compared.recovered == len(self.compared.distance)


def solve(problem: Problem, seed: int) -> Solved | None:
    """By `mf.reconstruct`, which is told n; None where it refuses, as there are fewer parameters than unknowns."""
    n, d = problem.inputs.shape
    if problem.model.p < least_features(problem.model.unknowns(n)):
        return None
    began = time.thread_time()
    found = mf.reconstruct(problem.model, problem.theta, n, seed=seed)
    seconds = time.thread_time() - began
    return Solved(found, compare(problem.inputs, found.inputs, up_to_sign=n > d), seconds)


def from_beside(problem: Problem, seed: int) -> tuple[float, float]:
    """ρ and ‖r‖/‖θ‖ of Gauss–Newton steps that begin beside the true inputs: where other inputs explain θ as well,
    these are not found even so."""
    noise = torch.randn(problem.inputs.shape, generator=_generator(seed, 3), dtype=torch.float64)
    start = onto_sphere(problem.inputs + BESIDE * noise)
    here = descend(Counted(problem.model), problem.theta[None], start, _STEPS_FROM_BESIDE)
    up_to_sign = len(start) > start.shape[1]
    return compare(problem.inputs, here.at.inputs, up_to_sign).error, math.sqrt(here.loss) / float(problem.theta.norm())


def row_of(problems: Sequence[Problem], solved: Sequence[Solved | None]) -> Row:
    """Of several seeds: medians, means and their deviations; None where nothing was reconstructed."""
    done = [one for one in solved if one is not None]
    errors = [one.compared.error for one in done]
    outside = [
        float(feature_residual(problem.model, problem.inputs, one.found.inputs).mean())
        for problem, one in zip(problems, solved, strict=True)
        if one is not None
    ]
    return {
        "training_error": statistics.fmean(map(training_error, problems)),
        "whole": sum(one.whole for one in done) if done else None,
        "recovered": statistics.fmean(one.compared.recovered / len(one.compared.distance) for one in done)
        if done
        else None,
        "rho": statistics.fmean(errors) if done else None,
        "rho_std": statistics.pstdev(errors) if done else None,
        "rho_worst": max(errors) if done else None,
        "explained": sum(one.found.residual <= 1e-5 for one in done) if done else None,
        "outside": statistics.fmean(outside) if done else None,
        "passes": statistics.median(one.found.passes for one in done) if done else None,
        "seconds": statistics.median(one.seconds for one in done) if done else None,
    }


def _generator(seed: int, purpose: int) -> Generator:
    """Of another stream than the weights', which `RandomFeatures.from_seed` draws."""
    return Generator().manual_seed(1_000_003 * purpose + seed)
