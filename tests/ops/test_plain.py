"""ops/plain.py against float64, against the literal ADMM, its mask rule against exact minimisation, `judge` by rows."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from memrecon_fast.ops import plain
from memrecon_fast.settings import MOST_ITERATIONS, RUNNING, Status

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


def running(rows: int) -> Tensor:
    return torch.full((rows,), RUNNING, dtype=torch.int8)


def coefficients_of(gammas: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """As plain.coefficients, which is for float32."""
    g = gammas.double() / 2
    return torch.stack([g, g - 1, 1 / (1 + g)], dim=1).to(dtype)


def assert_within_ulps(actual: Tensor, expected: Tensor, magnitude: Tensor, ulps: float) -> None:
    """Each entry is within some units in the last place of the largest term that went into it."""
    error = (actual.double() - expected).abs()
    assert torch.all(error <= ulps * EPSILON * magnitude), (error / (EPSILON * magnitude)).max()


def test_coefficients_are_rounded_from_float64() -> None:
    gammas = torch.tensor([*GAMMAS, 1e-12, 1e6, 1 / 3], dtype=torch.float64)
    actual = plain.coefficients(gammas)
    assert actual.dtype == torch.float32
    assert actual.is_contiguous()
    assert torch.equal(actual, coefficients_of(gammas))


GAMMAS_OF_ROWS = [*([gamma] * 6 for gamma in GAMMAS), GAMMAS]
"""The same for all rows, and another for each."""


@pytest.mark.parametrize("gammas", GAMMAS_OF_ROWS)
def test_one_call_against_float64(gammas: list[float]) -> None:
    # Every product, sum and rounded constant adds at most half an ulp of the largest term: five of them at most.
    s, v, y, mask, x = random_state(6, 97)
    gamma = torch.tensor(gammas, dtype=torch.float64)
    s64, v64, y64, x64, g = s.double(), v.double(), y.double(), x.double(), gamma[:, None] / 2
    terms = y64.abs() + (1 + g) * (2 * v64.abs() + s64.abs())
    restart = torch.where(mask, y64 / (1 + g), 0.0)
    coefficients = plain.coefficients(gamma)

    stepped = s.clone()
    plain.step(stepped, v, y, mask, coefficients)
    assert_within_ulps(stepped, torch.where(mask, (y64 + s64 + (g - 1) * v64) / (1 + g), v64), terms, 2.5)

    started = torch.full_like(s, torch.nan)
    plain.start(started, y, mask, coefficients)
    assert_within_ulps(started, restart, terms, 1)

    closed, output, residual, kept = s.clone(), x.clone(), torch.empty(6), mask.clone()
    settled = torch.zeros(6, dtype=torch.bool)
    plain.close(closed, v, y, kept, output, residual, settled, running(6), coefficients, estimate_mask=False)
    w = 2 * v64 - s64
    xi = torch.where(mask, (y64 + g * w) / (1 + g), w)
    assert_within_ulps(output, xi, terms, 2.5)
    assert_within_ulps(closed, restart, terms, 1)
    assert torch.equal(kept, mask)
    assert settled.all()
    torch.testing.assert_close(residual.double(), (xi - x64).square().mean(dim=1), rtol=1e-6, atol=0)

    advanced, residual = x.clone(), torch.empty(6)
    plain.advance(advanced, v, residual, running(6))
    assert torch.equal(advanced, v)
    torch.testing.assert_close(residual.double(), (v64 - x64).square().mean(dim=1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("estimate_mask", [False, True])
def test_rows_that_do_not_run_are_left_as_they_are(estimate_mask: bool) -> None:
    status = torch.tensor([RUNNING, 0, RUNNING, 1, 2, RUNNING], dtype=torch.int8)
    frozen = status != RUNNING
    s, v, y, mask, x = random_state(6, 33)
    x[frozen, ::2] = torch.nan
    v[frozen] = torch.inf
    residual, settled = torch.full((6,), 7.0), torch.arange(6) % 2 == 0
    coefficients = coefficients_of(torch.tensor(GAMMAS))
    written = [s, mask, x, residual, settled]
    before = [tensor.clone() for tensor in written]

    arguments = (s, v, y, mask, x, residual, settled, status, coefficients)
    s_, v_, y_, mask_, x_, residual_, settled_, status_, coefficients_ = (tensor[~frozen] for tensor in arguments)
    plain.close(s_, v_, y_, mask_, x_, residual_, settled_, status_, coefficients_, estimate_mask)
    alone = [s_, mask_, x_, residual_, settled_]
    plain.close(*arguments, estimate_mask)
    for tensor, was, expected in zip(written, before, alone, strict=True):
        assert torch.equal(tensor[frozen].view(torch.uint8), was[frozen].view(torch.uint8))
        assert torch.equal(tensor[~frozen], expected)

    was = x.clone()
    plain.advance(x, v, residual, status)
    assert torch.equal(x[frozen].view(torch.uint8), was[frozen].view(torch.uint8))
    assert torch.equal(x[~frozen], v[~frozen])
    assert torch.all(residual[frozen] == 7)


@pytest.mark.parametrize("pixel", [0, 16, 32])
def test_one_pixel_decides_whether_the_mask_settled(pixel: int) -> None:
    # With g = 1 and 0 < y, the output is (y + w)/2 where kept, w where erased: w = 3y is found erased where it was.
    _, _, y, mask, x = random_state(3, 33)
    y = 1 + y.abs()
    mask[:, pixel] = torch.tensor([True, True, False])
    w = torch.where(mask, y, 3 * y)
    w[1:, pixel] = torch.stack([9 * y[1, pixel], y[2, pixel]])  # from kept to erased, and the other way
    settled = torch.tensor([False, True, True])
    coefficients = coefficients_of(torch.full((3,), 2.0))
    plain.close(w.clone(), w, y, mask, x, torch.empty(3), settled, running(3), coefficients, estimate_mask=True)
    assert settled.tolist() == [True, False, False]


def literal_inner_loop(
    f: Callable[[Tensor], Tensor], y: Tensor, mask: Tensor, gamma: Tensor, iterations: int
) -> Tensor:
    """Algorithm 1 as printed: (17), (16), (14)."""
    g = gamma[:, None] / 2
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


@pytest.mark.parametrize("gammas", GAMMAS_OF_ROWS)
@pytest.mark.parametrize("estimate_mask", [False, True])
def test_literal_admm(gammas: list[float], estimate_mask: bool) -> None:
    # In float64, where the two forms differ by rounding alone: any slip in the algebra would be seen at once.
    d, iterations = 48, 40
    _, _, y, mask, _ = random_state(6, d, torch.float64)
    weights = torch.randn(d, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / (2 * d**0.5)

    def f(images: Tensor) -> Tensor:
        return torch.tanh(images @ weights.T) + 0.1

    estimate = mask.clone()
    previous = torch.zeros_like(y)
    s, x, residual = torch.empty_like(y), torch.zeros_like(y), torch.empty(6, dtype=torch.float64)
    settled = torch.zeros(6, dtype=torch.bool)
    gamma = torch.tensor(gammas, dtype=torch.float64)
    coefficients = coefficients_of(gamma, torch.float64)
    plain.start(s, y, mask, coefficients)
    for _ in range(4):
        for _ in range(iterations - 2):  # the output of K iterations is made of K - 1 applications of f
            plain.step(s, f(s), y, mask, coefficients)
        plain.close(s, f(s), y, mask, x, residual, settled, running(6), coefficients, estimate_mask)
        literal = literal_inner_loop(f, y, estimate, gamma, iterations)
        torch.testing.assert_close(x, literal, rtol=0, atol=1e-11)
        torch.testing.assert_close(residual, (literal - previous).square().mean(dim=1), rtol=1e-8, atol=1e-20)
        previous = literal
        before = estimate
        if estimate_mask:
            estimate = literal_mask(literal, y)
        assert torch.equal(settled, (estimate == before).all(dim=1))
        assert torch.equal(mask, estimate)


def mask_of(x: Tensor, y: Tensor) -> Tensor:
    """The mask that `close` estimates where the output is x."""
    s, mask, output = x.clone(), torch.zeros_like(x, dtype=torch.bool), torch.empty_like(x)
    rows = len(x)
    residual, settled, coefficients = torch.empty(rows), torch.empty(rows, dtype=torch.bool), torch.rand(rows, 3)
    plain.close(s, x, y, mask, output, residual, settled, running(rows), coefficients, estimate_mask=True)
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
    rows = shape[0]
    residual, settled, coefficients = torch.empty(rows), torch.zeros(rows, dtype=torch.bool), torch.rand(rows, 3)
    plain.start(s, y, mask, coefficients)
    plain.step(s, v, y, mask, coefficients)
    plain.close(s, v, y, mask, x, residual, settled, running(rows), coefficients, estimate_mask=True)
    assert shape[1] > 0 or settled.all()  # nothing changed
    plain.advance(x, v, residual, running(rows))
    assert residual.isnan().all() if shape[1] == 0 else residual.isfinite().all()


@dataclasses.dataclass
class Counters:
    """What `judge` keeps of one image."""

    residual: float
    settled: bool
    iterations: int
    blocks: int
    below: int
    status: int


def count_one(row: Counters, tolerance: float, patience: int, limit: int, first_comparison: int) -> Counters:
    """The rule of `judge` for one image, where no mask settles."""
    if row.status != RUNNING:
        return row
    iterations = row.iterations + 1
    residual = row.residual if iterations >= first_comparison else math.nan
    below = row.below + 1 if residual < tolerance else 0
    if not math.isfinite(row.residual):
        status = int(Status.DIVERGED)
    elif below >= patience:
        status = int(Status.CONVERGED)
    elif iterations >= limit:
        status = int(Status.MAX_ITERATIONS)
    else:
        status = RUNNING
    return Counters(residual, row.settled, iterations, row.blocks + 1, below, status)


def judge_one(row: Counters, tolerance: float, patience: int, limit: int, first_comparison: int) -> Counters:
    """The same, where an image whose mask has settled is counted on with its estimates to come, all alike."""
    done = count_one(row, tolerance, patience, limit, first_comparison)
    while row.settled and tolerance > 0 and done.status == RUNNING:
        done = count_one(dataclasses.replace(done, residual=0.0), tolerance, patience, limit, first_comparison)
    return dataclasses.replace(done, blocks=row.blocks + (row.status == RUNNING))


def judge_rows(rows: list[Counters], *rule: float) -> list[Counters]:
    """`plain.judge` of the rows."""
    dtypes = [torch.float32, torch.bool, torch.int32, torch.int32, torch.int32, torch.int8]
    columns = zip(*map(dataclasses.astuple, rows), strict=True)
    buffers = [torch.tensor(column, dtype=dtype) for column, dtype in zip(columns, dtypes, strict=True)]
    plain.judge(*buffers, *rule)  # type: ignore[arg-type]
    return [Counters(*values) for values in zip(*(buffer.tolist() for buffer in buffers), strict=True)]


def as_float32(value: float) -> float:
    return torch.tensor(value, dtype=torch.float32).item()


def assert_judged(actual: list[Counters], expected: list[Counters]) -> None:
    for one, other in zip(actual, expected, strict=True):
        assert repr(one) == repr(other)  # so that NaN is equal to NaN


RESIDUALS = [0.0, 1e-12, 0.25, 0.5, 1.0, 3e38, math.inf, math.nan]
TOLERANCES = [0.0, 1e-50, 1e-45, 0.5, 1e30]  # in float32 1e-50 is 0, below which nothing is


@pytest.mark.parametrize("first_comparison", [1, 2])
@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_judge_by_rows(tolerance: float, patience: int, first_comparison: int) -> None:
    for limit in (1, 2, 3, 4, 9):
        rows = [
            Counters(as_float32(residual), settled, iterations, 5, min(below, iterations), status)
            for residual, settled, iterations, below, status in itertools.product(
                RESIDUALS, (False, True), range(limit), range(patience), (RUNNING, *map(int, Status))
            )
        ]
        rule = (as_float32(tolerance), patience, limit, first_comparison)
        expected = [judge_one(row, *rule) for row in rows]
        assert_judged(judge_rows(rows, tolerance, *rule[1:]), expected)


def test_judge_with_random_residuals_until_the_end() -> None:
    generator = torch.Generator().manual_seed(11)
    for patience, limit, first_comparison in itertools.product((1, 2, 3), (1, 5, 12), (1, 2)):
        rule = (0.5, patience, limit, first_comparison)
        rows = [Counters(0.0, False, 0, 0, 0, RUNNING) for _ in range(50)]
        for _ in range(limit):
            residuals = torch.rand(50, generator=generator).tolist()
            settled = (torch.rand(50, generator=generator) < 0.1).tolist()
            for row, residual, mask_settled in zip(rows, residuals, settled, strict=True):
                if row.status == RUNNING:
                    row.residual, row.settled = residual, mask_settled
            expected = [judge_one(row, *rule) for row in rows]
            rows = judge_rows(rows, *rule)
            assert_judged(rows, expected)
        assert all(row.status != RUNNING for row in rows)


def test_judge_at_the_most_iterations() -> None:
    most = MOST_ITERATIONS
    rows = [
        Counters(0.25, True, 0, 0, 0, RUNNING),
        Counters(1.0, True, most - 3, most - 3, 0, RUNNING),
        Counters(1.0, False, most - 1, most - 1, 0, RUNNING),
        Counters(0.25, True, most - 1, most - 1, most - 1, RUNNING),
        Counters(0.25, True, most, most, most, int(Status.CONVERGED)),
    ]
    assert_judged(
        judge_rows(rows, 0.5, most, most, 1),
        [
            Counters(0.0, True, most, 1, most, int(Status.CONVERGED)),
            Counters(0.0, True, most, most - 2, 2, int(Status.MAX_ITERATIONS)),
            Counters(1.0, False, most, most, 0, int(Status.MAX_ITERATIONS)),
            Counters(0.25, True, most, most, most, int(Status.CONVERGED)),
            rows[4],
        ],
    )


@pytest.mark.parametrize("first_comparison", [1, 2])
@pytest.mark.parametrize("patience", [1, 2, 3])
def test_the_shortcut_is_counting_on(patience: int, first_comparison: int) -> None:
    for limit, tolerance in itertools.product((1, 2, 3, 4, 9), (1e-45, 0.5)):
        rule = (tolerance, patience, limit, first_comparison)
        rows = [
            Counters(as_float32(residual), True, iterations, 0, min(below, iterations), RUNNING)
            for residual, iterations, below in itertools.product(RESIDUALS, range(limit), range(patience))
        ]
        at_once = judge_rows(rows, *rule)
        assert all(row.status != RUNNING for row in at_once)
        counted = judge_rows([dataclasses.replace(row, settled=False) for row in rows], *rule)
        while any(row.status == RUNNING for row in counted):
            for row in counted:
                if row.status == RUNNING:
                    row.residual = 0.0
            counted = judge_rows(counted, *rule)
        assert_judged([dataclasses.replace(row, settled=True, blocks=1) for row in counted], at_once)
