"""Limit cycles: starts that do not come to rest, but come back after p applications of the autoencoder. f^p(x) = x."""

from __future__ import annotations

import dataclasses
import enum
import functools

import torch
from torch import Tensor

from memrecon_fast.attractors.checks import check_starts, warn_if_changed
from memrecon_fast.attractors.flight import rows_at_once
from memrecon_fast.attractors.iterating import iterate_from
from memrecon_fast.attractors.jacobian import Jacobian, make_jacobian
from memrecon_fast.attractors.spectra import spectra_of
from memrecon_fast.attractors.stability import MARGIN
from memrecon_fast.common.checks import check_integer
from memrecon_fast.common.text import counted
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.prox import Prox, device_of
from memrecon_fast.engine.transfer import working_on
from memrecon_fast.results import Status
from memrecon_fast.settings import MAX_ITERATIONS

LONGEST = 64
SETTLED = 1e-12
"""‖f(x) − x‖²/d below this is rest."""
FAR_BELOW = 1e-4
"""A cycle closes to this share, as MSE, of what its images are apart. What spirals into a fixed
point comes back as nearly, if slowly enough: so what is left, over |1 − λ| of each eigenvalue λ of a round, must be no
more than that either. It is about how far the cycle is, if there is one."""
_NO_GAP = 1e-4
"""To this float32 tells an eigenvalue from 1."""
_EIGENVALUES = 6
_TOLERANCE = 1e-4
"""Of their residuals."""


class Motion(enum.IntEnum):
    """What iteration from a start comes to."""

    SETTLED = 0
    """It comes to rest: successive iterates have an MSE below 1e-12."""
    CYCLE = 1
    """It goes round a cycle that was verified."""
    MOVING = 2
    """It moves, and no cycle was verified: it comes to rest slowly, drifts, has a longer cycle, or no order."""
    DIVERGED = 3
    """NaN, infinite, or so large that its mean square is."""


@dataclasses.dataclass(frozen=True, repr=False)
class Cycles:
    """What B starts come to; all tensors are on the CPU. What is said of cycles is 0 or NaN where there is none."""

    motion: Tensor
    """int8 (B,) of `Motion`."""
    period: Tensor
    """int32 (B,): p, the least for which f^p(x) = x: 2 or more."""
    images: Tensor
    """float32 (B, *image_shape): an image of the cycle, or where iteration came to."""
    residual_mse: Tensor
    """float32 (B,): ‖f^p(x) − x‖²/d."""
    apart_mse: Tensor
    """float32 (B,): the least MSE of an image of the cycle to the next one, and of x to the others: far above the
    residual, so that p is the least period."""
    radius: Tensor
    """float32 (B,): ρ, the largest modulus of an eigenvalue of the product of the Jacobians round the cycle."""

    @property
    def stable(self) -> Tensor:
        """bool (B,): a cycle with ρ < 0.99: what is near comes to it."""
        return self.radius <= 1 - MARGIN

    @property
    def marginal(self) -> Tensor:
        """bool (B,): a cycle with |ρ − 1| < 0.01: whether what is near comes to it, float32 does not tell."""
        return (self.radius - 1).abs() < MARGIN

    def __repr__(self) -> str:
        periods, counts = self.period[self.motion == int(Motion.CYCLE)].unique(return_counts=True)
        found = [f"{count} of period {p}" for p, count in zip(periods.tolist(), counts.tolist(), strict=True)]
        ended = {one: int((self.motion == int(one)).sum()) for one in Motion}
        return (
            f"Cycles of {counted(len(self.motion), 'start')}\n"
            f"  on cycles: {ended[Motion.CYCLE]}{' (' + ', '.join(found) + ')' if found else ''}; "
            f"stable: {int(self.stable.sum())}, marginal: {int(self.marginal.sum())}\n"
            f"  came to rest: {ended[Motion.SETTLED]}; still moving: {ended[Motion.MOVING]}; "
            f"diverged: {ended[Motion.DIVERGED]}"
        )


def cycles(
    autoencoder: Autoencoder,
    starts: Tensor,
    *,
    longest: int = LONGEST,
    max_iterations: int = 1000,
    rows: int | None = None,
) -> Cycles:
    """Which starts come to a limit cycle of x ← f(x), with which period, and is it stable?

    What does not come to rest within `max_iterations` is compared with a stored iterate, which is renewed at powers of
    two (Brent). A cycle counts once it is verified: it closes to far less than its images are apart, and no shorter one
    does. A cycle that draws iterates in slowly may need more iterations before it does.

    autoencoder: any differentiable callable (B, *image_shape) → (B, *image_shape), float32; an nn.Module in eval mode.
    starts: float32 (B, *image_shape), of any finite range, at least one. longest: the longest period, 2 to 1024.
    rows: starts that are worked on at a time, by default what suits memory.

    Raises TypeError or ValueError before work starts, as `spectra`.
    """
    shape = tuple(starts.shape[1:]) if isinstance(starts, Tensor) else ()
    check_starts("starts", starts, shape)
    check_integer("longest", longest, low=2, high=1024)
    check_integer("max_iterations", max_iterations, low=1, high=MAX_ITERATIONS)
    jacobian = make_jacobian(autoencoder, shape, device_of(autoencoder, default=starts.device))
    found = cycles_of(jacobian, starts.detach().cpu(), longest, max_iterations, rows)
    warn_if_changed(jacobian.prox)
    return found


def cycles_of(jacobian: Jacobian, starts: Tensor, longest: int, max_iterations: int, rows: int | None = None) -> Cycles:
    """As `cycles`. What comes of a start does not depend on the others, but for the last digits of ρ."""
    prox = jacobian.prox
    ends = iterate_from(prox, starts, max_iterations, SETTLED, rows)
    motion = torch.full((len(starts),), int(Motion.MOVING), dtype=torch.int8, device="cpu")
    motion[ends.status == int(Status.CONVERGED)] = int(Motion.SETTLED)
    motion[ends.status == int(Status.DIVERGED)] = int(Motion.DIVERGED)
    period = torch.zeros(len(starts), dtype=torch.int32, device="cpu")
    unknown = torch.full((len(starts),), torch.nan, dtype=torch.float32, device="cpu")
    found = Cycles(motion, period, ends.images, unknown, unknown.clone(), unknown.clone())
    moving = (motion == int(Motion.MOVING)).nonzero().flatten()
    if len(moving):
        candidates, places = _candidates(prox, found.images[moving], longest, rows)
        found.images[moving] = places
        found.motion[moving[~places.flatten(1).isfinite().all(dim=1)]] = int(Motion.DIVERGED)
        for p in candidates[candidates > 0].unique().tolist():
            _verify(found, jacobian, moving[candidates == p], p, rows)
    return found


def _candidates(prox: Prox, images: Tensor, longest: int, rows: int | None) -> tuple[Tensor, Tensor]:
    """After how many applications of f each image first comes back to a stored one, nearly: int32 (n,), 0 for not
    within `longest`; and the image that came back, or where iteration was then.

    The stored image is renewed after 1, 2, 4, … steps, until one was stored for `longest` steps. Nothing waits for the
    device in between.
    """
    periods, places = torch.zeros(len(images), dtype=torch.int32, device="cpu"), images.clone()
    with working_on(prox.device):
        for some in torch.arange(len(images), device="cpu").split(rows_at_once(prox, rows)):
            x = prox.to_rows(images[some].to(prox.device))
            period = torch.zeros(len(x), dtype=torch.int32, device=x.device)
            place = x
            window = 1
            while True:
                stored, least_step = x, torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
                for lag in range(1, min(window, longest) + 1):
                    before, x = x, prox(x)
                    least_step = torch.minimum(least_step, _mse(x, before))
                    back = (_mse(x, stored) < FAR_BELOW * least_step) & (period == 0)
                    period.masked_fill_(back, lag)
                    place = torch.where(back[:, None], x, place)
                if window >= longest:
                    break
                window *= 2
            place = torch.where((period == 0)[:, None], x, place)
            periods[some], places[some] = period.cpu(), prox.to_images(place).cpu()
    return periods, places


def _verify(found: Cycles, jacobian: Jacobian, at: Tensor, period: int, rows: int | None) -> None:
    """Enter those of these starts whose images are on a cycle of this period."""
    prox = jacobian.prox
    at_once = max(1, rows_at_once(prox, rows) // period)
    with working_on(prox.device):
        for some in at.split(at_once):
            x = first = prox.to_rows(found.images[some].to(prox.device))
            apart = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
            for step in range(1, period + 1):
                before, x = x, prox(x)
                apart = torch.minimum(apart, _mse(x, before))
                if step < period:
                    apart = torch.minimum(apart, _mse(x, first))
            found.residual_mse[some], found.apart_mse[some] = _mse(x, first).float().cpu(), apart.float().cpu()
    closes = found.residual_mse[at] < FAR_BELOW * found.apart_mse[at]
    spectra = spectra_of(
        jacobian,
        functools.partial(_Round, jacobian, period),
        prox.pixels,
        found.images[at],
        _EIGENVALUES,
        _TOLERANCE,
        at_once,
    )
    gap = (1 - spectra.values).abs().nan_to_num(nan=torch.inf).amin(dim=1).clamp(min=_NO_GAP)
    verified = closes & (spectra.found > 0) & (found.residual_mse[at] < FAR_BELOW * gap**2 * found.apart_mse[at])
    found.motion[at[verified]] = int(Motion.CYCLE)
    found.period[at[verified]] = period
    found.radius[at] = spectra.radius
    for column in (found.residual_mse, found.apart_mse, found.radius):
        column[at[~verified]] = torch.nan


class _Round:
    """The product of the Jacobians round a cycle, J(x_p−1) ⋯ J(x_0), from rows x_0 [n, d]."""

    def __init__(self, jacobian: Jacobian, period: int, rows: Tensor) -> None:
        self._steps = []
        for _ in range(period):
            self._steps.append(jacobian.at(rows))
            rows = self._steps[-1].value

    def times(self, v: Tensor) -> Tensor:
        for step in self._steps:
            v = step.times(v)
        return v

    def transposed(self, v: Tensor) -> Tensor:
        for step in reversed(self._steps):
            v = step.transposed(v)
        return v


def _mse(a: Tensor, b: Tensor) -> Tensor:
    """float64 [n], of rows."""
    return (a - b).double().square().mean(dim=1)
