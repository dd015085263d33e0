"""The recovery of Abitbul & Dar (arXiv 2310.02897), literally, in plain torch: the oracle of every test and benchmark.

Slow and readable. Equation numbers are the paper's; γ/2 is written out, k and t count as in Algorithm 1 and (6)-(7).
The accelerated solver is this project's own, in the same variables.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.results import Recovery, Status
from memrecon_fast.settings import PROGRESS, SETTLED, Settings

RIDGE = 1e-8
"""Of the accelerated solver's least squares, relative to the trace of the Gram matrix."""


def admm(autoencoder: Autoencoder, y: Tensor, theta: Tensor, gamma: float, iterations: int) -> Tensor:
    """Algorithm 1: solve (6) for the mask `theta`; returns ξ after `iterations` iterations, of the shape of `y`."""
    v = torch.zeros_like(y)
    u = torch.zeros_like(y)
    xi = torch.zeros_like(y)
    for _ in range(iterations):
        v_tilde = v - u
        xi = torch.where(theta, (y + gamma / 2 * v_tilde) / (1 + gamma / 2), v_tilde)  # (17)
        v = autoencoder(xi + u)  # (16)
        u = u + (xi - v)  # (14)
    return xi


def estimate_mask(x: Tensor, y: Tensor) -> Tensor:
    """The minimiser of (19) for the estimate `x`: (20) where y ≥ 0, its mirror image where noise made y < 0."""
    return torch.where(y >= 0, ~((x > 2 * y) | (x < 0)), ~((x < 2 * y) | (x > 0)))


def recover(
    autoencoder: Autoencoder, degraded: Tensor, mask: Tensor | None = None, settings: Settings | None = None
) -> Recovery:
    """Recover images from `degraded`, float32 (B, *image_shape); blind where `mask` is None, else with that mask.

    Same result as `memrecon_fast.recover` up to rounding. `evaluations` counts the 40 applications of f of the literal
    form in every outer iteration of "paper".
    """
    settings = settings or Settings()
    known = None if mask is None else mask.expand_as(degraded)
    starts = settings.starts if known is None else 1
    with torch.inference_mode(), torch.autocast(degraded.device.type, enabled=False):
        best: Recovery | None = None
        for start in range(starts):
            for gamma in settings.gammas:
                again = torch.arange(len(degraded), device=degraded.device)
                if best is not None:
                    again = again[~(best.score < settings.recognized_below)]
                now = _attempt(autoencoder, degraded, known, settings, gamma, start, again.tolist())
                best = now if best is None else _better(best, now, again)
    assert best is not None
    return best


def _attempt(
    autoencoder: Autoencoder,
    y: Tensor,
    known: Tensor | None,
    settings: Settings,
    gamma: float,
    start: int,
    indices: list[int],
) -> Recovery:
    """The images with these indices, with one γ and one initial mask."""
    if known is None:
        shape = y.shape[1:]
        masks = [settings.draw_initial_mask(i, shape, start).to(y.device) for i in indices]
        theta = torch.stack(masks) if masks else torch.zeros_like(y[:0], dtype=torch.bool)
    else:
        theta = known[indices]
    y = y[indices]
    columns: dict[str, Any]
    if settings.solver == "accelerated":
        columns = _recover_accelerated(autoencoder, y, theta, known is not None, gamma, settings)
    elif known is None:
        columns = _recover_blind(autoencoder, y, theta, gamma, settings)
    else:
        columns = _recover_known(autoencoder, y, theta, gamma, settings)
    x, theta = columns["images"], columns["masks"]
    observed = y if known is None else torch.where(theta, y, 0)
    fixed_point_mse = _mse(autoencoder(x), x) if len(x) else torch.zeros(0, device=y.device)
    misfit, energy = _mse(torch.where(theta, x, 0), observed), _mse(observed, torch.zeros_like(observed))
    zeros = torch.zeros(len(y), dtype=torch.int32, device=y.device)
    counters = {name: columns.pop(name, zeros.clone()) for name in ("accepted", "rejected", "mask_changes")}
    return Recovery(
        **columns,
        **counters,
        fixed_point_mse=fixed_point_mse,
        misfit=misfit,
        explained=torch.where(energy > 0, 1 - misfit / energy, 0),
        gamma=torch.full((len(y),), gamma, dtype=torch.float64, device=y.device),
        attempts=zeros + 1,
        backend="reference",
    )


def _better(before: Recovery, now: Recovery, again: Tensor) -> Recovery:
    """Of each image the estimate with the lower score; `now` has those with the indices `again`."""
    columns: dict[str, Any] = {name: value for name, value in vars(before).items() if isinstance(value, Tensor)}
    spent = columns["evaluations"][again] + now.evaluations
    attempts = columns["attempts"][again] + 1
    score = before.score[again]
    chosen = (now.score < score) | score.isnan()
    for name, value in columns.items():
        columns[name] = value.index_copy(0, again[chosen], getattr(now, name)[chosen])
    columns["evaluations"] = columns["evaluations"].index_copy(0, again, spent)
    columns["attempts"] = columns["attempts"].index_copy(0, again, attempts)
    return Recovery(**columns, backend="reference")


def _recover_known(
    autoencoder: Autoencoder, y: Tensor, mask: Tensor, gamma: float, settings: Settings
) -> dict[str, Any]:
    """Appendix E: one inner loop with Θ = H, then (31)."""
    x = admm(autoencoder, y, mask, gamma, settings.inner_iterations)
    diverged = ~_mse(x, torch.zeros_like(x)).isfinite()
    if settings.restore_known_pixels:
        x = torch.where(mask, y, x)  # (31)
    count = torch.ones(len(y), dtype=torch.int32, device=y.device)
    return {
        "images": x,
        "masks": mask.clone(),
        "outer_iterations": count,
        "evaluations": count * settings.inner_iterations,
        "status": torch.where(diverged, int(Status.DIVERGED), int(Status.MAX_ITERATIONS)).to(torch.int8),
        "residual": torch.full((len(y),), torch.nan, device=y.device),
    }


def _recover_blind(
    autoencoder: Autoencoder, y: Tensor, masks: Tensor, gamma: float, settings: Settings
) -> dict[str, Any]:
    """(6)-(7): alternate between the image and the mask; every image stops by itself."""
    x = torch.zeros_like(y)
    residual = torch.full((len(y),), torch.nan, device=y.device)
    outer = torch.zeros(len(y), dtype=torch.int32, device=y.device)
    below = torch.zeros_like(outer)
    status = torch.full((len(y),), int(Status.MAX_ITERATIONS), dtype=torch.int8, device=y.device)
    running = torch.arange(len(y), device=y.device)
    for t in range(1, settings.max_outer_iterations + 1):
        if not len(running):
            break
        estimate = admm(autoencoder, y[running], masks[running], gamma, settings.inner_iterations)  # (6)
        masks[running] = estimate_mask(estimate, y[running])  # (7)
        mse = _mse(estimate, x[running])
        x[running] = estimate
        outer[running] = t
        if t > 1:
            residual[running] = mse
            below[running] = torch.where(mse < settings.stop_below, below[running] + 1, 0)
        status[running[~mse.isfinite()]] = int(Status.DIVERGED)
        status[running[below[running] >= settings.comparisons]] = int(Status.CONVERGED)
        running = running[mse.isfinite() & (below[running] < settings.comparisons)]
    return {
        "images": x,
        "masks": masks,
        "outer_iterations": outer,
        "evaluations": outer * settings.inner_iterations,
        "status": status,
        "residual": residual,
    }


def _recover_accelerated(
    autoencoder: Autoencoder, y: Tensor, masks: Tensor, known: bool, gamma: float, settings: Settings
) -> dict[str, Any]:
    """The accelerated solver, image by image."""
    columns: dict[str, list[Tensor]] = {}
    for image, mask in zip(y, masks, strict=True):
        for name, value in _accelerate(autoencoder, image, mask, known, gamma, settings).items():
            columns.setdefault(name, []).append(torch.as_tensor(value, device=y.device))
    kinds = {"images": torch.float32, "masks": torch.bool, "status": torch.int8, "residual": torch.float32}
    return {name: torch.stack(values).to(kinds.get(name, torch.int32)) for name, values in columns.items()}


def _accelerate(
    autoencoder: Autoencoder, y: Tensor, theta: Tensor, known: bool, gamma: float, settings: Settings
) -> dict[str, Tensor | int | float]:
    """ADMM that keeps its state when the mask is estimated again, with Anderson acceleration on s = ξ + u."""
    g = gamma / 2
    s = torch.where(theta, y / (1 + g), 0)  # v⁰ = 0, u¹ = 0
    x = torch.zeros_like(y)
    best, best_mask, best_score = x, theta, torch.inf
    history: list[tuple[Tensor, Tensor]] = []  # G(s) and G(s) − s of the last evaluations, the oldest first
    extrapolated = False
    held = settings.settle if known else 0
    below = accepted = rejected = mask_changes = stalled = 0
    mse, milestone = torch.nan, torch.inf
    status = None
    for t in range(1, settings.max_outer_iterations + 1):
        for k in range(1, settings.mask_period + 1):
            v = autoencoder(s[None])[0]  # (16)
            u = s - v  # (14)
            xi = torch.where(theta, (y + g * (v - u)) / (1 + g), v - u)  # (17)
            step = xi + u
            residual = step - s
            if k == settings.mask_period:  # estimate the image and the mask
                mse, x = float(_mean(xi - x).float()), xi
                estimate = theta if known else estimate_mask(x, y)
                data = torch.where(estimate, y - x, 0 if known else y)
                score = float((_mean(v - x) + _mean(data)).float())
                if score < best_score:
                    best, best_mask, best_score = x, estimate, score
                progress = score < PROGRESS * milestone
                counts = settings.settled_counts if t > 1 and mse < SETTLED * score else 1
                milestone, stalled = (score, 0) if progress else (milestone, stalled + counts)
                changed = bool((estimate != theta).any())
                theta = estimate
                passed = t > 1 and mse < settings.stop_below and _mean(residual) < settings.stop_below
                below = below + 1 if passed else 0
                held = 0 if changed else held + 1
                mask_changes += changed
                if changed:
                    history, extrapolated = [], False
                if not math.isfinite(mse):
                    status = Status.DIVERGED
                elif below >= settings.comparisons:
                    status = Status.CONVERGED
                elif t == settings.max_outer_iterations:
                    status = Status.MAX_ITERATIONS
                elif stalled >= settings.stall:
                    status = Status.STALLED
                if status is not None:
                    break
            if extrapolated and not _mean(residual) <= _mean(history[-1][1]):  # worse: back to the plain step
                rejected += 1
                s, history, extrapolated = history[-1][0], [], False
                continue
            accepted += extrapolated
            remembered = settings.memory if held >= settings.settle else 0
            history = [*history, (step, residual)][-(remembered + 1) :]
            combined = _anderson(history) if remembered else None
            extrapolated = combined is not None
            s = step if combined is None else combined
        if status is not None:
            break
    assert status is not None
    if status != Status.CONVERGED:
        x, theta = best, best_mask
    if settings.restore_known_pixels:
        x = torch.where(theta, y, x)  # (31)
    return {
        "images": x,
        "masks": theta,
        "outer_iterations": t,
        "evaluations": t * settings.mask_period,
        "status": int(status),
        "residual": mse if t > 1 else torch.nan,
        "accepted": accepted,
        "rejected": rejected,
        "mask_changes": mask_changes,
    }


def _anderson(history: list[tuple[Tensor, Tensor]]) -> Tensor | None:
    """The combination of the steps whose residual would be smallest if G were affine (type II); None where singular."""
    if len(history) < 2:
        return None
    steps = torch.stack([step.flatten() for step, _ in history]).double()
    residuals = torch.stack([residual.flatten() for _, residual in history]).double()
    differences = residuals.diff(dim=0)
    gram = differences @ differences.T
    gram += RIDGE * gram.trace() * torch.eye(len(gram), device=gram.device)
    factor, info = torch.linalg.cholesky_ex(gram)
    if info != 0:
        return None
    alpha = torch.cholesky_solve((differences @ residuals[-1])[:, None], factor)[:, 0]
    combined = steps[-1] - alpha @ steps.diff(dim=0)
    return combined.float().view_as(history[-1][0]) if alpha.isfinite().all() else None


def _mean(difference: Tensor) -> Tensor:
    return difference.double().square().mean()


def _mse(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).double().square().flatten(1).mean(dim=1).float()
