"""The per-pixel mathematics in plain torch: the truth for one step, and the backend "torch".

State of a slot is one row of buffers [rows, d]. With g = γ/2, s what enters the autoencoder f, v = f(s), y the degraded
image and Θ the mask, the inner loop of Algorithm 1 is, after eliminating ξ and u (u = s − v):

    start      s ← Θ ? y/(1+g) : 0
    step       s ← Θ ? (y + s + (g−1)v)/(1+g) : v
    output     ξ = Θ ? (y + g(2v − s))/(1+g) : 2v − s

All functions work in place, allocate nothing that outlives them and never ask the device for an answer. All buffers are
contiguous and on one device:

    s, v, y, x             float32 [rows, d]
    mask                   bool    [rows, d], True = kept
    anchor                 bool    [rows, d]: the mask as it was estimated some time ago
    coefficients           float32 [rows, 3], see `coefficients`: γ may differ from row to row
    residual               float32 [rows]: the MSE between the last two estimates
    settled                bool    [rows]: the mask was estimated as it was before
    recurs                 bool    [rows]: the mask was estimated as the anchor is
    renew                  bool    [rows]: the anchor is to become the present mask before that is estimated again
    iterations, below      int32   [rows]: estimates counted; comparisons running below the tolerance
    blocks                 int32   [rows]: estimates computed
    anchored, period       int32   [rows]: the estimate that the anchor was made by; after how many it last recurred
    status                 int8    [rows]: RUNNING or a `Status`

An outer iteration restarts from zero: what it gives depends on its mask alone. So once a mask has been estimated twice,
all that follows repeats what came in between, and need not be computed.

`close`, `advance` and `judge` leave rows that are not RUNNING as they are. Divisions by 1+g are multiplications by its
rounded reciprocal, products and sums are rounded one by one (no fused multiply-add): the compiled kernels do the same,
bit for bit. No number of Python's goes into `torch.where`: on a GPU that would wait for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from memrecon_fast.results import RUNNING, Status


def coefficients(gamma: Tensor) -> Tensor:
    """g, g − 1 and 1/(1+g) of each row, rounded from float64 to float32 [rows, 3]; gamma: float64 [rows]."""
    g = gamma / 2
    return torch.stack([g, g - 1, 1 / (1 + g)], dim=1).float()


def start(s: Tensor, y: Tensor, mask: Tensor, coefficients: Tensor) -> None:
    """Begin an inner loop: s ← the first input of f, from v⁰ = 0 and u¹ = 0."""
    s.copy_(_first_input(y, mask, coefficients))


def step(s: Tensor, v: Tensor, y: Tensor, mask: Tensor, coefficients: Tensor) -> None:
    """One ADMM iteration, (17), (16) and (14): s ← the next input of f, from v = f(s)."""
    s.copy_(next_input(s, v, y, mask, coefficients))


def close(
    s: Tensor,
    v: Tensor,
    y: Tensor,
    mask: Tensor,
    anchor: Tensor,
    x: Tensor,
    residual: Tensor,
    settled: Tensor,
    recurs: Tensor,
    renew: Tensor,
    status: Tensor,
    coefficients: Tensor,
    estimate_mask: bool,
) -> None:
    """End an outer iteration and begin the next one.

    residual ← mean((ξ − x)²) per row, x ← ξ, s ← start. The squares are summed in float64. If `estimate_mask`:
    anchor ← mask where it is to be renewed, mask ← (20) of x, settled and recurs ← whether that is the mask before and
    the anchor. A NaN in x counts as kept, as in (20). Else settled ← True, recurs ← False.
    """
    advance(x, output(s, v, y, mask, coefficients), residual, status)
    running = status == RUNNING
    if estimate_mask:
        anchor.copy_(torch.where((running & renew)[:, None], mask, anchor))
        kept = torch.where(running[:, None], kept_entries(x, y), mask)
        settled.copy_(torch.where(running, (kept == mask).all(dim=1), settled))
        recurs.copy_(torch.where(running, (kept == anchor).all(dim=1), recurs))
        mask.copy_(kept)
    else:
        settled.masked_fill_(running, True)
        recurs.masked_fill_(running, False)
    s.copy_(torch.where(running[:, None], _first_input(y, mask, coefficients), s))


def advance(x: Tensor, v: Tensor, residual: Tensor, status: Tensor) -> None:
    """One iteration of f alone: residual ← mean((v − x)²) per row, summed in float64; x ← v."""
    running = status == RUNNING
    residual.copy_(torch.where(running, (v - x).double().square().mean(dim=1), residual))
    x.copy_(torch.where(running[:, None], v, x))


def judge(
    residual: Tensor,
    settled: Tensor,
    recurs: Tensor,
    renew: Tensor,
    iterations: Tensor,
    blocks: Tensor,
    below: Tensor,
    anchored: Tensor,
    period: Tensor,
    status: Tensor,
    tolerance: float,
    patience: int,
    limit: int,
    first_comparison: int,
) -> None:
    """Count one more estimate, whose MSE to the one before is in `residual`, and say which images are done.

    Comparisons count from estimate number `first_comparison`, 1 or 2, on; before it, `residual` becomes NaN.

    Where the mask has settled, the estimates to come are known to equal this one: those that `patience` still asks for
    are counted, up to `limit`, without being computed, and `residual` becomes their MSE, 0. Where the anchor recurred
    twice after the same number of estimates, and not all of them were below the tolerance, the work would end at
    `limit`: as many whole periods as fit before that are counted without being computed. The anchor is renewed at every
    power of two, as in Brent's search for cycles, and counts as renewed when it recurs.
    """
    running = status == RUNNING
    finite = residual.isfinite()
    count = iterations + 1
    mse = residual.masked_fill(count < first_comparison, torch.nan)
    run = (below + 1).masked_fill(~(mse < tolerance), 0)
    known = settled & finite & (torch.zeros_like(residual) < tolerance)
    ahead = torch.minimum(patience - run, limit - count).masked_fill(~known, 0).clamp(min=0)
    length = (count - anchored).clamp(min=1)
    came_back = recurs & (anchored > 0)
    again = came_back & (length == period) & finite & (run < length) & (run < patience) & (ahead == 0)
    left = (limit - count).clamp(min=0)
    skipped = (left - left % length).masked_fill(~again, 0)
    verdict = torch.full_like(status, RUNNING)
    verdict.masked_fill_(count + ahead + skipped >= limit, int(Status.MAX_ITERATIONS))
    verdict.masked_fill_(run + ahead >= patience, int(Status.CONVERGED))
    verdict.masked_fill_(~finite, int(Status.DIVERGED))
    power_of_two = (count & (count - 1)) == 0
    residual.copy_(torch.where(running, mse.masked_fill(ahead > 0, 0.0), residual))
    below.copy_(torch.where(running, run + ahead, below))
    iterations.copy_(torch.where(running, count + ahead + skipped, iterations))
    blocks.add_(running)
    period.copy_(torch.where(running & came_back, length, period))
    renew.copy_(torch.where(running, power_of_two, renew))
    anchored.copy_(torch.where(running & (power_of_two | came_back), count, anchored))
    status.copy_(torch.where(running, verdict, status))


def next_input(s: Tensor, v: Tensor, y: Tensor, mask: Tensor, coefficients: Tensor) -> Tensor:
    """Θ ? (y + s + (g−1)v)/(1+g) : v, of an ADMM iteration."""
    _, c, weight = _columns(coefficients)
    return torch.where(mask, (y + s + c * v) * weight, v)


def output(s: Tensor, v: Tensor, y: Tensor, mask: Tensor, coefficients: Tensor) -> Tensor:
    """ξ = Θ ? (y + g(2v − s))/(1+g) : 2v − s, the estimate of the image."""
    g, _, weight = _columns(coefficients)
    w = 2 * v - s
    return torch.where(mask, (y + g * w) * weight, w)


def kept_entries(x: Tensor, y: Tensor) -> Tensor:
    """The mask estimated from x: (20), and its mirror image where y < 0; a NaN counts as kept."""
    return ~((x > (2 * y).clamp(min=0)) | (x < (2 * y).clamp(max=0)))


def _first_input(y: Tensor, mask: Tensor, coefficients: Tensor) -> Tensor:
    _, _, weight = _columns(coefficients)
    return (y * weight).masked_fill_(~mask, 0.0)


def _columns(coefficients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """g, g − 1 and 1/(1+g), each [rows, 1]."""
    g, c, weight = coefficients.split(1, dim=1)
    return g, c, weight
