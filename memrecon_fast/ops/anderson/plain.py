"""Anderson-accelerated ADMM, state kept while the mask is re-estimated, in plain torch: the truth for one step.

`ops/admm/plain.py` says what one ADMM iteration makes of s and v = f(s): G(s). A solution is a fixed point of G.
Type-II Anderson acceleration looks for it in the affine span of the last evaluations:

    r_i = G(s_i) − s_i                                   the residual of evaluation i
    s ← G(s_k) − Σ_j α_j (G(s_j+1) − G(s_j)),            with the α that minimise ‖r_k − Σ_j α_j (r_j+1 − r_j)‖²

The sums run over the last evaluations that are known of, at most q − 1 differences of q = memory + 1 evaluations. They
are kept in a ring, with the dot products of all residuals: nothing is copied when a new one comes. The system of
normal equations is solved in float64 by a Cholesky decomposition, with a ridge relative to its trace.

One evaluation is `measure`, `weigh`, `mix`. When the mask is to be estimated, `estimate` and `stop` come between the
first two. State of a slot is one row of the buffers of `AndersonState`, which says what they are. Rows that are not
RUNNING stay as they are. `head`, `filled` and `base` count as the nearest number that they may be, in [0, q): no kernel
reads or writes beside the ring, whatever they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from memrecon_fast.ops.admm import plain as admm
from memrecon_fast.ops.anderson import ESTIMATE, MEASURE, MIX, STOP, WEIGH, AndersonState
from memrecon_fast.results import RUNNING, Status
from memrecon_fast.settings import PROGRESS, SETTLED

RIDGE = 1e-8
"""Relative to the trace of the Gram matrix of the differences; an absolute one would break near the solution."""


@torch.inference_mode()
def measure(state: AndersonState, v: Tensor) -> None:
    """One more evaluation, v = f(s), into the ring at `head`: its step, its residual, and the dot products of that.

    The products are summed in float64; those with residuals that are not among the last `filled` ones become 0.
    """
    state.check(MEASURE, v)
    step = admm.next_input(state, v)
    residual = step - state.s
    running = state.status == RUNNING
    head, filled = _in_ring(state.head, state), _in_ring(state.filled, state)
    here = _one_hot(head, state.places) & running[:, None]
    state.steps.copy_(torch.where(here[:, :, None], step[:, None], state.steps))
    state.residuals.copy_(torch.where(here[:, :, None], residual[:, None], state.residuals))
    products = admm.over_pixels(torch.sum, state.residuals.double() * residual.double()[:, None])
    age = _ages(head, state.places)
    products = products.masked_fill(age > filled[:, None], 0.0)
    state.gram.copy_(torch.where(here[:, :, None], products[:, None], state.gram))
    state.gram.copy_(torch.where(here[:, None, :], products[:, :, None], state.gram))


@torch.inference_mode()
def estimate(state: AndersonState, v: Tensor, *, estimate_mask: bool) -> None:
    """The estimate ξ of the image and, if `estimate_mask`, that of the mask, (20).

    residual ← mean((ξ − x)²) per row, x ← ξ. score ← mean((v − ξ)²) + misfit, where the misfit is the mean of (y − ξ)²
    over the kept entries and, where the mask is estimated, of y² over the erased ones: the data term of (5). Squares
    are summed in float64. Where the score is below the best one, best, best_mask and best_score become these.
    """
    state.check(ESTIMATE, v)
    running = state.status == RUNNING
    xi = admm.output(state, v)
    if estimate_mask:
        kept = torch.where(running[:, None], admm.estimate_mask(xi, state.y), state.mask)
        state.changed.copy_(torch.where(running, (kept != state.mask).any(dim=1), state.changed))
        state.mask.copy_(kept)
        misfit = torch.where(state.mask, state.y - xi, state.y)
    else:
        state.changed.masked_fill_(running, False)
        misfit = (state.y - xi).masked_fill(~state.mask, 0.0)
    size = xi.shape[1]
    squares = admm.over_pixels(torch.sum, (xi - state.x).double().square())
    state.residual.copy_(torch.where(running, squares / size, state.residual))
    total = admm.over_pixels(torch.sum, (v - xi).double().square() + misfit.double().square())
    state.score.copy_(torch.where(running, total / size, state.score))
    state.x.copy_(torch.where(running[:, None], xi, state.x))
    better = running & (state.score < state.best_score)
    state.best.copy_(torch.where(better[:, None], state.x, state.best))
    state.best_mask.copy_(torch.where(better[:, None], state.mask, state.best_mask))
    state.best_score.copy_(torch.where(better, state.score, state.best_score))


@torch.inference_mode()
def stop(state: AndersonState, *, tolerance: float, patience: int, stall: int, settled_counts: int, limit: int) -> None:
    """Count one more estimate, and say which images are done.

    A comparison is passed where the MSE to the estimate before (`residual`), and the fixed-point residual ‖r‖²/d of the
    evaluation at `head`, are below the tolerance. The first estimate has none before it: its `residual` becomes NaN.
    `PROGRESS` says what progress is; after `stall` estimates without it the image is given up, and one that has settled
    (`SETTLED`) counts as `settled_counts` of them. Where the mask changed, what was evaluated before is forgotten; the
    image goes on with the step of this evaluation, which was made under the mask before.
    """
    state.check(STOP)
    running = state.status == RUNNING
    finite = state.residual.isfinite()
    count = state.iterations + 1
    mse = state.residual.masked_fill(count < 2, torch.nan)
    newest = _at(torch.diagonal(state.gram, dim1=1, dim2=2), _in_ring(state.head, state))
    run = (state.below + 1).masked_fill(~((mse < tolerance) & (newest < tolerance * state.d)), 0)
    progress = state.score < PROGRESS * state.milestone
    counts = torch.where(mse < SETTLED * state.score, settled_counts, 1)
    without = (state.stalled + counts.int()).masked_fill(progress, 0)
    verdict = torch.full_like(state.status, RUNNING)
    verdict.masked_fill_(without >= stall, int(Status.STALLED))
    verdict.masked_fill_(count >= limit, int(Status.MAX_ITERATIONS))
    verdict.masked_fill_(run >= patience, int(Status.CONVERGED))
    verdict.masked_fill_(~finite, int(Status.DIVERGED))
    lost = running & state.changed
    state.residual.copy_(torch.where(running, mse, state.residual))
    state.milestone.copy_(torch.where(running & progress, state.score, state.milestone))
    state.stalled.copy_(torch.where(running, without, state.stalled))
    state.filled.masked_fill_(lost, 0)
    state.extrapolated.masked_fill_(lost, False)
    state.held.copy_(torch.where(running, (state.held + 1).masked_fill(state.changed, 0), state.held))
    state.mask_changes.add_(lost)
    state.iterations.add_(running)
    state.below.copy_(torch.where(running, run, state.below))
    state.status.copy_(torch.where(running, verdict, state.status))


@torch.inference_mode()
def weigh(state: AndersonState, *, settle: int) -> None:
    """Decide how the image goes on from the evaluation at `head`, and move on to the next place in the ring.

    rejected    the residual of an extrapolation is NaN, or larger than that of the evaluation before: go on with the
                plain step of that one, and forget all others
    extrapolate where the mask has held for `settle` estimates, and the system can be solved
    plain       elsewhere; what is evaluated before the mask has held is not remembered
    """
    state.check(WEIGH)
    rows, places = state.rows, state.places
    running = state.status == RUNNING
    squares = torch.diagonal(state.gram, dim1=1, dim2=2)
    head = _in_ring(state.head, state)
    before = (head - 1) % places
    newest = _at(squares, head)
    grew = state.extrapolated & ~(newest <= _at(squares, before))
    settled = state.held >= settle
    count = (_in_ring(state.filled, state) + 1).masked_fill(~settled, 1).masked_fill(grew, 0)

    order = _ages(head, places)  # from the newest to the oldest
    ordered = state.gram.gather(1, order[:, :, None].expand(rows, places, places).long())
    ordered = ordered.gather(2, order[:, None, :].expand(rows, places, places).long())
    alphas, solved = _solve(ordered, count)
    solved &= settled & ~grew & (count >= 2)
    # s = G_0 − Σ α_j (G_j − G_j+1), written with the differences to G_0
    shifts = torch.zeros(rows, places, dtype=torch.float64, device=state.gram.device)
    shifts[:, :-1] -= alphas
    shifts[:, 1:] += alphas
    shifts[:, 0] = 0.0
    shifts.masked_fill_(~solved[:, None], 0.0)
    placed = torch.zeros_like(shifts).scatter_(1, order.long(), shifts).float()

    moved = running[:, None]
    state.weights.copy_(torch.where(moved, placed, state.weights))
    state.base.copy_(torch.where(running, torch.where(grew, before, head), state.base))
    state.rejected.add_(running & grew)
    state.accepted.add_(running & state.extrapolated & ~grew)
    state.extrapolated.copy_(torch.where(running, solved, state.extrapolated))
    # the newest evaluation, too, is among those before the next one, which has the place after it
    state.filled.copy_(torch.where(running, count.clamp(max=places - 1), state.filled))
    state.head.copy_(torch.where(running, (head + 1) % places, state.head))


@torch.inference_mode()
def mix(state: AndersonState) -> None:
    """The next input of f: s ← G_b + Σ_i w_i (G_i − G_b), in the order of the places in the ring, b = base.

    What has the weight 0 is not read: it may be anything.
    """
    state.check(MIX)
    running = (state.status == RUNNING)[:, None]
    base = _in_ring(state.base, state).long()
    start = state.steps.gather(1, base[:, None, None].expand(-1, 1, state.d))[:, 0]
    total = start
    for place in range(state.places):
        weight = state.weights[:, place, None]
        total = torch.where(weight == 0, total, total + weight * (state.steps[:, place] - start))
    state.s.copy_(torch.where(running, total, state.s))


def _solve(gram: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """α [rows, q − 1] of the differences of the first `count` residuals; `gram` has their products, newest first.

    And whether there is one: the matrix may be singular, or hold what is not finite.
    """
    size = gram.shape[1] - 1
    differences = gram[:, :-1, :-1] - gram[:, :-1, 1:] - gram[:, 1:, :-1] + gram[:, 1:, 1:]
    right = gram[:, 0, :-1] - gram[:, 0, 1:]
    known = torch.arange(size, device=gram.device) < count[:, None] - 1
    differences = differences.masked_fill(~(known[:, :, None] & known[:, None, :]), 0.0)
    right = right.masked_fill(~known, 0.0)
    ridge = torch.zeros_like(right[:, 0]) if size else gram.new_zeros(len(gram))
    for i in range(size):
        ridge = ridge + differences[:, i, i]
    ridge = ridge * RIDGE
    solved = torch.ones_like(ridge, dtype=torch.bool)
    lower: list[list[Tensor]] = []
    scaled: list[Tensor] = []  # Cholesky: L Lᵀ = D + ridge, L z = b
    for i in range(size):
        row: list[Tensor] = []
        for j in range(i):
            entry = differences[:, i, j]
            for k in range(j):
                entry = entry - row[k] * lower[j][k]
            row.append(entry / lower[j][j])
        pivot = differences[:, i, i] + ridge
        part = right[:, i]
        for k in range(i):
            pivot = pivot - row[k] * row[k]
            part = part - row[k] * scaled[k]
        solved = solved & (~known[:, i] | ((pivot > 0) & pivot.isfinite()))
        row.append(pivot.masked_fill(~(known[:, i] & (pivot > 0)), 1.0).sqrt())
        lower.append(row)
        scaled.append(part / row[i])
    alphas: list[Tensor] = [right] * size
    for i in reversed(range(size)):
        value = scaled[i]
        for k in range(i + 1, size):
            value = value - lower[k][i] * alphas[k]
        alphas[i] = value / lower[i][i]
    if not size:
        return right, torch.zeros_like(solved)
    solution = torch.stack(alphas, dim=1)
    return solution, solved & solution.isfinite().all(dim=1)


def _in_ring(numbers: Tensor, state: AndersonState) -> Tensor:
    return numbers.clamp(0, state.places - 1)


def _one_hot(head: Tensor, places: int) -> Tensor:
    return torch.arange(places, device=head.device) == head[:, None]


def _ages(head: Tensor, places: int) -> Tensor:
    """How many evaluations ago each place of the ring was written, 0 for the newest, [rows, q].

    And the place that was written so many evaluations ago: the same table.
    """
    return (head[:, None] - torch.arange(places, device=head.device)) % places


def _at(values: Tensor, place: Tensor) -> Tensor:
    return values.gather(1, place.long()[:, None])[:, 0]
