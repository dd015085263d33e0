"""What a run has found so far, target by target, and how near it is to the truth where that is known."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memrecon_fast import metrics
from memrecon_fast.reconstruction.compare import RECOVERED, Comparison, compare
from memrecon_fast.reconstruction.kept.store import Solution, Store, read_description
from memrecon_fast.reconstruction.pictures import PIXELS, Scaling
from memrecon_fast.reconstruction.projected import onto_sphere
from memrecon_fast.reconstruction.results import Reconstruction
from memrecon_fast.reconstruction.verdicts import Judged, judge

PICTURES = "pictures"
"""In the file of the truth: float32 (n, C, H, W). Beside it, "feature_residual-0", … of each target."""


@dataclasses.dataclass(frozen=True)
class Rescaled:
    """Inputs that are the true images in another scaling than was said."""

    recovered: int
    """How many of the images come back, but for the mean and the deviation of each channel."""
    scaling: Scaling | None
    """In which as many come back; None where neither standardising nor one (pixel − mean)/std does it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Against:
    """n true images, and what came back of each."""

    comparison: Comparison
    """Signs count where they are known."""
    pictures: Tensor
    """float64 (n, C, H, W), not clipped: what was found for each, in its own brightness; NaN where there is nothing."""
    mse: Tensor
    """float64 (n,): of these, clipped to [0, 1]; NaN where there is nothing."""
    feature_residual: NDArray[np.float64]
    """(n,): the share of the features of the true image that lies outside the span of those of all inputs that were
    found, ‖P⊥ φ(x)‖/‖φ(x)‖; NaN where it is not known yet."""
    rescaled: Rescaled | None
    """Where more come back in another scaling."""


@dataclasses.dataclass(frozen=True, eq=False)
class OfTarget:
    """What is known of one target, all of whose starts may not be done yet."""

    described: Mapping[str, Any]
    solutions: Sequence[Solution]
    """At least one."""
    judged: Judged
    pictures: Tensor | None
    """float64 (m, C, H, W) in [0, 1]: the inputs; None where they are no pictures."""
    against: Against | None


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """All that reports are made of."""

    run: Path
    description: Mapping[str, Any]
    targets: Sequence[OfTarget | None]
    """None where nothing was done yet."""
    truth: Tensor | None
    """float32 (n, C, H, W)."""


def read_results(run: Path) -> Results:
    """Read a run. Raises ValueError where nothing was done, or a file is damaged."""
    description, store = read_description(run), Store(run)
    kept = store.read_truth()
    truth = torch.from_numpy(kept[PICTURES]) if PICTURES in kept else None
    plan = description["plan"]
    targets: list[OfTarget | None] = []
    for index, described in enumerate(description["targets"]):
        read = (store.read(index, seed) for seed in range(plan["seed"], plan["seed"] + plan["starts"]))
        solutions = [one for one in read if one is not None]
        residual = kept.get(f"feature_residual-{index}")
        targets.append(_of_target(described, solutions, truth, residual) if solutions else None)
    if not any(targets):
        raise ValueError(f"nothing was done yet in {run}: there is no solution")
    return Results(run, description, targets, truth)


def true_inputs(truth: Tensor, described: Mapping[str, Any]) -> Tensor:
    """float64 (n, d): the pictures as inputs, of length √d where the model does not know their lengths."""
    inputs = scaling_of(described).inputs_of(truth)
    return inputs if described["lengths_known"] else onto_sphere(inputs)


def scaling_of(described: Mapping[str, Any]) -> Scaling:
    """Of the inputs of a target."""
    scaling = described["scaling"]
    return Scaling(scaling["name"], tuple(scaling["mean"]), tuple(scaling["std"]))


def _of_target(
    described: Mapping[str, Any],
    solutions: Sequence[Solution],
    truth: Tensor | None,
    residual: NDArray[np.float64] | None,
) -> OfTarget:
    judged, scaling = judge([solution.found for solution in solutions]), scaling_of(described)
    shape, pictures = described["image_shape"], None
    if shape is not None:
        pictures = scaling.pictures_of(judged.best.inputs, tuple(shape))
    against = None if truth is None else _against(judged.best, truth, described, residual)
    return OfTarget(described, solutions, judged, pictures, against)


def _against(
    found: Reconstruction, truth: Tensor, described: Mapping[str, Any], residual: NDArray[np.float64] | None
) -> Against:
    inputs = true_inputs(truth, described)
    signed, unsigned = compare(inputs, found.inputs), compare(inputs, found.inputs, up_to_sign=True)
    there = signed.index >= 0
    known = found.signs_known[signed.index.clamp_min(0)] & there
    comparison = Comparison(signed.index, torch.where(known, signed.distance, unsigned.distance), signed.flipped)
    turned = torch.where(~known & signed.flipped, -1.0, 1.0).double()
    matched = turned[:, None] * found.inputs[signed.index.clamp_min(0)]
    matched[~there] = math.nan
    pictures = scaling_of(described).pictures_like(matched, truth)
    mse = torch.full((len(truth),), math.nan, dtype=torch.float64)
    mse[there] = metrics.mse(pictures[there].clamp(0, 1), truth[there].double())
    unknown = np.full(len(truth), np.nan)
    rescaled = _rescaled(truth, found.inputs, comparison.recovered, described["lengths_known"])
    return Against(comparison, pictures, mse, unknown if residual is None else residual, rescaled)


def _rescaled(truth: Tensor, inputs: Tensor, recovered: int, lengths_known: bool) -> Rescaled | None:
    """Whether more of the true pictures come back where every channel of each is taken without its mean and divided by
    its deviation, of which no scaling changes anything; and which scaling it was."""
    pictures, shown = truth.double(), inputs.reshape(-1, *truth.shape[1:])
    compared = compare(_standardised(pictures), _standardised(shown))
    there = (compared.distance <= RECOVERED) & (compared.index >= 0)
    if int(there.sum()) <= recovered:
        return None
    for scaling in (_fitted(pictures[there], shown[compared.index[there]]), Scaling()):
        scaled = scaling.inputs_of(truth)
        if compare(scaled if lengths_known else onto_sphere(scaled), inputs).recovered >= int(there.sum()):
            return Rescaled(int(there.sum()), scaling)
    return Rescaled(int(there.sum()), None)


def _fitted(pictures: Tensor, inputs: Tensor) -> Scaling:
    """Input = (pixel − mean)/std of each channel, as fits pictures (n, C, H, W) best that correlate with the inputs."""
    pixels, values = (one.transpose(0, 1).flatten(1) for one in (pictures, inputs))  # (C, pixels of all)
    centred = values - values.mean(1, keepdim=True)
    std = ((centred * pixels).sum(1) / centred.square().sum(1).clamp_min(1e-300)).clamp_min(1e-12)
    mean = pixels.mean(1) - std * values.mean(1)
    return Scaling(PIXELS, tuple(mean.tolist()), tuple(std.tolist()))


def _standardised(pictures: Tensor) -> Tensor:
    """(n, d): each channel of each with mean 0 and deviation 1, or 0 where it has one value alone."""
    centred = pictures - pictures.mean((2, 3), keepdim=True)
    deviation = centred.square().mean((2, 3), keepdim=True).sqrt()
    return (centred / deviation.clamp_min(1e-12)).flatten(1)
