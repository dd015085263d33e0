"""reconstruct(): the training inputs of a model of random features, from its parameters alone.

rows of V and θ → even model (`even_fit`) → signs (`orientation`) → for other σ than ReLU all of it
(`projected_fit`) → compared with all of θ
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from memrecon_fast.common.checks import check_integer, check_seed
from memrecon_fast.common.seeding import keyed_bits
from memrecon_fast.common.text import counted
from memrecon_fast.reconstruction import even_fit, orientation, projected_fit
from memrecon_fast.reconstruction.effort import Effort
from memrecon_fast.reconstruction.even_fit import Fit, fit_even
from memrecon_fast.reconstruction.head import Head
from memrecon_fast.reconstruction.memory import check_memory
from memrecon_fast.reconstruction.of_head import by_units, reconstruct_from_head
from memrecon_fast.reconstruction.projected import Counted, OnSphere, project
from memrecon_fast.reconstruction.projected_fit import fit_projected
from memrecon_fast.reconstruction.random_features import RandomFeatures
from memrecon_fast.reconstruction.results import (
    FEWEST,
    SGD,
    Reconstruction,
    ReconstructionSettings,
    independent,
    least_features,
    most_inputs,
)
from memrecon_fast.reconstruction.rows import Rows
from memrecon_fast.reconstruction.sgd import reconstruct_by_sgd
from memrecon_fast.reconstruction.signed import Signed, descend_signed
from memrecon_fast.reconstruction.weights import first, root_mean_square
from memrecon_fast.results import Status

_STEPS_ON_ALL_ROWS = 10
_MORE_IMAGES = 3
"""Than there are, in the even model of other σ than ReLU, whose odd part it cannot explain."""
_ROWS_OF_OTHERS = 3.0
"""Times as many rows are used for them."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Found:
    """Inputs that some rows were fitted with."""

    inputs: Tensor
    """(n, d), each of length √d."""
    signs_known: Tensor
    """bool (n,)."""
    residual: float
    """‖r‖/‖θ‖ of these rows."""


_Used = Callable[[int], Rows]
"""The rows that are used for so many inputs."""


def reconstruct(
    model: RandomFeatures | Head,
    theta: Tensor,
    images: int | None = None,
    settings: ReconstructionSettings | None = None,
    seed: int = 42,
    watch: Callable[[Effort], None] | None = None,
) -> Reconstruction:
    """The inputs x_i of θ = Σ a_i φ(x_i), each of length √d, from θ and the features φ alone.

    model: the features. theta: float32 or float64 (p,), what the last layer learned; where it did not begin at 0, less
    what it began with; for a `Head` maybe with several outputs, (outputs, p). images: n, how many inputs there are
    (for random features fewer come out where fewer explain θ, as when one was there twice); None: the fewest that
    explain θ. seed: of the starts. watch: told of each step.

    What comes out is to be believed where `residual` is small: there are more equations than unknowns, p > n·d, and
    nothing but the training inputs fulfils them. That takes about p ≥ 2.5·n·d.

    Raises TypeError or ValueError, before work starts, for anything wrong with the arguments, and where p is too small;
    of a net whose first layer was trained, that is told once the inputs were not found in what its units learned.
    """
    settings = settings or ReconstructionSettings()
    check_seed(seed)
    check(model, theta, images, settings)
    scale = 2.0 ** (math.frexp(float(theta.abs().max()))[1] - 1)  # thresholds are for numbers about 1
    generator = Generator().manual_seed(_keyed(seed))
    found = _reconstruct(model, theta.double() / scale, images, settings, generator, Effort(watch))
    return dataclasses.replace(found, coefficients=scale * found.coefficients)


def _reconstruct(
    model: RandomFeatures | Head,
    theta: Tensor,
    images: int | None,
    settings: ReconstructionSettings,
    generator: Generator,
    effort: Effort,
) -> Reconstruction:
    if settings.method == SGD:
        assert images is not None
        return reconstruct_by_sgd(model, theta, images, settings, generator, effort)
    if isinstance(model, Head):
        return reconstruct_from_head(model, theta, images, settings.tolerance, generator, effort)
    rows = Rows(model.weights, theta, 1 / root_mean_square(model.weights), effort)

    per_unknown = settings.rows_per_unknown * (1 if model.activation == "relu" else _ROWS_OF_OTHERS)

    def used(count: int) -> Rows:
        """Rows for so many inputs."""
        return rows.first(min(rows.count, math.ceil(per_unknown * count * rows.width)))

    find = _of_relu if model.activation == "relu" else _of_others
    return _finished(model, rows, find(model, used, images, settings.tolerance, generator), settings)


def _keyed(seed: int) -> int:
    """Another seed: inputs or weights that were drawn with the same one are not the start."""
    return int(keyed_bits("starts of reconstruction", seed, 0).random_raw() >> 1)


def check(model: RandomFeatures | Head, theta: Tensor, images: int | None, settings: ReconstructionSettings) -> None:
    """Raise TypeError or ValueError for what `reconstruct` does not take."""
    if not isinstance(model, (RandomFeatures, Head)):
        raise TypeError(f"model must be RandomFeatures or a Head, not {type(model).__name__}")
    if not isinstance(theta, Tensor) or theta.dtype not in (torch.float32, torch.float64):
        found = theta.dtype if isinstance(theta, Tensor) else type(theta).__name__
        raise TypeError(f"theta must be a tensor of float32 or float64, not {found}")
    if theta.shape != (model.p,) and not (isinstance(model, Head) and theta.dim() == 2 and theta.shape[1] == model.p):
        raise ValueError(f"theta must have an entry for each of the {model.p} features, not {tuple(theta.shape)}")
    if not theta.isfinite().all():
        raise ValueError("theta has entries that are NaN or infinite")
    if not theta.any():
        raise ValueError("theta is 0: nothing was learned")
    if images is not None:
        check_integer("images", images, low=1)
    elif settings.method == SGD:
        raise ValueError("the method 'sgd' must be told how many inputs there are: images=n")
    outputs = independent(theta)
    if isinstance(model, Head):
        _check_number(model, images)
        if by_units(model):
            return
    least = least_features(model.unknowns(images or 1, outputs), outputs)
    if model.p < least:
        inputs = counted(images, "input") if images else "even one input"
        raise ValueError(
            f"to find {inputs} of {model.d} numbers takes at least {least} features: there are {model.p}, and other "
            "inputs would explain theta as well"
        )
    check_memory(model, images or FEWEST, settings)


def _check_number(model: Head, images: int | None) -> None:
    """Where features moved, nothing explains θ, neither with enough inputs nor with too many."""
    tells = model.first is not None and model.first.span is not None
    if images is None and model.initial is not None and not tells:
        raise ValueError(
            "the body was trained as well, so that θ does not tell how many inputs there are, nor does a linear first "
            "layer: there is none, or it was trained by Adam or with weight decay, which leave no trace of single "
            "inputs. Say how many there are (images=n, --images N); it takes about 2.5·n·d features then, and features "
            "that moved explain θ in part only"
        )


def _of_relu(model: RandomFeatures, used: _Used, images: int | None, tolerance: float, generator: Generator) -> _Found:
    if images is None:
        fit, here = even_fit.grow(used, most_inputs(model.p, model.unknowns), tolerance, generator)
    else:
        fit = Fit.of(used(images))
        here = fit_even(fit, images, tolerance, generator)
    if fit.residual(here) <= tolerance:
        here = even_fit.without_superfluous(fit, here, tolerance, least_gain=0.0 if images else tolerance**2)
    signs, known = orientation.from_offset(here.at)
    return _Found(math.sqrt(model.d) * signs[:, None] * here.at.directions, known, fit.residual(here))


def _of_others(
    model: RandomFeatures, used: _Used, images: int | None, tolerance: float, generator: Generator
) -> _Found:
    """Where n is not known, twice as many inputs each time, until θ is explained."""
    most = most_inputs(model.p, model.unknowns)
    count = images or min(FEWEST, most)
    while True:
        rows = used(count)
        norm = float(rows.theta.norm())
        here = fit_even(Fit.of(rows), count + _MORE_IMAGES, tolerance, generator, attempts=0)
        directions = here.at.directions
        signs = orientation.from_odd_part(rows, directions, model.activation)
        start = math.sqrt(model.d) * signs[:, None] * directions
        those = Counted(RandomFeatures(first(rows.weights, rows.count), model.activation), rows.effort, rows.cost)
        there = fit_projected(those, rows.theta[None], start, count, tolerance, generator)
        residual = math.sqrt(there.loss) / norm
        if images or count == most or residual <= tolerance:
            break
        count = min(2 * count, most)
    if images is None and residual <= tolerance:
        there = projected_fit.without_superfluous(those, rows.theta[None], there, tolerance)
        residual = math.sqrt(there.loss) / norm
    known = torch.ones(len(there.coefficients), dtype=torch.bool)
    return _Found(there.at.inputs, known, residual)


def _finished(model: RandomFeatures, rows: Rows, found: _Found, settings: ReconstructionSettings) -> Reconstruction:
    """Compared with all of θ; where that is not explained, as it is noisy, it is fitted to all of it."""
    finish = _relu_on_all_rows if model.activation == "relu" else _others_on_all_rows
    all_rows = finish(model, rows, found, settings.tolerance)
    order = all_rows.gains.argsort(descending=True)
    return Reconstruction(
        inputs=all_rows.inputs[order],
        coefficients=all_rows.coefficients[order],
        signs_known=all_rows.signs_known[order],
        gains=all_rows.gains[order] / float(rows.theta @ rows.theta),
        residual=all_rows.residual,
        iterations=rows.effort.steps,
        passes=rows.effort.passes,
        status=Status.CONVERGED if all_rows.residual <= settings.tolerance else Status.MAX_ITERATIONS,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _OnAllRows(_Found):
    coefficients: Tensor
    gains: Tensor
    """By how much ‖r‖² would rise without each."""


def _relu_on_all_rows(model: RandomFeatures, rows: Rows, found: _Found, tolerance: float) -> _OnAllRows:
    fit = Fit.of(rows)
    here = fit.refitted(torch.nn.functional.normalize(found.inputs, dim=1))
    if fit.residual(here) > tolerance:
        here = fit.descend(here, _STEPS_ON_ALL_ROWS)
    signs, known = orientation.from_offset(here.at)
    images, coefficients = signs[:, None] * here.at.images, here.at.signs
    residual = fit.residual(here)
    if len(signs) <= model.d:  # then b is no unknown any more; were the signs not right, the residual will say so
        there = descend_signed(rows, Signed(images, coefficients), _STEPS_ON_ALL_ROWS, even_fit.END)
        images, residual = there.at.images, math.sqrt(there.loss) / fit.norm
    directions, lengths = torch.nn.functional.normalize(images, dim=1), images.norm(dim=1)
    return _OnAllRows(
        inputs=math.sqrt(model.d) * directions,
        signs_known=known,
        residual=residual,
        coefficients=coefficients * lengths * rows.scale / math.sqrt(model.d),
        gains=fit.linear.reduce(rows, directions).gains(),
    )


def _others_on_all_rows(model: RandomFeatures, rows: Rows, found: _Found, tolerance: float) -> _OnAllRows:
    those = Counted(model, rows.effort, rows.cost)
    norm, here = float(rows.theta.norm()), project(those, rows.theta[None], OnSphere(found.inputs))
    if math.sqrt(here.loss) > tolerance * norm:
        here = projected_fit.descend(those, rows.theta[None], found.inputs, _STEPS_ON_ALL_ROWS)
    residual, gains = math.sqrt(here.loss) / norm, projected_fit.gains(here)
    return _OnAllRows(here.at.inputs, found.signs_known, residual, here.coefficients[:, 0], gains)
