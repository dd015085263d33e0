"""The fixed point of the autoencoder near an image: f(x*) = x*."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from memrecon_fast.attractors.checks import check_images, warn_if_changed
from memrecon_fast.attractors.flight import rows_at_once
from memrecon_fast.attractors.iterating import Reached, extrapolate_from, iterate_from
from memrecon_fast.attractors.jacobian import Jacobian, make_jacobian
from memrecon_fast.attractors.krylov import solve
from memrecon_fast.common.checks import check_number
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.prox import Prox, device_of
from memrecon_fast.engine.transfer import working_on
from memrecon_fast.metrics import APPROXIMATE_MSE
from memrecon_fast.results import Status

FIXED = 1e-9
"""‖f(x) − x‖²/d of a fixed point is below this ..."""
_AIM = 1e-2
"""... and so many times that is aimed at: about what float32 leaves in deep nets. Between the two are kinks, where
piecewise linear nets have points that hardly move, and no fixed point."""
ITERATIONS = 100
ANDERSON_EVALUATIONS = 60
NEWTON_STEPS = 8
NEWTON_PRODUCTS = 24
"""Products with J for a Newton step."""
_HALVINGS = 4


@dataclasses.dataclass(frozen=True, repr=False)
class FixedPoints:
    """What is near each of B images; all tensors are on the CPU."""

    images: Tensor
    """float32 (B, *image_shape): the fixed point, or what came closest to one."""
    distance_mse: Tensor
    """float32 (B,): ‖x* − x‖²/d, from the image."""
    residual_mse: Tensor
    """float32 (B,): ‖f(x*) − x*‖²/d."""
    iterations: Tensor
    """int32 (B,): applications of f, and products with its Jacobian, that were made."""
    status: Tensor
    """int8 (B,) of `Status`: CONVERGED where the residual is below the tolerance, DIVERGED where x* is not finite,
    otherwise MAX_ITERATIONS."""

    @property
    def near(self) -> Tensor:
        """bool (B,): it is a fixed point, within `metrics.APPROXIMATE_MSE` of the image."""
        return (self.status == int(Status.CONVERGED)) & (self.distance_mse < APPROXIMATE_MSE)

    def __repr__(self) -> str:
        found = self.status == int(Status.CONVERGED)
        return (
            f"FixedPoints of {len(self.status)} images\n"
            f"  found: {int(found.sum())}, of them near their image (MSE below {APPROXIMATE_MSE:g}): "
            f"{int(self.near.sum())}\n"
            f"  applications of f and products: {self.iterations.double().mean():.3g} an image"
        )


def fixed_points(
    autoencoder: Autoencoder, images: Tensor, tolerance: float = FIXED, *, rows: int | None = None
) -> FixedPoints:
    """The fixed point near each image: by iteration, where that stays near; else by Anderson acceleration; else by
    Newton's method, with GMRES on I − J. The last two come to fixed points that iteration leaves, too.

    autoencoder: any differentiable callable (B, *image_shape) → (B, *image_shape), float32; an nn.Module in eval mode.
    images: float32 (B, *image_shape). tolerance: of ‖f(x) − x‖²/d, above 0; a hundredth of it is aimed at. rows: images
    that are worked on at a time, by default what suits memory.

    Raises TypeError or ValueError before work starts, as `spectra`.
    """
    check_images("images", images)
    check_number("tolerance", tolerance, low=0, low_is_allowed=False)
    jacobian = make_jacobian(autoencoder, images.shape[1:], device_of(autoencoder, default=images.device))
    found = fixed_points_of(jacobian, images, tolerance, rows)
    warn_if_changed(jacobian.prox)
    return found


def fixed_points_of(jacobian: Jacobian, images: Tensor, tolerance: float, rows: int | None = None) -> FixedPoints:
    """As `fixed_points`."""
    prox, images = jacobian.prox, images.cpu()
    best = _measured(prox, images, images, tolerance)
    aim = _AIM * tolerance
    for find in (_iterated, _extrapolated, _newton):
        left = (~(best.near & (best.residual_mse < aim))).nonzero().flatten()
        if len(left):
            ends = find(jacobian, images[left], aim, rows)
            better = _measured(prox, images[left], ends.images, tolerance)
            best = _with(best, left, better, ends.evaluations)
    return best


def _iterated(jacobian: Jacobian, images: Tensor, tolerance: float, rows: int | None) -> Reached:
    return iterate_from(jacobian.prox, images, ITERATIONS, tolerance, rows)


def _extrapolated(jacobian: Jacobian, images: Tensor, tolerance: float, rows: int | None) -> Reached:
    return extrapolate_from(jacobian.prox, images, ANDERSON_EVALUATIONS, tolerance, rows)


def _newton(jacobian: Jacobian, images: Tensor, tolerance: float, rows: int | None) -> Reached:
    prox = jacobian.prox
    found, evaluations = images.clone(), torch.zeros(len(images), dtype=torch.int32, device="cpu")
    with working_on(prox.device):
        for some in torch.arange(len(images), device="cpu").split(rows_at_once(prox, rows)):
            x, made = _newton_rows(jacobian, prox.to_rows(images[some].to(prox.device)), tolerance)
            found[some], evaluations[some] = prox.to_images(x).cpu(), made.cpu()
    return Reached(found, evaluations, torch.zeros(len(images), dtype=torch.int8, device="cpu"))


def _newton_rows(jacobian: Jacobian, x: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Newton's method on f(x) − x = 0 from rows [n, d]; a step is halved until the residual falls. Also int32 [n]
    applications and products."""
    prox, x = jacobian.prox, x.clone()
    made = torch.zeros(len(x), dtype=torch.int32, device=x.device)
    left = torch.arange(len(x), device=x.device)
    for _ in range(NEWTON_STEPS):
        here = jacobian.at(x[left])
        residual = here.value - x[left]
        size = residual.square().mean(dim=1)
        step = solve(here, residual, min(NEWTON_PRODUCTS, prox.pixels))
        made[left] += NEWTON_PRODUCTS + 1
        fell = torch.zeros_like(size, dtype=torch.bool)
        for halving in range(_HALVINGS):
            there = x[left] + 0.5**halving * step
            smaller = ((prox(there) - there).square().mean(dim=1) < size) & ~fell
            x[left[smaller]] = there[smaller]
            fell |= smaller
            made[left] += 1
        done = (prox(x[left]) - x[left]).square().mean(dim=1) < tolerance
        left = left[fell & ~done]
        if not len(left):
            break
    return x, made


def _measured(prox: Prox, images: Tensor, ends: Tensor, tolerance: float) -> FixedPoints:
    """These ends, as what was found near the images; one application of f to each."""
    distance = torch.zeros(len(images), dtype=torch.float32, device="cpu")
    residual = torch.zeros_like(distance)
    with working_on(prox.device):
        for some in torch.arange(len(images), device="cpu").split(rows_at_once(prox)):
            x = prox.to_rows(ends[some].to(prox.device))
            distance[some] = (
                (x - prox.to_rows(images[some].to(prox.device))).double().square().mean(dim=1).float().cpu()
            )
            residual[some] = (prox(x) - x).double().square().mean(dim=1).float().cpu()
    status = torch.full((len(images),), int(Status.MAX_ITERATIONS), dtype=torch.int8, device="cpu")
    status[residual < tolerance] = int(Status.CONVERGED)
    status[~distance.isfinite()] = int(Status.DIVERGED)
    ones = torch.ones(len(images), dtype=torch.int32, device="cpu")
    return FixedPoints(ends.clone(), distance, residual, ones, status)


def _with(best: FixedPoints, at: Tensor, other: FixedPoints, evaluations: Tensor) -> FixedPoints:
    """The better of two, for these images: a fixed point near the image, else any fixed point, else what has the
    smaller residual."""

    def rank(one: FixedPoints) -> Tensor:
        return 2 * one.near + (one.status == int(Status.CONVERGED)).int()

    here = FixedPoints(**{name: column[at] for name, column in vars(best).items()})
    smaller = (rank(other) == rank(here)) & (other.residual_mse < here.residual_mse)
    better = (rank(other) > rank(here)) | smaller
    for name, column in vars(best).items():
        if name != "iterations":
            column[at[better]] = getattr(other, name)[better]
    best.iterations[at] += other.iterations + evaluations
    return best
