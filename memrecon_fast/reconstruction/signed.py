"""The ReLU model itself, once the signs are known: θ_k = Σ_i s_i relu(g_k·v_i), v_i = |a_i| u_i.

It has no offset of its own, as the even model has: d unknowns fewer, which matters where θ is noisy.
"""

from __future__ import annotations

import dataclasses
import functools
import math

from torch import Tensor, nn

from memrecon_fast.reconstruction.gauss_newton import Damping, improve
from memrecon_fast.reconstruction.linearised import Linearised, between, linearise
from memrecon_fast.reconstruction.passes import Kinked
from memrecon_fast.reconstruction.rows import Rows

_LEAST_PROGRESS = 1e-4
"""Of ‖r‖²: with less in a step, what is left is noise."""


@dataclasses.dataclass(frozen=True, eq=False)
class Signed:
    """Where the solver is."""

    images: Tensor
    """v, float64 (n, d): in the direction of the image, as long as its coefficient is large."""
    signs: Tensor
    """s, float64 (n,): of the coefficients, ±1."""

    @property
    def model(self) -> Kinked:
        """Without a linear column."""
        return Kinked(self.images.T.contiguous(), self.signs, rectified=True, last_is_linear=False)

    @property
    def between(self) -> Tensor:
        """E[s_i s_j 1(g·v_i > 0) 1(g·v_j > 0) g gᵀ] is (½ − angle/2π) s_i s_j I, but for a part."""
        return between(nn.functional.normalize(self.images, dim=1), self.signs, 0.5)

    def moved(self, step: Tensor) -> Signed:
        """By a step (d, n)."""
        return Signed(self.images + step.T, self.signs)


def descend_signed(rows: Rows, at: Signed, steps: int, end: float) -> Linearised[Signed]:
    """At most so many Gauss–Newton steps, until ‖r‖/‖θ‖ is below `end` or hardly falls."""
    here, damping, norm = linearise(rows, at), Damping(), float(rows.theta.norm())
    for _ in range(steps):
        if math.sqrt(here.loss) <= end * norm or damping.is_hopeless:
            break
        before = here.loss
        here = improve(here, functools.partial(linearise, rows), damping)
        rows.effort.step(len(at.signs), math.sqrt(here.loss) / norm)
        if 0 < before - here.loss < _LEAST_PROGRESS * before:
            break
    return here
