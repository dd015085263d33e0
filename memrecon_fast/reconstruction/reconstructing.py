"""reconstruct(): the training inputs of a model of random features, from its parameters alone.

rows of V and θ → even model (`even_fit`) → signs from its offset → all of θ compared
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Generator, Tensor

from memrecon_fast.common.checks import check_integer, check_seed
from memrecon_fast.common.text import counted
from memrecon_fast.reconstruction.amplitudes import linear_part
from memrecon_fast.reconstruction.even import Even, Linearised, linearise
from memrecon_fast.reconstruction.even_fit import Fit, fit_even, merge
from memrecon_fast.reconstruction.random_features import RandomFeatures
from memrecon_fast.reconstruction.results import Reconstruction, ReconstructionSettings
from memrecon_fast.reconstruction.rows import Rows
from memrecon_fast.results import Status

_STEPS_END = 1e-10
"""Of ‖r‖/‖θ‖: where Gauss–Newton steps end; what rounding leaves is less."""
_STEPS_ON_ALL_ROWS = 10
_SIGN_MARGIN = 0.1
ATTEMPTS_AT_A_NUMBER = 1
"""Where the number of images is unknown: with more of them, a fit finds its way more easily."""
_FEWEST, _LEAST_PER_UNKNOWN = 4, 1.2
"""So many images are tried first where their number is unknown; and below so many rows for each number that is
unknown, other images explain θ as well."""


def reconstruct(
    model: RandomFeatures,
    theta: Tensor,
    images: int | None = None,
    settings: ReconstructionSettings | None = None,
    seed: int = 42,
) -> Reconstruction:
    """The inputs x_i of θ = Σ a_i φ(x_i), each of length √d, from θ and the features φ alone.

    model: the features, with activation "relu". theta: float32 or float64 (p,), what the last layer learned; where it
    did not begin at 0, less what it began with. images: n, how many inputs there are; None: the fewest that explain θ.
    seed: of the starts.

    What comes out is to be believed where `residual` is small: there are more equations than unknowns, p > n·d, and
    nothing but the training inputs fulfils them. That takes about p ≥ 2·n·d.

    Raises TypeError or ValueError, before work starts, for anything wrong with the arguments, and where p is too small.
    """
    settings = settings or ReconstructionSettings()
    check_seed(seed)
    _check(model, theta, images)
    rows = Rows(model.weights, theta.double(), scale=1 / float(model.weights.square().mean().sqrt()))
    generator = Generator().manual_seed(seed)
    if images is None:
        found, steps = _of_any_number(rows, settings, generator)
    else:
        some = _some(rows, images, settings)
        found, steps = fit_even(some, images, _STEPS_END, settings.tolerance, generator)
        rows.passes += some.passes * some.count / rows.count
    found, more = _on_all_rows(rows, found, settings)
    return _finished(model, rows, found.at, steps + more, settings)


def _check(model: RandomFeatures, theta: Tensor, images: int | None) -> None:
    if not isinstance(model, RandomFeatures):
        raise TypeError(f"model must be RandomFeatures, not {type(model).__name__}")
    if model.activation != "relu":
        raise ValueError(f'the activation must be "relu", not {model.activation!r}')
    if not isinstance(theta, Tensor) or theta.dtype not in (torch.float32, torch.float64):
        found = theta.dtype if isinstance(theta, Tensor) else type(theta).__name__
        raise TypeError(f"theta must be a tensor of float32 or float64, not {found}")
    if theta.shape != (model.p,):
        raise ValueError(f"theta must have an entry for each of the {model.p} features, not {tuple(theta.shape)}")
    if not theta.isfinite().all():
        raise ValueError("theta has entries that are NaN or infinite")
    if not theta.any():
        raise ValueError("theta is 0: nothing was learned")
    least = math.ceil(_LEAST_PER_UNKNOWN * model.d)
    if images is not None:
        check_integer("images", images, low=1)
        least *= images
    if model.p < least:
        inputs = counted(images, "input") if images else "even one input"
        raise ValueError(
            f"to find {inputs} of {model.d} numbers takes at least {least} features, p of about {_LEAST_PER_UNKNOWN} n "
            f"d: there are {model.p}, and other inputs would explain theta as well"
        )


def _some(rows: Rows, images: int, settings: ReconstructionSettings) -> Rows:
    """As many rows as the solver uses for so many images."""
    return rows.first(min(rows.count, math.ceil(settings.rows_per_unknown * images * rows.width)))


def _of_any_number(rows: Rows, settings: ReconstructionSettings, generator: Generator) -> tuple[Linearised, int]:
    """Twice as many images each time, until θ is explained; then without those that it does not need."""
    most = int(rows.count / (_LEAST_PER_UNKNOWN * rows.width))
    count, taken = min(_FEWEST, most), 0
    while True:
        some = _some(rows, count, settings)
        found, steps = fit_even(some, count, _STEPS_END, settings.tolerance, generator, ATTEMPTS_AT_A_NUMBER)
        taken += steps
        fit = Fit(some, linear_part(some))
        explained = fit.residual(found) <= settings.tolerance
        if explained:
            found, steps = _without_superfluous(fit, found, settings.tolerance)
            taken += steps
        rows.passes += some.passes * some.count / rows.count
        if explained or count == most:
            return found, taken
        count = min(2 * count, most)


def _on_all_rows(rows: Rows, found: Linearised, settings: ReconstructionSettings) -> tuple[Linearised, int]:
    """Where θ is noisy, all of it says more than a part."""
    here = linearise(rows, found.at)
    if here.loss <= (settings.tolerance * float(rows.theta.norm())) ** 2 or found.rows.count == rows.count:
        return here, 0
    return Fit.of(rows).descend(here, _STEPS_ON_ALL_ROWS, _STEPS_END)


def _without_superfluous(fit: Fit, found: Linearised, tolerance: float) -> tuple[Linearised, int]:
    """The fewest images that explain θ as well."""
    reduced = fit.linear.reduce(fit.rows, merge(found.at))
    while len(reduced.directions) > 1:
        gains = reduced.gains()
        if float(gains.min()) > (tolerance * fit.norm) ** 2:
            break
        reduced = reduced.without_least(len(gains) - 1)
    there, steps = fit.descend(linearise(fit.rows, reduced.solve()), 30, _STEPS_END)
    return there, steps


def _finished(
    model: RandomFeatures, rows: Rows, at: Even, steps: int, settings: ReconstructionSettings
) -> Reconstruction:
    """With signs, gains and the residual over all of θ."""
    signs, known = signs_of(at)
    fit = Fit(rows, linear_part(rows))
    gains = fit.linear.reduce(rows, at.directions).gains() / fit.norm**2
    order = gains.argsort(descending=True)
    inputs = math.sqrt(model.d) * signs[:, None] * at.directions
    coefficients = at.signs * at.images.norm(dim=1) * rows.scale / math.sqrt(model.d)
    oriented = at if not known.all() else dataclasses.replace(at, offset=0.5 * (at.signs * signs) @ at.images)
    residual = fit.residual(linearise(rows, oriented))
    return Reconstruction(
        inputs=inputs[order],
        coefficients=coefficients[order],
        signs_known=known[order],
        gains=gains[order],
        residual=residual,
        iterations=steps,
        passes=rows.passes,
        status=Status.CONVERGED if residual <= settings.tolerance else Status.MAX_ITERATIONS,
    )


def signs_of(at: Even) -> tuple[Tensor, Tensor]:
    """Of each image ε = ±1, float64 (n,), and whether it is known: from b = ½ Σ s_i ε_i w_i, where n ≤ d."""
    count = len(at.signs)
    if count > at.images.shape[1]:
        return torch.ones(count, dtype=torch.float64), torch.zeros(count, dtype=torch.bool)
    columns = 0.5 * (at.signs[:, None] * at.images).T
    found = torch.linalg.lstsq(columns, at.offset[:, None]).solution[:, 0]
    return torch.where(found < 0, -1.0, 1.0).double(), (found.abs() - 1).abs() < _SIGN_MARGIN
