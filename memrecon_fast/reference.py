"""The recovery of Abitbul & Dar (arXiv 2310.02897), literally, in plain torch: the oracle of every test and benchmark.

Slow and readable. Equation numbers are the paper's; γ/2 is written out, k and t count as in Algorithm 1 and (6)-(7).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from memrecon_fast.settings import Recovery, Settings, Status

Autoencoder = Callable[[Tensor], Tensor]


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
    form in every outer iteration.
    """
    settings = settings or Settings()
    with torch.inference_mode():
        if mask is not None:
            return _recover_known(autoencoder, degraded, mask.expand_as(degraded), settings)
        return _recover_blind(autoencoder, degraded, settings)


def _recover_known(autoencoder: Autoencoder, y: Tensor, mask: Tensor, settings: Settings) -> Recovery:
    """Appendix E: one inner loop with Θ = H, then (31)."""
    x = admm(autoencoder, y, mask, settings.gamma, settings.inner_iterations)
    diverged = ~_mse(x, torch.zeros_like(x)).isfinite()
    if settings.restore_known_pixels:
        x = torch.where(mask, y, x)  # (31)
    count = torch.ones(len(y), dtype=torch.int32, device=y.device)
    return Recovery(
        images=x,
        masks=mask.clone(),
        outer_iterations=count,
        evaluations=count * settings.inner_iterations,
        status=torch.where(diverged, int(Status.DIVERGED), int(Status.MAX_ITERATIONS)).to(torch.int8),
        residual=torch.full((len(y),), torch.nan, device=y.device),
        backend="reference",
    )


def _recover_blind(autoencoder: Autoencoder, y: Tensor, settings: Settings) -> Recovery:
    """(6)-(7): alternate between the image and the mask; every image stops by itself."""
    shape = y.shape[1:]
    x = torch.zeros_like(y)
    masks = torch.empty_like(y, dtype=torch.bool)
    for index in range(len(y)):
        masks[index] = settings.draw_initial_mask(index, shape)
    residual = torch.full((len(y),), torch.nan, device=y.device)
    outer = torch.zeros(len(y), dtype=torch.int32, device=y.device)
    below = torch.zeros_like(outer)
    status = torch.full((len(y),), int(Status.MAX_ITERATIONS), dtype=torch.int8, device=y.device)
    running = torch.arange(len(y), device=y.device)
    for t in range(1, settings.max_outer_iterations + 1):
        if not len(running):
            break
        estimate = admm(autoencoder, y[running], masks[running], settings.gamma, settings.inner_iterations)  # (6)
        masks[running] = estimate_mask(estimate, y[running])  # (7)
        mse = _mse(estimate, x[running])
        x[running] = estimate
        outer[running] = t
        if t > 1:
            residual[running] = mse
            below[running] = torch.where(mse < settings.tolerance, below[running] + 1, 0)
        status[running[~mse.isfinite()]] = int(Status.DIVERGED)
        status[running[below[running] >= settings.patience]] = int(Status.CONVERGED)
        running = running[mse.isfinite() & (below[running] < settings.patience)]
    return Recovery(
        images=x,
        masks=masks,
        outer_iterations=outer,
        evaluations=outer * settings.inner_iterations,
        status=status,
        residual=residual,
        backend="reference",
    )


def _mse(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).double().square().flatten(1).mean(dim=1).float()
