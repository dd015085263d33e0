"""Coefficients, second moments, merging and signs, each against what is known."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from memrecon_fast.reconstruction.amplitudes import linear_part
from memrecon_fast.reconstruction.even import Even
from memrecon_fast.reconstruction.even_fit import merge
from memrecon_fast.reconstruction.linearised import linearise
from memrecon_fast.reconstruction.orientation import from_odd_part, from_offset
from memrecon_fast.reconstruction.rows import Rows
from memrecon_fast.reconstruction.second_moment import leading_directions, span_of_images, without_linear
from tests.helpers.features import fitted
from tests.reconstruction.test_even import random


def rows_of(n: int, d: int, p: int) -> tuple[Rows, Tensor, Tensor]:
    """Rows, the true directions, and the true coefficients of them."""
    one = fitted(n, d, p)
    features = one.model.features(one.inputs)
    coefficients = torch.linalg.solve(features @ features.T, one.labels)
    return Rows(one.model.weights, one.theta, scale=d**0.5), one.inputs / d**0.5, coefficients


def test_coefficients_for_the_true_directions_are_the_true_ones() -> None:
    rows, directions, coefficients = rows_of(4, 10, 300)
    at = linear_part(rows).reduce(rows, directions).solve()
    torch.testing.assert_close(at.signs * at.images.norm(dim=1), coefficients, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(at.offset, 0.5 * coefficients @ directions, rtol=1e-8, atol=1e-10)
    assert linearise(rows, at).loss < 1e-20
    signs, known = from_offset(at)
    assert known.all()
    assert (signs == 1).all()
    signs, known = from_offset(Even(-at.images, at.signs, at.offset))
    assert known.all()
    assert (signs == -1).all()


def test_a_gain_is_what_the_residual_rises_by() -> None:
    rows, directions, _ = rows_of(4, 10, 300)
    linear = linear_part(rows)
    others = torch.cat([directions, torch.nn.functional.normalize(random(2, 10, seed=3))])[[0, 1, 4, 3, 5]]  # not all
    reduced = linear.reduce(rows, others)
    loss = linearise(rows, reduced.solve()).loss
    for row, gain in enumerate(reduced.gains().tolist()):
        kept = torch.tensor([i for i in range(5) if i != row])
        without = linearise(rows, linear.reduce(rows, others[kept]).solve()).loss
        assert without - loss == pytest.approx(gain, rel=1e-6, abs=1e-12)
        torch.testing.assert_close(reduced.only(kept).matrix, linear.reduce(rows, others[kept]).matrix)
    assert len(reduced.without_least(2).directions) == 2


def test_rows_that_do_not_span_the_space_are_refused() -> None:
    flat = random(50, 4)
    flat[:, 2] = 0
    with pytest.raises(ValueError, match="do not span the 4 dimensions"):
        linear_part(Rows(flat, random(50, seed=1)))


def test_the_span_of_the_images_is_found_from_second_moments() -> None:
    rows, directions, _ = rows_of(5, 40, 4000)
    basis = span_of_images(rows, linear_part(rows), 5, Generator().manual_seed(0))
    torch.testing.assert_close(basis.T @ basis, torch.eye(5, dtype=torch.float64))
    inside = (directions @ basis).norm(dim=1)
    assert float(inside.min()) > 0.95  # a random space of 5 of 40 dimensions holds 0.35 of a direction


def test_leading_directions_are_eigenvectors_of_the_second_moment() -> None:
    rows, _, _ = rows_of(2, 12, 3000)
    values = without_linear(rows, linear_part(rows))
    dense = rows.scale * rows.weights[:]
    moment = (dense.T * values) @ dense - values.sum() * torch.eye(12, dtype=torch.float64)
    eigenvalues, vectors = torch.linalg.eigh(moment)
    expected = vectors[:, eigenvalues.abs().argsort(descending=True)[:2]]
    found = leading_directions(rows, values, 2, Generator().manual_seed(0))
    torch.testing.assert_close((found.T @ expected).abs(), torch.eye(2, dtype=torch.float64), atol=1e-3, rtol=0)


def test_what_is_nearly_the_same_or_opposite_is_merged() -> None:
    e = torch.eye(4, dtype=torch.float64)
    near = torch.nn.functional.normalize(e[0] + 0.05 * e[1], dim=0)
    at = Even(torch.stack([3 * e[0], -2 * near, e[2], 5 * e[3]]), torch.tensor([1.0, 1, -1, 1]).double(), e[0])
    merged = merge(at)
    assert len(merged) == 3
    torch.testing.assert_close(merged[0], torch.nn.functional.normalize(3 * e[0] + 2 * near, dim=0))
    assert torch.equal(merged[1:], e[2:])
    cancelling = Even(torch.stack([e[0], e[0]]), torch.tensor([1.0, -1]).double(), e[0])
    assert torch.equal(merge(cancelling), e[:1])


def test_signs_from_the_odd_part_of_any_activation() -> None:
    one = fitted(4, 10, 600, activation="relu+tanh")
    rows = Rows(one.model.weights, one.theta, scale=10**0.5)
    flips = torch.tensor([1.0, -1, -1, 1]).double()
    found = from_odd_part(rows, flips[:, None] * one.inputs / 10**0.5, "relu+tanh")
    assert torch.equal(found, flips)
