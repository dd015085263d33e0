"""Fits the even model: reduced, whole, and repaired where it comes to rest too early."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from memrecon_fast.reconstruction.amplitudes import Linear, linear_part
from memrecon_fast.reconstruction.even import Even
from memrecon_fast.reconstruction.gauss_newton import Damping, improve
from memrecon_fast.reconstruction.linearised import Linearised, linearise
from memrecon_fast.reconstruction.results import FEWEST
from memrecon_fast.reconstruction.rows import Rows
from memrecon_fast.reconstruction.second_moment import leading_directions, span_of_images

LinearisedEven = Linearised[Even]

_REDUCED_STARTS = 2
_REDUCED_STEPS, _STEPS, _EXTRA_STEPS = 20, 30, 12
_STEPS_BETWEEN_REFITS = 4
_NO_MORE_REFITS = 1e-6
"""Of ‖r‖/‖θ‖: below it, steps alone converge faster."""
END = 1e-10
"""Of ‖r‖/‖θ‖: where steps end; what rounding leaves is less."""
_SAME_DIRECTION = 0.97
_SAME_SIDES = 0.8
"""Of the rows: more agree than do not, by so much. Two images at an angle of 18°."""
ATTEMPTS = 8
_GROWTHS, _GROWTH = 2, 1.25
"""So often a number that is not known grows, and by how much each time; by 1.5 less is found."""
_NEARLY = 1e-2
"""Of ‖r‖/‖θ‖: below it, more steps end the search."""
_EXTRA_IMAGES = (2, 3, 4, 0)
"""Of each attempt; 0: from the beginning instead."""


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """Rows of V with what is linear in them."""

    rows: Rows
    linear: Linear

    @classmethod
    def of(cls, rows: Rows) -> Fit:
        """Raises ValueError as `linear_part`."""
        return cls(rows, linear_part(rows))

    @functools.cached_property
    def norm(self) -> float:
        """‖θ‖."""
        return float(self.rows.theta.norm())

    def residual(self, here: LinearisedEven) -> float:
        """‖r‖/‖θ‖."""
        return math.sqrt(here.loss) / self.norm

    def refitted(self, directions: Tensor) -> LinearisedEven:
        """With the best coefficients for these directions."""
        return linearise(self.rows, self.linear.reduce(self.rows, directions).solve())

    def descend(self, here: LinearisedEven, steps: int) -> LinearisedEven:
        """At most so many Gauss–Newton steps."""
        damping = Damping()
        for taken in range(1, steps + 1):
            if damping.is_hopeless or self.residual(here) <= END:
                break
            here = improve(here, functools.partial(linearise, self.rows), damping)
            if taken % _STEPS_BETWEEN_REFITS == 0 and self.residual(here) > _NO_MORE_REFITS:
                here = self.refitted(here.at.directions)
            self.rows.effort.step(len(here.at.signs), self.residual(here))
        return here


def fit_even(fit: Fit, count: int, tolerance: float, generator: Generator, attempts: int = ATTEMPTS) -> LinearisedEven:
    """The even model of so many images.

    tolerance: of ‖r‖/‖θ‖: above it, there are at most so many attempts more.
    """
    here = _from_start(fit, count, generator)
    for attempt in range(attempts):
        if fit.residual(here) <= tolerance:
            break
        extra = min(_EXTRA_IMAGES[attempt % len(_EXTRA_IMAGES)], _room_for(fit.rows) - count)
        there = _repaired(fit, here, extra, generator) if extra > 0 else _from_start(fit, count, generator)
        here = min(here, there, key=lambda one: one.loss)
    return fit.descend(here, _STEPS)


def grow(rows: Callable[[int], Rows], most: int, tolerance: float, generator: Generator) -> tuple[Fit, LinearisedEven]:
    """The even model of a number of images that is not known, at most so many: a few first, then those in addition in
    whose directions most of the residual lies, until θ is explained; there may be superfluous ones.

    rows: those that are used for so many images.
    """
    best: tuple[Fit, LinearisedEven] | None = None
    for _ in range(_GROWTHS):
        count, directions = min(FEWEST, most), None
        while True:
            fit = Fit.of(rows(count))
            if directions is None:
                directions = _start(fit, count, generator)
            else:
                left, more = fit.refitted(directions).residual, min(count - len(directions), fit.rows.width)
                directions = torch.cat([directions, leading_directions(fit.rows, left, more, generator).T])
            here = fit.descend(fit.refitted(directions), _REDUCED_STEPS)
            if tolerance < fit.residual(here) < _NEARLY:
                here = fit.descend(here, _STEPS)
            if best is None or fit.residual(here) < best[0].residual(best[1]):
                best = fit, here
            if fit.residual(here) <= tolerance:
                return fit, here
            if count >= most:
                break
            directions, count = merge(here.at), min(most, max(count + 1, int(_GROWTH * count)))
    assert best is not None
    return best


def without_superfluous(fit: Fit, here: LinearisedEven, tolerance: float, least_gain: float) -> LinearisedEven:
    """The fewest images that explain θ to the tolerance, as these do. least_gain: of ‖r‖²/‖θ‖²: images with less are
    superfluous, too, if θ is explained without them."""
    while len(here.at.signs) > 1 and (fewer := _one_less(fit, here, least_gain)) is not None:
        there = fit.descend(fit.refitted(fewer), _STEPS)
        if fit.residual(there) > tolerance:
            break
        here = there
    return here


def _one_less(fit: Fit, here: LinearisedEven, least_gain: float) -> Tensor | None:
    """Directions (n − 1, d) that may do as well: without an image of too little gain; or with one for two, w₁ and w₂,
    that are on the same side of nearly all rows, for where they are of all, |g·w₁| + |g·w₂| = |g·(w₁ + w₂)|. None
    where there is neither."""
    reduced = fit.linear.reduce(fit.rows, here.at.directions)
    if float(reduced.gains().min()) <= least_gain * fit.norm**2:
        return reduced.without_least(len(reduced.directions) - 1).directions
    sides = here.sides.float()
    agreement = ((sides @ sides.T) / fit.rows.count).fill_diagonal_(0)
    first, second = divmod(int(agreement.abs().argmax()), len(agreement))
    if abs(agreement[first, second]) < _SAME_SIDES:
        return None
    return _merged(here.at, first, second, float(torch.sign(agreement[first, second]))).directions


def _merged(at: Even, first: int, second: int, turned: float) -> Even:
    """With one image for two, the second, or its opposite, added to the first, weighted by their coefficients."""
    image = at.signs[first] * at.images[first] + turned * at.signs[second] * at.images[second]
    if image.norm() < 1e-3 * max(at.images[first].norm(), at.images[second].norm()):
        image = at.images[first]  # they cancel: either direction will do
    others = [index for index in range(len(at.signs)) if index not in (first, second)]
    signs = torch.cat([at.signs.new_ones(1), at.signs[others]])
    return Even(torch.cat([image[None], at.images[others]]), signs, at.offset)


def _room_for(rows: Rows) -> int:
    """With more images than so many, there would be nearly as many unknowns as rows: any θ would be explained."""
    return int(0.8 * rows.count / rows.width) - 1


def _from_start(fit: Fit, count: int, generator: Generator) -> LinearisedEven:
    return fit.descend(fit.refitted(_start(fit, count, generator)), _STEPS)


def _start(fit: Fit, count: int, generator: Generator) -> Tensor:
    """Directions (count, d) to begin with."""
    if count == 1 and not fit.rows.theta.all():  # without noise
        return _only_image(fit.rows)
    if count < fit.rows.width:
        return _reduced_start(fit, count, generator)
    return _random(fit.rows, count, generator)


def _only_image(rows: Rows) -> Tensor:
    """Its direction (1, d): where its feature is not 0, θ is linear in g."""
    on = rows.theta != 0
    found = torch.linalg.lstsq(_rows_at(rows, on), rows.theta[on][:, None]).solution.T
    return nn.functional.normalize(found, dim=1)


def _rows_at(rows: Rows, on: Tensor) -> Tensor:
    return torch.cat([block.scale * block.weights[on[block.where]] for block in rows.blocks()])


def _random(rows: Rows, count: int, generator: Generator) -> Tensor:
    found = torch.randn(count, rows.width, generator=generator, dtype=torch.float64)
    return nn.functional.normalize(found, dim=1)


def _reduced_start(fit: Fit, count: int, generator: Generator) -> Tensor:
    """Directions (count, d), from the same problem in the space that the images span."""
    basis = span_of_images(fit.rows, fit.linear, count, generator)
    inside = Fit.of(fit.rows.of(basis))
    ends = [
        inside.descend(inside.refitted(_random(inside.rows, count, generator)), _REDUCED_STEPS)
        for _ in range(_REDUCED_STARTS)
    ]
    best = min(ends, key=lambda one: one.loss)
    return best.at.directions @ basis.T


def _repaired(fit: Fit, here: LinearisedEven, extra: int, generator: Generator) -> LinearisedEven:
    """With more images for a while, in the directions in which most of the residual lies; then the same number of them
    again, those that the model can least do without."""
    more = leading_directions(fit.rows, here.residual, min(extra, fit.rows.width), generator).T
    count = len(here.at.signs)
    there = fit.descend(fit.refitted(torch.cat([here.at.directions, more])), _EXTRA_STEPS)
    merged = merge(there.at)
    if (missing := count - len(merged)) > 0:
        residual = fit.refitted(merged).residual
        merged = torch.cat([merged, leading_directions(fit.rows, residual, missing, generator).T])
    reduced = fit.linear.reduce(fit.rows, merged).without_least(count)
    return fit.descend(linearise(fit.rows, reduced.solve()), _REDUCED_STEPS)


def merge(at: Even) -> Tensor:
    """Directions (m, d), m ≤ n: those that are nearly the same or opposite are one, weighted by their coefficients."""
    while len(at.signs) > 1:
        cosines = (at.directions @ at.directions.T).fill_diagonal_(0)
        first, second = divmod(int(cosines.abs().argmax()), len(cosines))
        if abs(cosines[first, second]) <= _SAME_DIRECTION:
            break
        at = _merged(at, first, second, float(torch.sign(cosines[first, second])))
    return at.directions
