"""Anderson-accelerated ADMM, state kept while the mask is re-estimated, in plain torch: the truth for one step.

`ops/admm/plain.py` says what s, v, y, mask and the coefficients are, and what one ADMM iteration makes of them: G(s). A
solution is a fixed point of G. Type-II Anderson acceleration looks for it in the affine span of the last evaluations:

    r_i = G(s_i) − s_i                                   the residual of evaluation i
    s ← G(s_k) − Σ_j α_j (G(s_j+1) − G(s_j)),            with the α that minimise ‖r_k − Σ_j α_j (r_j+1 − r_j)‖²

The sums run over the last evaluations that are known of, at most q − 1 differences of q = memory + 1 evaluations. They
are kept in a ring, with the dot products of all residuals: nothing is copied when a new one comes. The system of
normal equations is solved in float64 by a Cholesky decomposition, with a ridge relative to its trace.

One evaluation is `measure`, `weigh`, `mix`. When the mask is to be estimated, `estimate` and `assess` come between the
first two. State of a slot is one row of each buffer, beside those of `ops/admm/plain.py`:

    steps, residuals       float32 [rows, q, d]: G(s_i) and r_i of the last q evaluations, in a ring
    gram                   float64 [rows, q, q]: the dot products of the residuals
    head                   int32   [rows]: the place in the ring of the newest evaluation, or of the next one, in [0, q)
    filled                 int32   [rows]: how many evaluations before that one the extrapolation may use, in [0, q)
    extrapolated           bool    [rows]: s is no plain step
    base                   int32   [rows]: the evaluation whose step is the next s, but for the weights, in [0, q)
    weights                float32 [rows, q]: of the differences to that step
    best                   float32 [rows, d]: the estimate with the lowest score so far
    best_mask              bool    [rows, d]: the mask that was estimated from it
    score, best_score      float32 [rows]: of the last estimate, and of the best one: ‖v − x‖²/d, which is the primal
                           residual of ADMM, and the misfit to the degraded image
    changed                bool    [rows]: the last estimate of the mask differs from the one before
    milestone              float32 [rows]: the score of the last estimate that was progress, infinite before
    stalled                int32   [rows]: estimates running that were none
    held                   int32   [rows]: estimates of the mask running that changed nothing
    accepted, rejected     int32   [rows]: extrapolations that were gone on from, and that were not
    mask_changes           int32   [rows]: estimates of the mask that changed it
    below, iterations      int32   [rows]: comparisons running that were passed; estimates made
    status                 int8    [rows]: RUNNING or a `Status`

Rows that are not RUNNING stay as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from memrecon_fast.ops.admm.plain import kept_entries, next_input, output
from memrecon_fast.results import RUNNING, Status
from memrecon_fast.settings import PROGRESS

RIDGE = 1e-8
"""Relative to the trace of the Gram matrix of the differences; an absolute one would break near the solution."""


def measure(
    s: Tensor,
    v: Tensor,
    y: Tensor,
    mask: Tensor,
    steps: Tensor,
    residuals: Tensor,
    gram: Tensor,
    head: Tensor,
    filled: Tensor,
    status: Tensor,
    coefficients: Tensor,
) -> None:
    """One more evaluation, v = f(s), into the ring at `head`: its step, its residual, and the dot products of that.

    The products are summed in float64; those with residuals that are not among the last `filled` ones become 0.
    """
    step = next_input(s, v, y, mask, coefficients)
    residual = step - s
    running = status == RUNNING
    here = _one_hot(head, gram.shape[1]) & running[:, None]
    steps.copy_(torch.where(here[:, :, None], step[:, None], steps))
    residuals.copy_(torch.where(here[:, :, None], residual[:, None], residuals))
    products = (residuals.double() * residual.double()[:, None]).sum(dim=2)
    age = _ages(head, gram.shape[1])
    products = products.masked_fill(age > filled[:, None], 0.0)
    gram.copy_(torch.where(here[:, :, None], products[:, None], gram))
    gram.copy_(torch.where(here[:, None, :], products[:, :, None], gram))


def estimate(
    s: Tensor,
    v: Tensor,
    y: Tensor,
    mask: Tensor,
    x: Tensor,
    best: Tensor,
    best_mask: Tensor,
    residual: Tensor,
    score: Tensor,
    best_score: Tensor,
    changed: Tensor,
    status: Tensor,
    coefficients: Tensor,
    estimate_mask: bool,
) -> None:
    """The estimate ξ of the image and, if `estimate_mask`, that of the mask, (20).

    residual ← mean((ξ − x)²) per row, x ← ξ. score ← mean((v − ξ)²) + misfit, where the misfit is the mean of (y − ξ)²
    over the kept entries and, where the mask is estimated, of y² over the erased ones: the data term of (5). Squares
    are summed in float64. Where the score is below the best one, best, best_mask and best_score become these.
    """
    running = status == RUNNING
    xi = output(s, v, y, mask, coefficients)
    if estimate_mask:
        kept = torch.where(running[:, None], kept_entries(xi, y), mask)
        changed.copy_(torch.where(running, (kept != mask).any(dim=1), changed))
        mask.copy_(kept)
        misfit = torch.where(mask, y - xi, y)
    else:
        changed.masked_fill_(running, False)
        misfit = (y - xi).masked_fill(~mask, 0.0)
    size = xi.shape[1]
    squares = (xi - x).double().square().sum(dim=1)
    residual.copy_(torch.where(running, squares / size, residual))
    total = ((v - xi).double().square() + misfit.double().square()).sum(dim=1)
    score.copy_(torch.where(running, total / size, score))
    x.copy_(torch.where(running[:, None], xi, x))
    better = running & (score < best_score)
    best.copy_(torch.where(better[:, None], x, best))
    best_mask.copy_(torch.where(better[:, None], mask, best_mask))
    best_score.copy_(torch.where(better, score, best_score))


def assess(
    residual: Tensor,
    score: Tensor,
    milestone: Tensor,
    changed: Tensor,
    gram: Tensor,
    head: Tensor,
    filled: Tensor,
    extrapolated: Tensor,
    held: Tensor,
    stalled: Tensor,
    mask_changes: Tensor,
    iterations: Tensor,
    below: Tensor,
    status: Tensor,
    tolerance: float,
    patience: int,
    stall: int,
    limit: int,
    size: int,
) -> None:
    """Count one more estimate, and say which images are done.

    A comparison is passed where the MSE to the estimate before (`residual`), and the fixed-point residual ‖r‖²/d of the
    evaluation at `head` (d = `size`), are below the tolerance. The first estimate has none before it: its `residual`
    becomes NaN. `PROGRESS` says what progress is; after `stall` estimates without it the image is given up. Where the
    mask changed, what was evaluated before is forgotten; the step of this evaluation, made under the mask before, is
    gone on from.
    """
    running = status == RUNNING
    finite = residual.isfinite()
    count = iterations + 1
    mse = residual.masked_fill(count < 2, torch.nan)
    newest = _at(torch.diagonal(gram, dim1=1, dim2=2), head)
    run = (below + 1).masked_fill(~((mse < tolerance) & (newest < tolerance * size)), 0)
    progress = score < PROGRESS * milestone
    without = (stalled + 1).masked_fill(progress, 0)
    verdict = torch.full_like(status, RUNNING)
    verdict.masked_fill_(without >= stall, int(Status.STALLED))
    verdict.masked_fill_(count >= limit, int(Status.MAX_ITERATIONS))
    verdict.masked_fill_(run >= patience, int(Status.CONVERGED))
    verdict.masked_fill_(~finite, int(Status.DIVERGED))
    lost = running & changed
    residual.copy_(torch.where(running, mse, residual))
    milestone.copy_(torch.where(running & progress, score, milestone))
    stalled.copy_(torch.where(running, without, stalled))
    filled.masked_fill_(lost, 0)
    extrapolated.masked_fill_(lost, False)
    held.copy_(torch.where(running, (held + 1).masked_fill(changed, 0), held))
    mask_changes.add_(lost)
    iterations.add_(running)
    below.copy_(torch.where(running, run, below))
    status.copy_(torch.where(running, verdict, status))


def weigh(
    gram: Tensor,
    head: Tensor,
    filled: Tensor,
    extrapolated: Tensor,
    base: Tensor,
    weights: Tensor,
    held: Tensor,
    accepted: Tensor,
    rejected: Tensor,
    status: Tensor,
    settle: int,
) -> None:
    """Decide how the image goes on from the evaluation at `head`, and move on to the next place in the ring.

    rejected    the residual of an extrapolation is NaN, or larger than that of the evaluation before: go on with the
                plain step of that one, and forget all others
    extrapolate where the mask has held for `settle` estimates, and the system can be solved
    plain       elsewhere; what is evaluated before the mask has held is not remembered
    """
    rows, places = gram.shape[:2]
    running = status == RUNNING
    squares = torch.diagonal(gram, dim1=1, dim2=2)
    before = (head - 1) % places
    newest = _at(squares, head)
    grew = extrapolated & ~(newest <= _at(squares, before))
    settled = held >= settle
    count = (filled + 1).clamp(max=places).masked_fill(~settled, 1).masked_fill(grew, 0)

    order = (head[:, None] - torch.arange(places, device=head.device)) % places  # from the newest to the oldest
    ordered = gram.gather(1, order[:, :, None].expand(rows, places, places).long())
    ordered = ordered.gather(2, order[:, None, :].expand(rows, places, places).long())
    alphas, solved = _solve(ordered, count)
    solved &= settled & ~grew & (count >= 2)
    # s = G_0 − Σ α_j (G_j − G_j+1), written with the differences to G_0
    shifts = torch.zeros(rows, places, dtype=torch.float64, device=gram.device)
    shifts[:, :-1] -= alphas
    shifts[:, 1:] += alphas
    shifts[:, 0] = 0.0
    shifts.masked_fill_(~solved[:, None], 0.0)
    placed = torch.zeros_like(shifts).scatter_(1, order.long(), shifts).float()

    moved = running[:, None]
    weights.copy_(torch.where(moved, placed, weights))
    base.copy_(torch.where(running, torch.where(grew, before, head), base))
    rejected.add_(running & grew)
    accepted.add_(running & extrapolated & ~grew)
    extrapolated.copy_(torch.where(running, solved, extrapolated))
    # the newest evaluation, too, is among those before the next one, which has the place after it
    filled.copy_(torch.where(running, count.clamp(max=places - 1), filled))
    head.copy_(torch.where(running, (head + 1) % places, head))


def mix(s: Tensor, steps: Tensor, base: Tensor, weights: Tensor, status: Tensor) -> None:
    """The next input of f: s ← G_b + Σ_i w_i (G_i − G_b), in the order of the places in the ring, b = base.

    What has the weight 0 is not read: it may be anything.
    """
    running = (status == RUNNING)[:, None]
    places = steps.shape[1]
    start = steps.gather(1, base.long()[:, None, None].expand(-1, 1, steps.shape[2]))[:, 0]
    total = start
    for place in range(places):
        weight = weights[:, place, None]
        total = torch.where(weight == 0, total, total + weight * (steps[:, place] - start))
    s.copy_(torch.where(running, total, s))


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


def _one_hot(head: Tensor, places: int) -> Tensor:
    return torch.arange(places, device=head.device) == head[:, None]


def _ages(head: Tensor, places: int) -> Tensor:
    """How many evaluations ago each place of the ring was written, 0 for the newest, [rows, q]."""
    return (head[:, None] - torch.arange(places, device=head.device)) % places


def _at(values: Tensor, place: Tensor) -> Tensor:
    return values.gather(1, place.long()[:, None])[:, 0]
