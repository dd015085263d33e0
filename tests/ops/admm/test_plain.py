"""plain.py against float64, against the literal ADMM, its mask rule against exact minimisation, `stop` by rows."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

from memrecon_fast.ops.admm import AdmmState, plain
from memrecon_fast.ops.state import State
from memrecon_fast.results import RUNNING, Status
from memrecon_fast.settings import MAX_ITERATIONS
from tests.helpers.against_plain import Buffers, clone, state_of

GAMMAS = [1e-6, 0.1, 0.5, 1.0, 2.0, 7.0]
EPSILON = torch.finfo(torch.float32).eps


def random_images(rows: int, d: int, dtype: torch.dtype = torch.float32) -> Buffers:
    """s, v, y, x and the mask; some pixels of y are negative, as with noise."""
    generator = torch.Generator().manual_seed(7)
    images = {name: torch.randn(rows, d, generator=generator, dtype=dtype) for name in ("s", "v", "y", "x")}
    return images | {"mask": torch.rand(rows, d, generator=generator) < 0.5}


def running(buffers: Buffers) -> AdmmState:
    """A state of copies of these, all rows running."""
    rows = len(buffers["y"])
    return state_of(AdmmState, {"status": torch.full((rows,), RUNNING, dtype=torch.int8), **clone(buffers)})


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
    images = random_images(6, 97)
    mask, v = images["mask"], images["v"]
    gamma = torch.tensor(gammas, dtype=torch.float64)
    s64, v64, y64, x64, g = *(images[name].double() for name in "svyx"), gamma[:, None] / 2
    terms = y64.abs() + (1 + g) * (2 * v64.abs() + s64.abs())
    restart = torch.where(mask, y64 / (1 + g), 0.0)
    buffers = images | {"coefficients": plain.coefficients(gamma), "residual": torch.full((6,), torch.nan)}

    stepped = running(buffers)
    plain.step(stepped, v)
    assert_within_ulps(stepped.s, torch.where(mask, (y64 + s64 + (g - 1) * v64) / (1 + g), v64), terms, 2.5)

    started = running(buffers | {"s": torch.full((6, 97), torch.nan)})
    plain.start(started)
    assert_within_ulps(started.s, restart, terms, 1)

    flags = {"recurs": torch.full((6,), True), "renew": torch.full((6,), True)}
    closed = running(buffers | {"anchor": ~mask} | flags)
    plain.close(closed, v, estimate_mask=False)
    w = 2 * v64 - s64
    xi = torch.where(mask, (y64 + g * w) / (1 + g), w)
    assert_within_ulps(closed.x, xi, terms, 2.5)
    assert_within_ulps(closed.s, restart, terms, 1)
    assert torch.equal(closed.mask, mask)
    assert torch.equal(closed.anchor, ~mask)
    assert closed.settled.all()
    assert not closed.recurs.any()
    torch.testing.assert_close(closed.residual.double(), (xi - x64).square().mean(dim=1), rtol=1e-6, atol=0)

    advanced, out = running(buffers), torch.full((6,), torch.nan)
    plain.advance(advanced, v)
    assert torch.equal(advanced.x, v)
    torch.testing.assert_close(advanced.residual.double(), (v64 - x64).square().mean(dim=1), rtol=1e-6, atol=0)
    plain.mean_squares(images["x"], v, out)
    assert torch.equal(out, advanced.residual)


@pytest.mark.parametrize("estimate_mask", [False, True])
def test_rows_that_do_not_run_are_left_as_they_are(estimate_mask: bool) -> None:
    status = torch.tensor([RUNNING, 0, RUNNING, 1, 2, RUNNING], dtype=torch.int8)
    frozen = status != RUNNING
    buffers = random_images(6, 33) | {"status": status}
    buffers["x"][frozen, ::2] = torch.nan
    buffers["v"][frozen] = torch.inf
    buffers |= {"residual": torch.full((6,), 7.0), "settled": torch.arange(6) % 2 == 0}
    buffers |= {"recurs": torch.arange(6) % 4 == 3, "anchor": buffers["mask"].roll(1), "renew": torch.arange(6) < 4}
    buffers["coefficients"] = coefficients_of(torch.tensor(GAMMAS))

    together, alone = running(buffers), running({name: tensor[~frozen] for name, tensor in buffers.items()})
    plain.close(together, buffers["v"], estimate_mask=estimate_mask)
    plain.close(alone, buffers["v"][~frozen], estimate_mask=estimate_mask)
    expected = alone.tensors()
    for name, tensor in together.tensors().items():
        was = buffers.get(name, torch.zeros_like(tensor))
        assert torch.equal(tensor[frozen].view(torch.uint8), was[frozen].view(torch.uint8)), name
        assert torch.equal(tensor[~frozen], expected[name]), name

    advanced = running(buffers)
    plain.advance(advanced, buffers["v"])
    assert torch.equal(advanced.x[frozen].view(torch.uint8), buffers["x"][frozen].view(torch.uint8))
    assert torch.equal(advanced.x[~frozen], buffers["v"][~frozen])
    assert torch.all(advanced.residual[frozen] == 7)


@pytest.mark.parametrize("pixel", [0, 16, 32])
def test_one_pixel_decides_whether_the_mask_settled_or_recurs(pixel: int) -> None:
    # With g = 1 and 0 < y, the output is (y + w)/2 where kept, w where erased: w = 3y is found erased where it was. The
    # anchor is the new mask but for one pixel in the last row; once it is renewed, it is the mask before.
    images = random_images(3, 33)
    mask, y = images["mask"], 1 + images["y"].abs()
    mask[:, pixel] = torch.tensor([True, True, False])
    w = torch.where(mask, y, 3 * y)
    w[1:, pixel] = torch.stack([9 * y[1, pixel], y[2, pixel]])  # from kept to erased, and the other way
    expected = mask.clone()
    expected[1:, pixel] ^= True
    anchor = expected.clone()
    anchor[2, pixel] ^= True
    buffers = {"s": w, "y": y, "mask": mask, "anchor": anchor, "coefficients": coefficients_of(torch.full((3,), 2.0))}
    buffers |= {"settled": torch.tensor([False, True, True]), "recurs": torch.tensor([False, False, True])}
    for renew in itertools.product((False, True), repeat=3):
        state = running(buffers | {"renew": torch.tensor(renew)})
        plain.close(state, w, estimate_mask=True)
        assert torch.equal(state.mask, expected)
        assert torch.equal(state.anchor, torch.where(torch.tensor(renew)[:, None], mask, anchor))
        assert state.settled.tolist() == [True, False, False]
        assert state.recurs.tolist() == [True, not renew[1], False]


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
def test_literal_admm(gammas: list[float], estimate_mask: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # In float64, where the two forms differ by rounding alone: any slip in the algebra would be seen at once.
    d, iterations = 48, 40
    images = random_images(6, d, torch.float64)
    y, mask = images["y"], images["mask"]
    weights = torch.randn(d, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / (2 * d**0.5)

    def f(images: Tensor) -> Tensor:
        return torch.tanh(images @ weights.T) + 0.1

    gamma = torch.tensor(gammas, dtype=torch.float64)
    buffers: Buffers = {"s": torch.empty_like(y), "y": y, "x": torch.zeros_like(y), "mask": mask.clone()}
    buffers |= {"residual": torch.empty(6, dtype=torch.float64), "anchor": mask.clone()}
    buffers |= {"coefficients": coefficients_of(gamma, torch.float64)}
    monkeypatch.setattr(State, "__post_init__", lambda state: None)  # which would refuse float64, as `check` would
    monkeypatch.setattr(State, "check", lambda *_: None)
    state = running(buffers)
    plain.start(state)
    estimate, previous = mask.clone(), torch.zeros_like(y)
    anchored = estimate
    for outer in range(4):
        for _ in range(iterations - 2):  # the output of K iterations is made of K - 1 applications of f
            plain.step(state, f(state.s))
        renew = (torch.arange(6) + outer) % 3 == 0
        state.renew.copy_(renew)
        plain.close(state, f(state.s), estimate_mask=estimate_mask)
        literal = literal_inner_loop(f, y, estimate, gamma, iterations)
        torch.testing.assert_close(state.x, literal, rtol=0, atol=1e-11)
        torch.testing.assert_close(state.residual, (literal - previous).square().mean(dim=1), rtol=1e-8, atol=1e-20)
        previous = literal
        before = estimate
        if estimate_mask:
            estimate = literal_mask(literal, y)
            anchored = torch.where(renew[:, None], before, anchored)
        assert torch.equal(state.settled, (estimate == before).all(dim=1))
        assert torch.equal(state.recurs, (estimate == anchored).all(dim=1) & estimate_mask)
        assert torch.equal(state.mask, estimate)
        assert torch.equal(state.anchor, anchored)


def mask_of(x: Tensor, y: Tensor) -> Tensor:
    """The mask that `close` estimates where the output is x."""
    state = running({"s": x, "y": y, "coefficients": torch.rand(len(x), 3)})
    plain.close(state, x.clone(), estimate_mask=True)
    assert torch.equal(state.x, x) or x.isnan().any()  # erased before: the output is 2v - s = x
    return state.mask


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
    images = random_images(*shape)
    rows, v = shape[0], images["v"]
    buffers = images | {"coefficients": torch.rand(rows, 3), "anchor": images["mask"]}
    state = running(buffers)
    plain.start(state)
    plain.step(state, v)
    plain.close(state, v, estimate_mask=True)
    assert shape[1] > 0 or (state.settled.all() and state.recurs.all())  # nothing changed
    for advanced in (state, running(buffers)):
        x = advanced.x.clone()
        plain.advance(advanced, v)
        out = torch.zeros(rows)
        plain.mean_squares(x, v, out)
        for residual in (advanced.residual, out):
            assert residual.isnan().all() if shape[1] == 0 else residual.isfinite().all()


@dataclasses.dataclass
class Counters:
    """What `stop` has of one image."""

    residual: float = 0.0
    settled: bool = False
    recurs: bool = False
    renew: bool = False
    iterations: int = 0
    blocks: int = 0
    below: int = 0
    anchored: int = 0
    period: int = 0
    status: int = RUNNING


def count_one(row: Counters, tolerance: float, patience: int, limit: int, first_comparison: int) -> Counters:
    """The rule of `stop` for one image, where no mask settles or recurs."""
    if row.status != RUNNING:
        return row
    count = row.iterations + 1
    residual = row.residual if count >= first_comparison else math.nan
    below = row.below + 1 if residual < tolerance else 0
    if not math.isfinite(row.residual):
        status = int(Status.DIVERGED)
    elif below >= patience:
        status = int(Status.CONVERGED)
    elif count >= limit:
        status = int(Status.MAX_ITERATIONS)
    else:
        status = RUNNING
    renew = count.bit_count() == 1
    return dataclasses.replace(
        row,
        residual=residual,
        renew=renew,
        iterations=count,
        blocks=row.blocks + 1,
        below=below,
        anchored=count if renew else row.anchored,
        status=status,
    )


def stop_one(row: Counters, tolerance: float, patience: int, limit: int, first_comparison: int) -> Counters:
    """The same, where an image whose mask has settled is counted on with its estimates to come, all alike, and one
    whose mask recurs by whole periods.
    """
    if row.status != RUNNING:
        return row
    first = done = count_one(row, tolerance, patience, limit, first_comparison)
    while row.settled and tolerance > 0 and done.status == RUNNING:
        done = count_one(dataclasses.replace(done, residual=0.0), tolerance, patience, limit, first_comparison)
    length = max(first.iterations - row.anchored, 1)
    came_back = row.recurs and row.anchored > 0
    if came_back and length == row.period and done.below < length:
        while done.status == RUNNING and done.iterations + length <= limit:
            status = int(Status.MAX_ITERATIONS) if done.iterations + length == limit else RUNNING
            done = dataclasses.replace(done, iterations=done.iterations + length, status=status)
    return dataclasses.replace(
        done,
        renew=first.renew,
        blocks=first.blocks,
        anchored=first.iterations if came_back else first.anchored,
        period=length if came_back else row.period,
    )


def stop_rows(rows: list[Counters], *rule: Any) -> list[Counters]:
    """`plain.stop` of the rows."""
    state = AdmmState.allocate(len(rows), 1, torch.device("cpu"))
    names = [field.name for field in dataclasses.fields(Counters)]
    for name in names:
        buffer = getattr(state, name)
        buffer.copy_(torch.tensor([getattr(row, name) for row in rows], dtype=buffer.dtype))
    tolerance, patience, limit, first_comparison = rule
    plain.stop(state, tolerance=tolerance, patience=patience, limit=limit, first_comparison=first_comparison)
    return [Counters(*values) for values in zip(*(getattr(state, name).tolist() for name in names), strict=True)]


def as_float32(value: float) -> float:
    return torch.tensor(value, dtype=torch.float32).item()


def assert_stopped(actual: list[Counters], expected: list[Counters]) -> None:
    for one, other in zip(actual, expected, strict=True):
        assert repr(one) == repr(other)  # so that NaN is equal to NaN


RESIDUALS = [0.0, 1e-12, 0.25, 0.5, 1.0, 3e38, math.inf, math.nan]
TOLERANCES = [0.0, 1e-50, 1e-45, 0.5, 1e30]  # in float32 1e-50 is 0, below which nothing is


@pytest.mark.parametrize("first_comparison", [1, 2])
@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_stop_by_rows(tolerance: float, patience: int, first_comparison: int) -> None:
    choose = random.Random(1)
    for limit in (1, 2, 3, 4, 9):
        rows = [
            Counters(
                as_float32(residual),
                settled,
                recurs,
                choose.random() < 0.5,
                iterations,
                5,
                min(below, iterations),
                choose.randint(0, iterations),
                choose.randint(0, limit),
                status,
            )
            for residual, settled, recurs, iterations, below, status in itertools.product(
                RESIDUALS, (False, True), (False, True), range(limit), range(patience), (RUNNING, *map(int, Status))
            )
        ]
        rule = (as_float32(tolerance), patience, limit, first_comparison)
        expected = [stop_one(row, *rule) for row in rows]
        assert_stopped(stop_rows(rows, tolerance, *rule[1:]), expected)


@pytest.mark.parametrize("patience", [1, 3, 8])
@pytest.mark.parametrize("limit", [1, 7, 60, 1000])
def test_stop_where_masks_recur(limit: int, patience: int) -> None:
    choose = random.Random(limit + patience)
    rows = []
    for _ in range(2000):
        iterations = choose.choice([choose.randrange(limit), limit - 1, 0])
        anchored = choose.choice([0, iterations, 1 << iterations.bit_length() >> 1, choose.randint(0, iterations)])
        length = iterations + 1 - anchored
        below = min(choose.choice([0, length - 2, length - 1, length]), patience - 1, iterations)
        period = choose.choice([length - 1, length, length, length, length + 1, 2 * length, 0])
        recurs, settled, renew = choose.random() < 0.8, choose.random() < 0.2, choose.random() < 0.5
        residual = choose.choice([0.25, 0.25, 1.0, 1.0, 1.0, math.inf, math.nan])
        vectors = (iterations, iterations, max(below, 0), anchored, period)
        rows.append(Counters(residual, settled, recurs, renew, *vectors))
    for tolerance, first_comparison, most in itertools.product((0.0, 0.5), (1, 2), (limit, limit // 2 + 1)):
        rule = (tolerance, patience, most, first_comparison)
        expected = [stop_one(row, *rule) for row in rows]
        assert_stopped(stop_rows(rows, *rule), expected)


def test_stop_with_random_residuals_until_the_end() -> None:
    choose = random.Random(11)
    for patience, limit, first_comparison in itertools.product((1, 2, 3), (1, 5, 12, 40), (1, 2)):
        rule = (0.5, patience, limit, first_comparison)
        rows = [Counters() for _ in range(50)]
        for _ in range(limit):
            for row in rows:
                if row.status == RUNNING:
                    row.residual = as_float32(choose.random() + (patience < 3) * 0.3)
                    row.settled, row.recurs = choose.random() < 0.1, choose.random() < 0.3
            expected = [stop_one(row, *rule) for row in rows]
            rows = stop_rows(rows, *rule)
            assert_stopped(rows, expected)
        assert all(row.status != RUNNING for row in rows)


def test_stop_at_the_most_iterations() -> None:
    most, power = MAX_ITERATIONS, 1 << MAX_ITERATIONS.bit_length() >> 1
    converged, max_iterations = int(Status.CONVERGED), int(Status.MAX_ITERATIONS)
    anchor_at: Any = {"iterations": 10, "blocks": 10, "anchored": 8, "period": 3}
    rows = [
        Counters(0.25, settled=True),
        Counters(1.0, settled=True, iterations=most - 3, blocks=most - 3),
        Counters(1.0, iterations=most - 1, blocks=most - 1),
        Counters(0.25, settled=True, iterations=most - 1, blocks=most - 1, below=most - 1),
        Counters(0.25, settled=True, iterations=most, blocks=most, below=most, status=converged),
        Counters(1.0, recurs=True, **anchor_at),
        Counters(1.0, recurs=True, iterations=most - 3, anchored=power, period=most - 2 - power),
        Counters(1.0, recurs=True, iterations=most - 3, anchored=most - 3, period=1),
    ]
    left = (most - 11) % 3
    assert_stopped(
        stop_rows(rows, 0.5, most, most, 1),
        [
            Counters(0.0, True, False, True, most, 1, most, 1, 0, converged),
            Counters(0.0, True, False, False, most, most - 2, 2, 0, 0, max_iterations),
            Counters(1.0, False, False, False, most, most, 0, 0, 0, max_iterations),
            Counters(0.25, True, False, False, most, most, most, 0, 0, converged),
            rows[4],
            Counters(1.0, False, True, False, most - left, 11, 0, 11, 3, RUNNING if left else max_iterations),
            Counters(1.0, False, True, False, most - 2, 1, 0, most - 2, most - 2 - power, RUNNING),
            Counters(1.0, False, True, False, most, 1, 0, most - 2, 1, max_iterations),
        ],
    )


@pytest.mark.parametrize("first_comparison", [1, 2])
@pytest.mark.parametrize("patience", [1, 2, 3])
def test_the_shortcut_is_counting_on(patience: int, first_comparison: int) -> None:
    for limit, tolerance in itertools.product((1, 2, 3, 4, 9), (1e-45, 0.5)):
        rule = (tolerance, patience, limit, first_comparison)
        rows = [
            Counters(as_float32(residual), settled=True, iterations=iterations, below=min(below, iterations))
            for residual, iterations, below in itertools.product(RESIDUALS, range(limit), range(patience))
        ]
        at_once = stop_rows(rows, *rule)
        assert all(row.status != RUNNING for row in at_once)
        counted = stop_rows([dataclasses.replace(row, settled=False) for row in rows], *rule)
        while any(row.status == RUNNING for row in counted):
            for row in counted:
                if row.status == RUNNING:
                    row.residual = 0.0
            counted = stop_rows(counted, *rule)
        for row, other in zip(counted, at_once, strict=True):
            row.settled, row.blocks, row.renew, row.anchored = True, 1, other.renew, other.anchored
        assert_stopped(counted, at_once)


class Cycle:
    """The masks of an image, by numbers: those before the period, then those of the period over and over; and the MSE
    between the estimates from any two masks, 0 between those from the same.
    """

    def __init__(self, before: int, period: int, choose: random.Random) -> None:
        self.before, self.period = before, period
        often = choose.choice([0.0, 0.5, 0.8, 1.0])  # below a tolerance of 0.5
        masks = range(before + period)
        self._residuals = {
            (one, other): 0.0 if one == other else (choose.random() < often) * -0.5 + choose.randrange(512, 1024) / 1024
            for one, other in itertools.product([-1, *masks], masks)
        }
        if choose.random() < 0.05:
            different = [(one, other) for one, other in self._residuals if one != other]
            self._residuals[choose.choice(different)] = choose.choice([math.inf, math.nan])

    def mask(self, estimates: int) -> int:
        """The mask after so many estimates, found one by one; -1 before the first mask."""
        return estimates if estimates < self.before else self.before + (estimates - self.before) % self.period

    def following(self, mask: int) -> int:
        return mask + 1 if mask + 1 < self.before + self.period else self.before

    def residual(self, previous: int, mask: int) -> float:
        return self._residuals[previous, mask]

    def counted(self, *rule: Any) -> tuple[Counters, int]:
        """What is counted in the end without any shortcut, and the mask then."""
        row = Counters()
        previous, mask = -1, 0
        while row.status == RUNNING:
            row = count_one(dataclasses.replace(row, residual=self.residual(previous, mask)), *rule)
            previous, mask = mask, self.following(mask)
        return row, mask


def stopped(cycles: list[Cycle], *rule: Any) -> list[tuple[Counters, int]]:
    """What `stop` counts in the end, and the mask then; the estimates are found as `close` finds them."""
    rows = [Counters() for _ in cycles]
    previous, masks, anchors = [-1] * len(rows), [0] * len(rows), [-1] * len(rows)
    while any(row.status == RUNNING for row in rows):
        for i, (row, cycle) in enumerate(zip(rows, cycles, strict=True)):
            if row.status != RUNNING:
                continue
            if row.renew:
                anchors[i] = masks[i]
            row.residual = cycle.residual(previous[i], masks[i])
            previous[i], masks[i] = masks[i], cycle.following(masks[i])
            row.settled, row.recurs = masks[i] == previous[i], masks[i] == anchors[i]
        rows = stop_rows(rows, *rule)
    return list(zip(rows, masks, strict=True))


def assert_counted(cycles: list[Cycle], *rule: Any) -> list[Counters]:
    """That `stop` ends as without any shortcut; returns where it ended."""
    ends = stopped(cycles, *rule)
    for cycle, (row, mask) in zip(cycles, ends, strict=True):
        expected, expected_mask = cycle.counted(*rule)
        assert (row.iterations, row.below, row.status, mask) == (
            expected.iterations,
            expected.below,
            expected.status,
            expected_mask,
        )
        assert repr(row.residual) == repr(expected.residual)
        assert row.blocks <= expected.blocks
    return [row for row, _ in ends]


@pytest.mark.parametrize("tolerance", [0.0, 0.5])
@pytest.mark.parametrize("first_comparison", [1, 2])
@pytest.mark.parametrize("patience", [1, 2, 3, 4, 20])
def test_skipping_periods_is_counting_on(patience: int, first_comparison: int, tolerance: float) -> None:
    # 600 cycles: each of the 70 pairs of a beginning and a period comes some eight times.
    choose = random.Random(100 * patience + 10 * first_comparison + int(tolerance > 0))
    for limit in range(1, 61):
        cycles = [Cycle(choose.randrange(10), choose.randint(1, 7), choose) for _ in range(10)]
        assert_counted(cycles, tolerance, patience, limit, first_comparison)


@pytest.mark.parametrize("patience", [1, 2, 3, 4])
def test_few_estimates_are_computed_where_masks_recur(patience: int) -> None:
    # The anchor recurs once it was made by the first power of two that is no less than the period and what comes before
    # it; then a second time, after the anchor was made anew if the next power of two came first. Less than a period is
    # left to be computed at the end.
    choose = random.Random(patience)
    for tolerance in (0.0, 0.5):
        cycles = [Cycle(before, period, choose) for before in range(10) for period in range(1, 8)]
        for cycle, row in zip(cycles, assert_counted(cycles, tolerance, patience, 2000, 2), strict=True):
            power = 1 << (max(cycle.before, cycle.period) - 1).bit_length()
            if row.status == int(Status.MAX_ITERATIONS):
                second = power + (2 * cycle.period if 2 * cycle.period <= power else power + cycle.period)
                assert row.blocks <= second + cycle.period - 1, (cycle.before, cycle.period)


@pytest.mark.parametrize("reduce", [torch.sum, torch.mean])
def test_a_row_alone_is_summed_as_among_others(reduce: Any) -> None:
    values = torch.randn(3, 70001, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    together = plain.over_pixels(reduce, values)
    alone = torch.cat([plain.over_pixels(reduce, values[i : i + 1]) for i in range(3)])
    in_rings = plain.over_pixels(reduce, values[:1, None])
    torch.set_num_threads(threads)
    assert torch.equal(alone, together)
    assert torch.equal(in_rings, together[:1, None])
    assert plain.over_pixels(reduce, torch.zeros(3, 0)).shape == (3,)
