"""ops/anderson/plain.py against least squares in float64, on linear maps, row by row, and by its rules one by one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from memrecon_fast import reference
from memrecon_fast.ops.admm import plain as admm
from memrecon_fast.ops.anderson import AndersonState, plain
from memrecon_fast.results import RUNNING, Status
from tests.helpers.against_plain_anderson import MEASURE, MIX, STOP, WEIGH, check_beside_the_ring

GAMMA = 0.7
TOLERANCE, PATIENCE, LIMIT = 1e-3, 3, 10


@dataclasses.dataclass(frozen=True, eq=False)
class Ring(AndersonState):
    """Rows on their way; without a mask, the step is f itself."""

    def evaluate(self, f: Callable[[Tensor], Tensor], settle: int = 0) -> None:
        plain.measure(self, f(self.s))
        plain.weigh(self, settle=settle)
        plain.mix(self)

    def row(self, i: int) -> Ring:
        """A copy of one row."""
        return self.take(torch.tensor([i]))

    def copy(self) -> Ring:
        return self.take(torch.arange(self.rows))


def make_ring(rows: int, d: int, memory: int) -> Ring:
    """All that is not set is poisoned: only what was measured may be read."""
    ring = Ring.allocate(rows, d, torch.device("cpu"), places=memory + 1)
    ring.status.fill_(RUNNING)
    ring.coefficients.copy_(admm.coefficients(torch.full((rows,), GAMMA, dtype=torch.float64)))
    for tensor in (ring.steps, ring.residuals, ring.gram, ring.weights):
        tensor.fill_(torch.nan)
    return ring


def same(a: Ring, b: Ring) -> bool:
    """Bit for bit, but that any NaN is a NaN."""
    return all(same_values(one, b.tensors()[name]) for name, one in a.tensors().items())


def least_squares(steps: list[Tensor], residuals: list[Tensor], row: int) -> np.ndarray[Any, Any]:
    """The next s by numpy: α minimises ‖r − Dα‖² + λ‖α‖², λ = 1e-8 trace(DᵀD), D the differences of the residuals."""
    g, r = (np.stack([one[row].double().numpy() for one in many]) for many in (steps, residuals))
    differences = np.diff(r, axis=0).T
    ridge = math.sqrt(1e-8 * np.square(differences).sum()) * np.eye(differences.shape[1])
    right = np.concatenate([r[-1], np.zeros(len(ridge))])
    alpha = np.linalg.lstsq(np.concatenate([differences, ridge]), right, rcond=None)[0]
    return np.asarray(g[-1] - np.diff(g, axis=0).T @ alpha)


@pytest.mark.parametrize("memory", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("dependent", [False, True])
def test_the_combination_is_that_of_least_squares_also_after_the_ring_went_round(memory: int, dependent: bool) -> None:
    """`dependent`: the residuals are in a plane, so that the ridge decides."""
    generator = torch.Generator().manual_seed(memory)
    rows, d = 4, 53
    ring = make_ring(rows, d, memory)
    ring.y.copy_(torch.rand(rows, d, generator=generator))
    ring.mask.copy_(torch.rand(rows, d, generator=generator) < 0.5)
    if dependent:
        ring.mask.zero_()
    plane = torch.randn(2, rows, d, generator=generator)
    steps: list[Tensor] = []
    residuals: list[Tensor] = []
    for k in range(3 * memory + 4):
        ring.s.copy_(torch.randn(rows, d, generator=generator))
        v = torch.randn(rows, d, generator=generator)
        if dependent:
            v = ring.s + torch.einsum("pr,prd->rd", torch.randn(2, rows, generator=generator), plane)
        step = admm.next_input(ring, v)
        steps, residuals = [*steps, step][-memory - 1 :], [*residuals, step - ring.s][-memory - 1 :]
        ring.extrapolated.zero_()  # so that none is rejected
        plain.measure(ring, v)
        assert torch.equal(ring.steps[:, k % (memory + 1)], step)
        order = [(k - i) % (memory + 1) for i in range(len(steps))][::-1]
        expected = torch.einsum("ird,jrd->rij", *[torch.stack(residuals).double()] * 2)
        torch.testing.assert_close(ring.gram[:, order][:, :, order], expected, rtol=1e-12, atol=1e-12)
        plain.weigh(ring, settle=0)
        plain.mix(ring)
        assert ring.extrapolated.all() == (k > 0)
        for row in range(rows):
            wanted = least_squares(steps, residuals, row) if k else step[row].double().numpy()
            # float32 rounds each weight and each sum; the ridge lets weights, and what cancels among them, grow
            scale = 1 + ring.weights[row].abs().sum().item()
            np.testing.assert_allclose(ring.s[row].double().numpy(), wanted, rtol=0, atol=3e-6 * scale)


def test_the_ridge_is_relative_to_the_residuals() -> None:
    """Near a solution residuals are tiny: scaled by a power of two, all weights stay the same, bit for bit."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 9, 3, 20, generator=generator)
    weights = []
    for scale in (1.0, 2.0**-40):
        ring = make_ring(3, 20, 4)
        for s, v in inputs.transpose(0, 1) * scale:
            ring.s.copy_(s)
            ring.extrapolated.zero_()
            plain.measure(ring, v)
            plain.weigh(ring, settle=0)
        weights.append(ring.weights)
    assert ((weights[0] != 0).sum(dim=1) == 4).all()
    assert torch.equal(*weights)


def test_products_are_summed_in_float64() -> None:
    """Products of float32 numbers are exact in float64; so is the sum of few enough, in any order, to 2⁻⁵³ each."""
    ring = make_ring(1, 4099, 1)
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        plain.measure(ring, torch.rand(1, 4099, generator=generator) + 1)
        ring.head.add_(1)
        ring.filled.fill_(1)
    for i in range(2):
        for j in range(2):
            pairs = zip(ring.residuals[0, i].tolist(), ring.residuals[0, j].tolist(), strict=True)
            assert ring.gram[0, i, j].item() == pytest.approx(math.fsum(a * b for a, b in pairs), rel=1e-12)


def test_products_with_what_is_not_remembered_are_zero_whatever_is_there() -> None:
    ring = make_ring(2, 5, 3)
    ring.gram.zero_()
    ring.head.fill_(1)
    ring.filled[1] = 1
    ring.residuals[1, 0] = 2.0
    plain.measure(ring, torch.ones(2, 5))
    assert ring.gram[:, 1].tolist() == [[0, 5, 0, 0], [10, 5, 0, 0]]
    assert torch.equal(ring.gram, ring.gram.mT)


@pytest.mark.parametrize("dimension", [1, 2, 3, 4, 5])
def test_a_linear_map_is_solved_after_as_many_evaluations_as_it_has_dimensions(dimension: int) -> None:
    """One to differ from, one for each dimension, and two that remove what float32 and the ridge left over.

    Of a map that contracts by its norm, no extrapolation makes the residual grow: it is A times the smallest one.
    """
    generator = torch.Generator().manual_seed(dimension)
    rows = 8
    a = torch.randn(rows, dimension, dimension, generator=generator)
    a = 0.95 * a / torch.linalg.matrix_norm(a, ord=2)[:, None, None]
    b = torch.randn(rows, dimension, generator=generator)
    solution = torch.linalg.solve(torch.eye(dimension) - a, b)
    accelerated, unaccelerated = make_ring(rows, dimension, 5), make_ring(rows, dimension, 0)
    for ring in (accelerated, unaccelerated):
        for _ in range(dimension + 3):
            ring.evaluate(lambda s: torch.einsum("rij,rj->ri", a, s) + b)
    errors = [(ring.s - solution).norm(dim=1) / solution.norm(dim=1) for ring in (accelerated, unaccelerated)]
    assert (errors[0] < 1e-4).all()
    assert (errors[1] > 1e-2).any()


def test_a_residual_that_grew_is_taken_back() -> None:
    """Rows: grew; stayed; shrank; NaN; infinite; grew, but by a plain step."""
    ring = make_ring(6, 4, 3)
    plain.measure(ring, torch.ones(6, 4))
    plain.weigh(ring, settle=0)
    plain.mix(ring)
    assert torch.equal(ring.s, torch.ones(6, 4))
    ring.extrapolated.copy_(torch.tensor([True, True, True, True, True, False]))
    residual = torch.tensor([1.5, 1.0, 0.5, torch.nan, torch.inf, 1.5])[:, None]
    plain.measure(ring, ring.s + residual * torch.tensor([1.0, 1.0, 1.0, -1.0]))  # another direction than before
    plain.weigh(ring, settle=0)
    plain.mix(ring)
    back = torch.tensor([True, False, False, True, True, False])
    assert ring.rejected.tolist() == back.int().tolist()
    assert ring.accepted.tolist() == [0, 1, 1, 0, 0, 0]
    assert (ring.s[back] == 1).all()  # the plain step of the first evaluation
    assert ring.filled[back].tolist() == [0] * 3
    assert ring.extrapolated.tolist() == [False, True, True, False, False, True]
    assert (ring.s[~back] != 1).any(dim=1).all()
    # what comes next has nothing to be compared or combined with
    ring.evaluate(lambda s: s + 3)
    assert (ring.s[back] == 4).all()
    assert ring.rejected[back].tolist() == [1] * 3
    assert ring.filled[back].tolist() == [1] * 3
    ring.evaluate(lambda s: s * 0.5)
    assert ring.extrapolated[back].all()


def rows_of_all_kinds(s: Tensor, evaluation: int) -> Tensor:
    """Ordinary; converged; the same residual each time; at first NaN; infinite; ordinary; huge; NaN later."""
    ordinary = 0.5 * s.sin() + torch.linspace(0, 1, s.shape[1])
    v = ordinary.clone()
    v[1] = s[1]
    v[2] = s[2] + 0.25
    if evaluation == 0:
        v[3, 1], v[4, 0] = torch.nan, torch.inf
    if evaluation == 1:  # back to what is finite
        v[3:5] = 0.1
    if evaluation == 3:
        v[7, 2] = torch.nan
    v[6] = 1e37 * ordinary[6]
    return v


def test_a_singular_history_leaves_its_row_on_the_plain_step_and_all_others_alone() -> None:
    together = make_ring(8, 6, 4)
    alone = [together.row(i) for i in range(8)]
    for evaluation in range(16):
        v = rows_of_all_kinds(together.s, evaluation)
        steps = v.clone()
        plain.measure(together, v)
        plain.weigh(together, settle=0)
        plain.mix(together)
        for i, ring in enumerate(alone):
            ring.evaluate(lambda s, i=i, k=evaluation: rows_of_all_kinds(s.repeat(8, 1), k)[[i]])  # type: ignore[misc]
            assert same(ring, together.row(i)), (evaluation, i)
        assert torch.equal(together.s[1:3], steps[1:3])
        assert not together.weights[1:3].any()
        assert evaluation >= 6 or not together.weights[3:5].any()  # the first two are remembered up to then
        assert together.rejected[7] == 0 or evaluation >= 3
    assert together.s.isfinite().all()
    assert (together.accepted[[0, 3, 4, 5, 7]] > 0).all()
    assert (together.accepted[[1, 2]] + together.rejected[[1, 2]] == 0).all()


def test_nothing_is_extrapolated_or_remembered_before_the_mask_has_held() -> None:
    ring = make_ring(2, 6, 4)
    ring.held.copy_(torch.tensor([1, 2], dtype=torch.int32))
    for _ in range(4):
        ring.evaluate(lambda s: s * torch.linspace(0, 0.6, 6) + 1, settle=2)
    assert ring.filled.tolist() == [1, 4]
    assert ring.extrapolated.tolist() == [False, True]
    assert ring.accepted.tolist() == [0, 2]
    ring.held.fill_(2)  # from the next one on, with the one before it
    ring.evaluate(lambda s: s * torch.linspace(0, 0.6, 6) + 1, settle=2)
    assert ring.extrapolated.tolist() == [True, True]
    assert (ring.weights[0] != 0).sum() == 1


def test_without_memory_every_step_is_plain() -> None:
    ring = make_ring(3, 5, 0)
    s = torch.zeros(3, 5)
    for _ in range(6):
        ring.evaluate(lambda s: 0.3 * s + 1)
        s = 0.3 * s + 1
        assert torch.equal(ring.s, s)
    assert not ring.accepted.any()
    assert not ring.rejected.any()


def test_what_has_no_weight_is_not_read() -> None:
    ring = make_ring(1, 1, 3)
    ring.steps.copy_(torch.tensor([[[2.0], [torch.nan], [5.0], [torch.inf]]]))
    ring.base.fill_(2)
    ring.weights.copy_(torch.tensor([[0.5, 0.0, 0.0, 0.0]]))
    plain.mix(ring)
    assert ring.s.item() == 5 + 0.5 * (2 - 5)


def make_estimates(rows: int, d: int) -> tuple[AndersonState, Tensor]:
    """Slots and v; some pixels of y are negative, as with noise."""
    generator = torch.Generator().manual_seed(3)
    s, v, y, x = torch.randn(4, rows, d, generator=generator)
    now = AndersonState.allocate(rows, d, torch.device("cpu"))
    for buffer, image in ((now.s, s), (now.y, y), (now.x, x)):
        buffer.copy_(image)
    now.mask.copy_(torch.rand(rows, d, generator=generator) < 0.5)
    now.best_mask.copy_(now.mask)
    for buffer in (now.residual, now.score):
        buffer.fill_(torch.nan)
    now.best_score.fill_(torch.inf)
    now.status.fill_(RUNNING)
    now.coefficients.copy_(admm.coefficients(torch.linspace(0.1, 2, rows, dtype=torch.float64)))
    return now, v.clone()


@pytest.mark.parametrize("blind", [False, True])
def test_an_estimate_against_float64(blind: bool) -> None:
    now, v = make_estimates(5, 97)
    s, y, x = (tensor.double() for tensor in (now.s, now.y, now.x))
    mask, g = now.mask.clone(), now.coefficients[:, :1].double()
    plain.estimate(now, v, estimate_mask=blind)
    v = v.double()
    xi = torch.where(mask, (y + g * (2 * v - s)) / (1 + g), 2 * v - s)
    # five roundings of float32 in numbers up to about 10
    torch.testing.assert_close(now.x.double(), xi, rtol=0, atol=5e-6)
    kept = reference.estimate_mask(now.x, now.y) if blind else mask
    assert torch.equal(now.mask, kept)
    assert torch.equal(now.changed, (kept != mask).any(dim=1))
    misfit = torch.where(kept, y - xi, y if blind else 0)
    score = (v - xi).square().mean(dim=1) + misfit.square().mean(dim=1)
    torch.testing.assert_close(now.residual.double(), (xi - x).square().mean(dim=1), rtol=1e-5, atol=0)
    torch.testing.assert_close(now.score.double(), score, rtol=1e-5, atol=0)
    assert torch.equal(now.best, now.x)  # the first one is the best so far
    assert torch.equal(now.best_mask, now.mask)
    assert torch.equal(now.best_score, now.score)


def test_a_mask_that_is_estimated_again_has_not_changed() -> None:
    now, v = make_estimates(2, 9)
    now.s.fill_(5.0)
    v.fill_(5.0)
    now.y[:] = torch.tensor([[0.1], [4.0]])  # twice that is below ξ, or above it
    now.mask[:] = torch.tensor([[False], [True]])
    plain.estimate(now, v, estimate_mask=True)
    assert now.changed.tolist() == [False, False]
    now.mask[:, 3] = torch.tensor([True, False])
    plain.estimate(now, v, estimate_mask=True)
    assert now.changed.tolist() == [True, True]


@pytest.mark.parametrize(("factor", "better"), [(2.0, True), (1.0, False), (0.5, False), (math.nan, False)])
def test_the_best_estimate_is_the_first_with_the_lowest_score(factor: float, better: bool) -> None:
    now, v = make_estimates(3, 9)
    first = now.take(torch.arange(3))
    plain.estimate(first, v, estimate_mask=True)
    now.best_score.copy_(first.score * factor)
    now.best.fill_(7.0)
    now.best_mask.fill_(True)
    plain.estimate(now, v, estimate_mask=True)
    if better:
        assert torch.equal(now.best, now.x)
        assert torch.equal(now.best_mask, now.mask)
        assert torch.equal(now.best_score, now.score)
    else:
        assert (now.best == 7).all()
        assert now.best_mask.all()
        assert same_values(now.best_score, first.score * factor)


def same_values(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.nan_to_num(12345), b.nan_to_num(12345))


def test_an_estimate_that_is_not_finite_is_never_the_best() -> None:
    now, v = make_estimates(2, 9)
    v[0, 3], v[1, 4] = torch.nan, torch.inf
    plain.estimate(now, v, estimate_mask=True)
    assert not now.residual.isfinite().any()
    assert not now.best.any()
    assert now.best_score.tolist() == [math.inf] * 2


def stop(mses: list[float], residuals: list[float] | None = None, **changes: Any) -> list[dict[str, Any]]:
    """One row's state after each of these estimates, by their MSE and the fixed-point residual of the evaluation."""
    state = AndersonState.allocate(1, 7, torch.device("cpu"), places=3)
    state.status.fill_(RUNNING)
    state.filled.fill_(4)
    state.extrapolated.fill_(True)
    state.milestone.fill_(torch.inf)
    changed = changes.pop("changed", [False] * len(mses))
    scores = changes.pop("scores", [1.0] * len(mses))
    limits = {"tolerance": TOLERANCE, "patience": PATIENCE, "stall": 100, "settled_counts": 1, "limit": LIMIT} | changes
    history = []
    for mse, other, change, score in zip(mses, residuals or [0.0] * len(mses), changed, scores, strict=True):
        state.score.fill_(score)
        state.residual.fill_(mse)
        state.changed.fill_(change)
        head = (int(state.head) + 1) % 3
        state.head.fill_(head)
        state.gram.fill_(1e9)
        state.gram[0, head, head] = 7 * other
        plain.stop(state, **limits)
        history.append({name: tensor.item() for name, tensor in state.tensors().items() if tensor.dim() == 1})
    return history


def statuses(history: list[dict[str, Any]]) -> list[int]:
    return [int(state["status"]) for state in history]


def test_an_image_has_converged_after_patience_comparisons_the_first_with_the_second_estimate() -> None:
    history = stop([0.0, 0.0, 0.0, 0.0])
    assert math.isnan(history[0]["residual"])
    assert [state["below"] for state in history] == [0, 1, 2, 3]
    assert statuses(history) == [RUNNING, RUNNING, RUNNING, Status.CONVERGED]


@pytest.mark.parametrize("fails", ["mse", "residual"])
def test_both_the_estimates_and_the_inputs_of_f_must_stand_still(fails: str) -> None:
    low, high = [0.5 * TOLERANCE] * 7, [*[0.5 * TOLERANCE] * 3, TOLERANCE, *[0.5 * TOLERANCE] * 3]
    history = stop(high, low) if fails == "mse" else stop(low, high)
    assert [state["below"] for state in history] == [0, 1, 2, 0, 1, 2, 3]
    assert statuses(history)[-2:] == [RUNNING, Status.CONVERGED]


def test_the_limit_ends_the_work_and_convergence_at_the_limit_is_convergence() -> None:
    assert statuses(stop([1.0] * 3, limit=3)) == [RUNNING, RUNNING, Status.MAX_ITERATIONS]
    assert statuses(stop([0.0] * 4, limit=4))[-1] == Status.CONVERGED


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("when", [0, 3])
def test_an_estimate_that_is_not_finite_has_diverged(value: float, when: int) -> None:
    history = stop([0.0] * when + [value, 0.0], limit=when + 1)
    assert statuses(history)[when] == Status.DIVERGED
    assert history[-1] | {"head": 0} == history[-2] | {"head": 0, "residual": 0.0}  # and nothing changes any more


def test_an_image_is_given_up_where_its_score_no_longer_falls() -> None:
    scores = [8.0, 9.0, 7.0, 6.99, 7.0, math.nan, 6.2, 1.0, 1.0]  # below seven eighths of 8 is 6.99, but not 7
    history = stop([1.0] * 9, scores=scores, stall=3)
    assert [state["milestone"] for state in history] == pytest.approx([8.0] * 3 + [6.99] * 6)
    assert [state["stalled"] for state in history] == [0, 1, 2, 0, 1, 2, 3, 3, 3]
    assert statuses(history) == [RUNNING] * 6 + [Status.STALLED] * 3


def test_an_estimate_that_moved_by_less_than_an_eighth_of_its_score_counts_several_times() -> None:
    mses = [0.0, 0.125, 0.124, 1.0, 0.0, 0.0, 1.0]  # the first one has no estimate before it
    history = stop(mses, scores=[1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5], stall=8, settled_counts=4)
    assert [state["stalled"] for state in history] == [0, 1, 5, 6, 0, 4, 5]  # one that is progress counts for nothing
    assert statuses(stop([1.0] + [0.1] * 3, stall=8, settled_counts=4))[2] == Status.STALLED


def test_convergence_and_the_limit_come_before_giving_up() -> None:
    assert statuses(stop([1.0] * 3, stall=2, limit=3))[-1] == Status.MAX_ITERATIONS
    assert statuses(stop([0.0] * 4, stall=3))[-1] == Status.CONVERGED
    assert statuses(stop([1.0, 1.0, math.nan], stall=2))[-1] == Status.DIVERGED


def test_a_residual_that_is_not_finite_is_not_below_the_tolerance() -> None:
    assert [state["below"] for state in stop([0.0] * 3, [0.0, math.nan, math.inf])] == [0, 0, 0]


def test_a_change_of_the_mask_forgets_what_was_evaluated_under_the_one_before() -> None:
    history = stop([0.0] * 4, changed=[False, False, True, False])
    assert [state["held"] for state in history] == [1, 2, 0, 1]
    assert [state["filled"] for state in history] == [4, 4, 0, 0]
    assert [bool(state["extrapolated"]) for state in history] == [True, True, False, False]
    assert [state["mask_changes"] for state in history] == [0, 0, 1, 1]
    assert [state["below"] for state in history] == [0, 1, 2, 3]  # the paper's rule does not ask for the mask
    assert [state["iterations"] for state in history] == [1, 2, 3, 4]


def test_rows_that_do_not_run_stay_as_they_are() -> None:
    generator = torch.Generator().manual_seed(5)
    ring = make_ring(4, 6, 3)
    for _ in range(6):
        ring.evaluate(lambda s: 0.5 * s.cos() + torch.linspace(0, 1, 6))
    ring.status.copy_(
        torch.tensor([RUNNING, Status.CONVERGED, Status.DIVERGED, Status.MAX_ITERATIONS], dtype=torch.int8)
    )
    before = ring.copy()
    v = torch.full((4, 6), torch.nan)
    v[0] = torch.rand(6, generator=generator)
    ring.evaluate(lambda _: v)
    assert all(same(ring.row(i), before.row(i)) for i in (1, 2, 3))
    assert not same(ring.row(0), before.row(0))

    now, v = make_estimates(4, 9)
    now.status.copy_(ring.status)
    old = now.take(torch.arange(4)).tensors()
    plain.estimate(now, v, estimate_mask=True)
    assert all(same_values(tensor[1:], old[name][1:]) for name, tensor in now.tensors().items())
    assert not same_values(now.x[0], old["x"][0])


@pytest.mark.parametrize("operation", [MEASURE, WEIGH, STOP, MIX])
def test_numbers_beside_the_ring_count_as_the_nearest(operation: tuple[Any, ...]) -> None:
    check_beside_the_ring(plain, "cpu", operation)
