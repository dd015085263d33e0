"""The best coefficients for images in given directions; and which images the model can do without.

For directions u_i the model is linear in c_i = a_i and b: θ ≈ ½ Σ c_i |g·u_i| + g·b. With b eliminated through the
Cholesky factor of GᵀG, n equations are left: K c = v.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from memrecon_fast.reconstruction.even import Even
from memrecon_fast.reconstruction.rows import Rows

_RIDGE = 1e-12
"""Of the mean diagonal of K: directions that are nearly the same would make it singular."""
_LEAST = 1e-9


@dataclasses.dataclass(frozen=True, eq=False)
class Reduced:
    """The n equations for the coefficients, and what gives b."""

    directions: Tensor
    """u (n, d)."""
    matrix: Tensor
    """K (n, n)."""
    right: Tensor
    """v (n,)."""
    linear: Tensor
    """(GᵀG)⁻¹Gᵀθ (d,)."""
    overlap: Tensor
    """(GᵀG)⁻¹GᵀF (d, n), F = ½|Guᵀ|."""

    def solve(self) -> Even:
        """The best coefficients."""
        coefficients = torch.linalg.solve(self.matrix, self.right)
        signs = torch.where(coefficients < 0, -1.0, 1.0).to(coefficients)
        images = coefficients.abs().clamp_min(_LEAST)[:, None] * self.directions
        return Even(images, signs, self.linear - self.overlap @ coefficients)

    def gains(self) -> Tensor:
        """(n,): by how much ‖r‖² would rise without each image: c_i²/(K⁻¹)_ii."""
        inverse = torch.linalg.inv(self.matrix)
        gains: Tensor = (inverse @ self.right).square() / inverse.diagonal()
        return gains

    def only(self, kept: Tensor) -> Reduced:
        """Of these images alone, int64 (m,)."""
        matrix = self.matrix[kept][:, kept]
        return Reduced(self.directions[kept], matrix, self.right[kept], self.linear, self.overlap[:, kept])

    def without_least(self, count: int) -> Reduced:
        """Of so many images: the one of least gain goes, again and again."""
        found = self
        while len(found.directions) > count:
            every = torch.arange(len(found.directions))
            found = found.only(every[every != found.gains().argmin()])
        return found


@dataclasses.dataclass(frozen=True, eq=False)
class Linear:
    """What is linear in g: found once for all directions."""

    factor: Tensor
    """Cholesky factor of GᵀG (d, d)."""
    of_theta: Tensor
    """Gᵀθ (d,)."""

    def reduce(self, rows: Rows, directions: Tensor) -> Reduced:
        """The equations for the coefficients of images in these directions (n, d): one read of V."""
        rows.passed(2)
        count = len(directions)
        squares = directions.new_zeros(count, count)
        across = directions.new_zeros(count, rows.width)
        right = directions.new_zeros(count)
        for block in rows.blocks():
            even = block.times(directions).abs_().mul_(0.5)
            squares.addmm_(even, even.T)
            block.add_to(across, even)
            right.addmv_(even, rows.theta[block.where])
        onto = across.T
        overlap = torch.cholesky_solve(onto, self.factor)
        linear = torch.cholesky_solve(self.of_theta[:, None], self.factor)[:, 0]
        matrix = squares - onto.T @ overlap
        matrix.diagonal().add_(_RIDGE * matrix.diagonal().mean())
        return Reduced(directions, matrix, right - onto.T @ linear, linear, overlap)


def linear_part(rows: Rows) -> Linear:
    """Raises ValueError where the rows of V do not span the space of the inputs."""
    factor, failed = torch.linalg.cholesky_ex(rows.gram())
    if failed:
        raise ValueError(f"the rows of V do not span the {rows.width} dimensions of the inputs")
    return Linear(factor, rows.transposed_times(rows.theta[:, None])[:, 0])
