"""The per-pixel mathematics in plain torch: the truth for one step, and the backend "torch".

State of a slot is one row of the buffers of `AdmmState`, which says what they are. With g = γ/2, s what enters the
autoencoder f, v = f(s), y the degraded image and Θ the mask, the inner loop of Algorithm 1 is, after eliminating ξ and
u (u = s − v):

    start      s ← Θ ? y/(1+g) : 0
    step       s ← Θ ? (y + s + (g−1)v)/(1+g) : v
    output     ξ = Θ ? (y + g(2v − s))/(1+g) : 2v − s

All operations work in place, allocate nothing that outlives them, never ask the device for an answer, and are not seen
by autograd. v is float32 [rows, d], as the pixels of the state are; one that is not wholly in memory is refused, see
`State`, as torch itself would read what is not there.

An outer iteration restarts from zero: what it gives depends on its mask alone. So once a mask has been estimated twice,
all that follows repeats what came in between, and need not be computed.

`close`, `advance` and `stop` leave rows that are not RUNNING as they are. Divisions by 1+g are multiplications by its
rounded reciprocal, products and sums are rounded one by one (no fused multiply-add): the compiled kernels do the same,
bit for bit. No number of Python's goes into `torch.where`: on a GPU that would wait for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from memrecon_fast.ops.admm import (
    ADVANCE,
    CLOSE,
    MEAN_SQUARES,
    START,
    STEP,
    STOP,
    AdmmState,
    IterationState,
    Pairs,
    SplitState,
)
from memrecon_fast.results import RUNNING, Status


def coefficients(gamma: Tensor) -> Tensor:
    """g, g − 1 and 1/(1+g) of each row, rounded from float64 to float32 [rows, 3]; gamma: float64 [rows]."""
    g = gamma / 2
    return torch.stack([g, g - 1, 1 / (1 + g)], dim=1).float()


@torch.inference_mode()
def start(state: SplitState) -> None:
    """Begin an inner loop: s ← the first input of f, from v⁰ = 0 and u¹ = 0."""
    state.check(START)
    state.s.copy_(_first_input(state))


@torch.inference_mode()
def step(state: SplitState, v: Tensor) -> None:
    """One ADMM iteration, (17), (16) and (14): s ← the next input of f, from v = f(s)."""
    state.check(STEP, v)
    state.s.copy_(next_input(state, v))


@torch.inference_mode()
def close(state: AdmmState, v: Tensor, *, estimate_mask: bool) -> None:
    """End an outer iteration and begin the next one.

    residual ← mean((ξ − x)²) per row, x ← ξ, s ← start. The squares are summed in float64. If `estimate_mask`:
    anchor ← mask where it is to be renewed, mask ← (20) of x, settled and recurs ← whether that is the mask before and
    the anchor. A NaN in x counts as kept, as in (20). Else settled ← True, recurs ← False.
    """
    state.check(CLOSE, v)
    _advance(state, output(state, v))
    running = state.status == RUNNING
    if estimate_mask:
        _replace_mask(state, running)
    else:
        state.settled.masked_fill_(running, True)
        state.recurs.masked_fill_(running, False)
    state.s.copy_(torch.where(running[:, None], _first_input(state), state.s))


@torch.inference_mode()
def advance(state: IterationState, v: Tensor) -> None:
    """One iteration of f alone: residual ← mean((v − x)²) per row, summed in float64; x ← v."""
    state.check(ADVANCE, v)
    _advance(state, v)


@torch.inference_mode()
def mean_squares(a: Tensor, b: Tensor, out: Tensor) -> None:
    """out ← mean((a − b)²) per row, float32 [rows], summed in float64 as in `advance`; a, b: float32 [rows, d]."""
    Pairs(a, b, out).check(MEAN_SQUARES)
    out.copy_(over_pixels(torch.mean, (a - b).double().square()))


@torch.inference_mode()
def stop(state: IterationState, *, tolerance: float, patience: int, limit: int, first_comparison: int) -> None:
    """Count one more estimate, whose MSE to the one before is in `residual`, and say which images are done.

    Comparisons count from estimate number `first_comparison`, 1 or 2, on; before it, `residual` becomes NaN.

    Where the mask has settled, the estimates to come are known to equal this one: those that `patience` still asks for
    are counted, up to `limit`, without being computed, and `residual` becomes their MSE, 0. Where the anchor recurred
    twice after the same number of estimates, and not all of them were below the tolerance, the work would end at
    `limit`: as many whole periods as fit before that are counted without being computed. The anchor is renewed at every
    power of two, as in Brent's search for cycles, and counts as renewed when it recurs.
    """
    state.check(STOP)
    running = state.status == RUNNING
    finite = state.residual.isfinite()
    count = state.iterations + 1
    mse = state.residual.masked_fill(count < first_comparison, torch.nan)
    run = (state.below + 1).masked_fill(~(mse < tolerance), 0)
    known = state.settled & finite & (torch.zeros_like(state.residual) < tolerance)
    ahead = torch.minimum(patience - run, limit - count).masked_fill(~known, 0).clamp(min=0)
    length = (count - state.anchored).clamp(min=1)
    came_back = state.recurs & (state.anchored > 0)
    again = came_back & (length == state.period) & finite & (run < length) & (run < patience) & (ahead == 0)
    left = (limit - count).clamp(min=0)
    skipped = (left - left % length).masked_fill(~again, 0)
    verdict = torch.full_like(state.status, RUNNING)
    verdict.masked_fill_(count + ahead + skipped >= limit, int(Status.MAX_ITERATIONS))
    verdict.masked_fill_(run + ahead >= patience, int(Status.CONVERGED))
    verdict.masked_fill_(~finite, int(Status.DIVERGED))
    power_of_two = (count & (count - 1)) == 0
    state.residual.copy_(torch.where(running, mse.masked_fill(ahead > 0, 0.0), state.residual))
    state.below.copy_(torch.where(running, run + ahead, state.below))
    state.iterations.copy_(torch.where(running, count + ahead + skipped, state.iterations))
    state.blocks.add_(running)
    state.period.copy_(torch.where(running & came_back, length, state.period))
    state.renew.copy_(torch.where(running, power_of_two, state.renew))
    state.anchored.copy_(torch.where(running & (power_of_two | came_back), count, state.anchored))
    state.status.copy_(torch.where(running, verdict, state.status))


def next_input(state: SplitState, v: Tensor) -> Tensor:
    """Θ ? (y + s + (g−1)v)/(1+g) : v, of an ADMM iteration: (17), (16) and (14) in one."""
    _, c, weight = _columns(state)
    return torch.where(state.mask, (state.y + state.s + c * v) * weight, v)


def output(state: SplitState, v: Tensor) -> Tensor:
    """ξ of (17) = Θ ? (y + g(2v − s))/(1+g) : 2v − s, the estimate of the image."""
    g, _, weight = _columns(state)
    w = 2 * v - state.s
    return torch.where(state.mask, (state.y + g * w) * weight, w)


def estimate_mask(x: Tensor, y: Tensor) -> Tensor:
    """The mask estimated from x: (20), and its mirror image where y < 0; a NaN counts as kept."""
    return ~((x > (2 * y).clamp(min=0)) | (x < (2 * y).clamp(max=0)))


def over_pixels(reduce: Callable[..., Tensor], values: Tensor) -> Tensor:
    """A sum or mean over the last axis. Of one row alone torch would give each thread a part: another order."""
    if math.prod(values.shape[:-1]) != 1:
        return reduce(values, dim=-1)
    return reduce(torch.cat([values, values]), dim=-1)[:1]


def _advance(state: IterationState, v: Tensor) -> None:
    running = state.status == RUNNING
    state.residual.copy_(torch.where(running, over_pixels(torch.mean, (v - state.x).double().square()), state.residual))
    state.x.copy_(torch.where(running[:, None], v, state.x))


def _replace_mask(state: AdmmState, running: Tensor) -> None:
    mask, anchor = state.mask, state.anchor
    anchor.copy_(torch.where((running & state.renew)[:, None], mask, anchor))
    kept = torch.where(running[:, None], estimate_mask(state.x, state.y), mask)
    state.settled.copy_(torch.where(running, (kept == mask).all(dim=1), state.settled))
    state.recurs.copy_(torch.where(running, (kept == anchor).all(dim=1), state.recurs))
    mask.copy_(kept)


def _first_input(state: SplitState) -> Tensor:
    _, _, weight = _columns(state)
    return (state.y * weight).masked_fill_(~state.mask, 0.0)


def _columns(state: SplitState) -> tuple[Tensor, Tensor, Tensor]:
    """g, g − 1 and 1/(1+g), each [rows, 1]."""
    g, c, weight = state.coefficients.split(1, dim=1)
    return g, c, weight
