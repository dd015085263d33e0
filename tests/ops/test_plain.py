"""ops/plain.py against float64, against the literal ADMM, and its mask rule against exact minimisation."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from memrecon_fast.ops import plain

GAMMAS = [1e-6, 0.1, 0.5, 1.0, 2.0, 7.0]
EPSILON = torch.finfo(torch.float32).eps


def random_state(
    rows: int, d: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """s, v, y, mask and x; some pixels of y are negative, as with noise."""
    generator = torch.Generator().manual_seed(7)
    s, v, y, x = (torch.randn(rows, d, generator=generator, dtype=dtype) for _ in range(4))
    mask = torch.rand(rows, d, generator=generator) < 0.5
    return s, v, y, mask, x


def assert_within_ulps(actual: Tensor, expected: Tensor, magnitude: Tensor, ulps: float) -> None:
    """Each entry is within some units in the last place of the largest term that went into it."""
    error = (actual.double() - expected).abs()
    assert torch.all(error <= ulps * EPSILON * magnitude), (error / (EPSILON * magnitude)).max()


@pytest.mark.parametrize("gamma", GAMMAS)
def test_one_call_against_float64(gamma: float) -> None:
    # Every product, sum and rounded constant adds at most half an ulp of the largest term: five of them at most.
    s, v, y, mask, x = random_state(5, 97)
    s64, v64, y64, x64, g = s.double(), v.double(), y.double(), x.double(), gamma / 2
    terms = y64.abs() + (1 + g) * (2 * v64.abs() + s64.abs())
    restart = torch.where(mask, y64 / (1 + g), 0.0)

    stepped = s.clone()
    plain.step(stepped, v, y, mask, gamma)
    assert_within_ulps(stepped, torch.where(mask, (y64 + s64 + (g - 1) * v64) / (1 + g), v64), terms, 2.5)

    started = torch.full_like(s, torch.nan)
    plain.start(started, y, mask, gamma)
    assert_within_ulps(started, restart, terms, 1)

    closed, output, mse = s.clone(), x.clone(), torch.empty(5)
    kept = mask.clone()
    plain.close(closed, v, y, kept, output, mse, gamma, estimate_mask=False)
    w = 2 * v64 - s64
    xi = torch.where(mask, (y64 + g * w) / (1 + g), w)
    assert_within_ulps(output, xi, terms, 2.5)
    assert_within_ulps(closed, restart, terms, 1)
    assert torch.equal(kept, mask)
    torch.testing.assert_close(mse.double(), (xi - x64).square().mean(dim=1), rtol=1e-6, atol=0)

    advanced, mse = x.clone(), torch.empty(5)
    plain.advance(advanced, v, mse)
    assert torch.equal(advanced, v)
    torch.testing.assert_close(mse.double(), (v64 - x64).square().mean(dim=1), rtol=1e-6, atol=0)


def literal_inner_loop(f: Callable[[Tensor], Tensor], y: Tensor, mask: Tensor, gamma: float, iterations: int) -> Tensor:
    """Algorithm 1 as printed: (17), (16), (14)."""
    g = gamma / 2
    v, u = torch.zeros_like(y), torch.zeros_like(y)
    xi = torch.zeros_like(y)
    for _ in range(iterations):
        v_tilde = v - u
        xi = torch.where(mask, (y + g * v_tilde) / (1 + g), v_tilde)
        v = f(xi + u)
        u = u + xi - v
    return xi


def literal_mask(x: Tensor, y: Tensor) -> Tensor:
    """(20), and its mirror image where y is negative."""
    return torch.where(y >= 0, ~((x > 2 * y) | (x < 0)), (2 * y <= x) & (x <= 0))


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("estimate_mask", [False, True])
def test_literal_admm(gamma: float, estimate_mask: bool) -> None:
    # In float64, where the two forms differ by rounding alone: any slip in the algebra would be seen at once.
    d, iterations = 48, 40
    _, _, y, mask, _ = random_state(6, d, torch.float64)
    weights = torch.randn(d, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / (2 * d**0.5)

    def f(images: Tensor) -> Tensor:
        return torch.tanh(images @ weights.T) + 0.1

    estimate = mask.clone()
    previous = torch.zeros_like(y)
    s, x, mse = torch.empty_like(y), torch.zeros_like(y), torch.empty(6, dtype=torch.float64)
    plain.start(s, y, mask, gamma)
    for _ in range(4):
        for _ in range(iterations - 2):  # the output of K iterations is made of K - 1 applications of f
            plain.step(s, f(s), y, mask, gamma)
        plain.close(s, f(s), y, mask, x, mse, gamma, estimate_mask)
        literal = literal_inner_loop(f, y, estimate, gamma, iterations)
        torch.testing.assert_close(x, literal, rtol=0, atol=1e-11)
        torch.testing.assert_close(mse, (literal - previous).square().mean(dim=1), rtol=1e-8, atol=1e-20)
        previous = literal
        if estimate_mask:
            estimate = literal_mask(literal, y)
        assert torch.equal(mask, estimate)


def mask_of(x: Tensor, y: Tensor) -> Tensor:
    """The mask that `close` estimates where the output is x."""
    s, mask, output = x.clone(), torch.zeros_like(x, dtype=torch.bool), torch.empty_like(x)
    plain.close(s, x, y, mask, output, torch.empty(len(x)), 0.5, estimate_mask=True)
    assert torch.equal(output, x) or x.isnan().any()  # erased before: the output is 2v - s = x
    return mask


def minimiser(x: float, y: float) -> bool:
    """The H that minimises (Hx - y)², (19), in exact arithmetic; kept where both are as good."""
    return (Fraction(x) - Fraction(y)) ** 2 <= Fraction(y) ** 2


def test_mask_rule_on_a_grid() -> None:
    values = [k / 4 for k in range(-10, 11)] + [-0.0]  # x = 2y and x = 0, the ties, among them
    x, y = (torch.tensor(side)[None] for side in zip(*itertools.product(values, values), strict=True))
    expected = [minimiser(*pair) for pair in itertools.product(values, values)]
    assert mask_of(x, y)[0].tolist() == expected


def test_mask_rule_next_to_the_ties() -> None:
    generator = torch.Generator().manual_seed(3)
    y = torch.randn(1, 500, generator=generator)
    tie = 2 * y
    for x in (tie, torch.nextafter(tie, torch.tensor(9.0)), torch.nextafter(tie, torch.tensor(-9.0))):
        expected = [minimiser(*pair) for pair in zip(x[0].tolist(), y[0].tolist(), strict=True)]
        assert mask_of(x, y)[0].tolist() == expected


def test_a_nan_counts_as_kept() -> None:
    nan, inf = torch.nan, torch.inf
    x = torch.tensor([[nan, nan, 1.0, -1.0, inf, -inf]])
    y = torch.tensor([[1.0, nan, nan, nan, nan, nan]])
    assert mask_of(x, y).all()


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (1, 1)])
def test_small_shapes(shape: tuple[int, int]) -> None:
    s, v, y, mask, x = random_state(*shape)
    mse = torch.empty(shape[0])
    plain.start(s, y, mask, 0.5)
    plain.step(s, v, y, mask, 0.5)
    plain.close(s, v, y, mask, x, mse, 0.5, estimate_mask=True)
    plain.advance(x, v, mse)
    assert mse.isnan().all() if shape[1] == 0 else mse.isfinite().all()
