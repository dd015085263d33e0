"""The even model: what remains of the features when each image's sign is left open.

relu(t) = (|t| + t)/2, and so, with w_i = |a_i| u_i and s_i = sign a_i, of rows g and images in the directions u_i,

    θ_k = ½ Σ_i s_i |g_k·w_i| + g_k·b,        b = ½ Σ_i a_i u_i.

With b left free, no image's sign matters: the local minima that wrong signs make are gone, for d more unknowns.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from memrecon_fast.reconstruction.linearised import between
from memrecon_fast.reconstruction.passes import Kinked


@dataclasses.dataclass(frozen=True, eq=False)
class Even:
    """Where the solver is: n images of d numbers, without their signs."""

    images: Tensor
    """w, float64 (n, d): in the direction of the image, as long as its coefficient is large."""
    signs: Tensor
    """s, float64 (n,): of the coefficients, ±1."""
    offset: Tensor
    """b, float64 (d,)."""

    @property
    def directions(self) -> Tensor:
        """(n, d), of length 1."""
        return nn.functional.normalize(self.images, dim=1)

    @property
    def model(self) -> Kinked:
        """With b as its last column."""
        columns = torch.cat([self.images.T, self.offset[:, None]], dim=1)
        factors = torch.cat([0.5 * self.signs, self.signs.new_ones(1)])
        return Kinked(columns, factors, rectified=False, last_is_linear=True)

    @property
    def between(self) -> Tensor:
        """E[¼ s_i s_j sgn(g·w_i) sgn(g·w_j) g gᵀ] is (¼ − angle/2π) s_i s_j I, and a part that is left out."""
        return between(self.directions, self.signs, 0.25)

    def moved(self, step: Tensor) -> Even:
        """By a step (d, n + 1)."""
        return Even(self.images + step[:, :-1].T, self.signs, self.offset + step[:, -1])
