"""The space that the images span, from second moments of θ; by it the problem is reduced to n dimensions.

Without its part that is linear in g, θ_k is g_kᵀ M g_k − tr M, M = Σ a_i u_i u_iᵀ/√(8π), and what is of higher order.
The best M of rank n, by Gauss–Newton in its tangent space, has the images in its range.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from memrecon_fast.reconstruction import passes
from memrecon_fast.reconstruction.amplitudes import Linear
from memrecon_fast.reconstruction.rows import Rows

_POWERS = 4
_OUTER = 4
_INNER = 8
_TOLERANCE = 1e-4


def span_of_images(rows: Rows, linear: Linear, count: int, generator: Generator) -> Tensor:
    """An orthonormal basis (d, count), count ≤ d."""
    return _fit(rows, without_linear(rows, linear), count, generator)


def without_linear(rows: Rows, linear: Linear) -> Tensor:
    """What is left of θ (p,) after a regression on the rows and a constant."""
    b = torch.cholesky_solve(linear.of_theta[:, None], linear.factor)
    left = rows.theta - rows.times(b)[:, 0]
    return left - left.mean()


def leading_directions(rows: Rows, values: Tensor, count: int, generator: Generator) -> Tensor:
    """Of Σ_k values_k (g_k g_kᵀ − I), the eigenvectors (d, count) of largest modulus, roughly: twice as many are
    iterated."""
    width = min(2 * count, rows.width)
    basis = _power(rows, values, width, _POWERS + 2, generator)
    moment = basis.T @ _moment(rows, values, basis)
    eigenvalues, vectors = torch.linalg.eigh((moment + moment.T) / 2)
    leading: Tensor = basis @ vectors[:, eigenvalues.abs().argsort(descending=True)[:count]]
    return leading


def _moment(rows: Rows, values: Tensor, basis: Tensor) -> Tensor:
    """Σ_k values_k (g_k g_kᵀ − I)·basis: one read of V."""
    rows.passed(2)
    left = basis.T.contiguous()
    found = -values.sum() * left
    for block in rows.blocks():
        block.add_to(found, block.times(left).mul_(values[block.where]))
    return found.T


def _power(rows: Rows, values: Tensor, count: int, steps: int, generator: Generator) -> Tensor:
    basis = torch.randn(rows.width, count, generator=generator, dtype=torch.float64)
    for _ in range(steps):
        basis = _moment(rows, values, torch.linalg.qr(basis).Q)
    orthonormal: Tensor = torch.linalg.qr(basis).Q
    return orthonormal


def _fit(rows: Rows, values: Tensor, count: int, generator: Generator) -> Tensor:
    basis = _power(rows, values, count, _POWERS, generator)
    for _ in range(_OUTER):
        tangent = _tangent(rows, values, basis)
        both, triangle = torch.linalg.qr(torch.cat([basis, tangent], dim=1))
        product = triangle[:, :count] @ triangle[:, count:].T
        eigenvalues, vectors = torch.linalg.eigh(product + product.T)
        basis = both @ vectors[:, eigenvalues.abs().argsort(descending=True)[:count]]
    return basis


def _tangent(rows: Rows, values: Tensor, basis: Tensor) -> Tensor:
    """Z (d, n) such that M = Q Zᵀ + Z Qᵀ, Q the basis, fits the values best: by conjugate gradients from 0.

    Of row k, such an M makes ρ_k = 2 (Q g_k)·(Z g_k) − 2 ⟨Q, Z⟩, and so Σ_k ρ_k ∂ρ_k/∂Z takes one read of V.
    """
    products = rows.times(basis).contiguous()
    across = rows.transposed_times(products)
    one_pass = passes.choose().product_of_slopes

    def product(tangent: Tensor) -> Tensor:
        overlap = 2 * (basis * tangent).sum()
        total = 2 * (across * tangent).sum() - rows.count * overlap
        found: Tensor = 4 * one_pass(rows, products, tangent) - 2 * overlap * across - 2 * total * basis
        return found

    left = 2 * rows.transposed_times(values[:, None] * products) - 2 * values.sum() * basis
    tangent, along = torch.zeros_like(basis), left.clone()
    size = first = float(left.square().sum())
    for _ in range(_INNER):
        image = product(along)
        length = size / float((along * image).sum())
        tangent += length * along
        left -= length * image
        before, size = size, float(left.square().sum())
        if size < _TOLERANCE * first:
            break
        along = left + (size / before) * along
    return tangent
