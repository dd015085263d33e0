"""Is an image an attractor? The verdict, and what it rests on."""

from __future__ import annotations

import dataclasses
import enum

import numpy as np
import torch
from torch import Tensor

from memrecon_fast.attractors.checks import check_images, warn_if_changed
from memrecon_fast.attractors.fixed_points import FIXED, FixedPoints, fixed_points_of
from memrecon_fast.attractors.flight import rows_at_once
from memrecon_fast.attractors.iterating import iterate_from
from memrecon_fast.attractors.jacobian import Jacobian, make_jacobian
from memrecon_fast.attractors.spectra import Spectra, spectra_of
from memrecon_fast.common.checks import check_integer, check_number, check_seed
from memrecon_fast.common.seeding import keyed_random
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.prox import Prox, device_of
from memrecon_fast.engine.transfer import working_on

MARGIN = 1e-2
"""|ρ − 1| below this is marginal."""
NOISE = 1e-3
"""Standard deviation of what moves a fixed point before it is iterated, to see whether it comes back ..."""
RETURNED = NOISE**2 / 10
"""... to within this, as MSE."""
MAX_RETURN = 1000
MAX_LEAVING = 400
"""At most so many iterations come back, or leave: with ρ = 1.01 the noise grows 50-fold."""
_SETTLED = 1e-12


class Verdict(enum.IntEnum):
    """What an image is to the iteration x ← f(x)."""

    ATTRACTOR = 0
    """There is a fixed point within `metrics.APPROXIMATE_MSE`, all eigenvalues there lie inside the unit circle, and
    iteration comes back to it from noise of 1e-3."""
    MARGINAL = 1
    """The same, with |ρ − 1| < 0.01: which of the two it is, float32 does not tell."""
    REPELLER = 2
    """The same, with an eigenvalue outside the unit circle: iteration leaves it."""
    NO_FIXED_POINT = 3
    """None was found within `metrics.APPROXIMATE_MSE` of the image."""
    UNKNOWN = 4
    """The largest eigenvalue was not found, or iteration contradicts it."""


@dataclasses.dataclass(frozen=True, repr=False)
class Stability:
    """What B images are to the iteration; all tensors are on the CPU."""

    verdict: Tensor
    """int8 (B,) of `Verdict`."""
    residual_mse: Tensor
    """float32 (B,): ‖f(x) − x‖²/d at the image itself. Without it ρ means nothing: of images that are no fixed points,
    and of nets that were never trained, ρ may be small as well."""
    fixed_points: FixedPoints
    """What is near each image."""
    spectra: Spectra
    """At the fixed point where one is near, otherwise at the image itself."""
    returned_mse: Tensor
    """float32 (B,): ‖·‖²/d between the fixed point and where iteration came to from noise about it; NaN where it was
    not tried: no fixed point is near, or the verdict is MARGINAL or the eigenvalue unknown."""

    def __repr__(self) -> str:
        counts = ", ".join(f"{int((self.verdict == int(one)).sum())} {one.name}" for one in Verdict)
        return (
            f"Stability of {len(self.verdict)} images\n"
            f"  {counts}\n"
            f"  {_spread('mean squared f(x) − x', self.residual_mse)}\n"
            f"  {_spread('largest modulus of an eigenvalue', self.spectra.radius)}"
        )


def stability(
    autoencoder: Autoencoder,
    images: Tensor,
    k: int = 6,
    tolerance: float = 1e-4,
    *,
    seed: int = 42,
    rows: int | None = None,
) -> Stability:
    """Which images are attractors of x ← f(x), Radhakrishnan et al.

    For each image, in this order: the residual; the fixed point near it, see `fixed_points`; the k largest eigenvalues
    *there*, see `spectra` (at a train loss of 1e-4 those at the image are others); and whether iteration agrees.

    autoencoder: any differentiable callable (B, *image_shape) → (B, *image_shape), float32; an nn.Module in eval mode.
    images: float32 (B, *image_shape). k, tolerance: as for `spectra`. seed: of the noise that fixed points are moved
    by, which is keyed by (seed, position of the image). rows: images that are worked on at a time, by default what
    suits memory.

    Raises TypeError or ValueError before work starts, as `spectra`.
    """
    check_images("images", images)
    check_integer("k", k, low=1, high=32)
    check_number("tolerance", tolerance, low=0, low_is_allowed=False)
    check_seed(seed)
    jacobian = make_jacobian(autoencoder, images.shape[1:], device_of(autoencoder, default=images.device))
    found = stability_of(jacobian, images, range(len(images)), k, tolerance, seed=seed, rows=rows)
    warn_if_changed(jacobian.prox)
    return found


def stability_of(
    jacobian: Jacobian,
    images: Tensor,
    indices: range | list[int],
    k: int,
    tolerance: float,
    *,
    seed: int,
    rows: int | None = None,
) -> Stability:
    """As `stability`, of images with these indices, which are the keys of their random choices."""
    prox, images = jacobian.prox, images.cpu()
    fixed = fixed_points_of(jacobian, images, FIXED, rows)
    near = fixed.near
    places = torch.where(_column(near, images), fixed.images, images)
    spectra = spectra_of(jacobian, jacobian.at, prox.pixels, places, k, tolerance, rows)
    radius = spectra.radius
    verdict = torch.full((len(images),), int(Verdict.UNKNOWN), dtype=torch.int8, device="cpu")
    verdict[near & (radius < 1)] = int(Verdict.ATTRACTOR)
    verdict[near & (radius >= 1)] = int(Verdict.REPELLER)
    verdict[near & ((radius - 1).abs() < MARGIN)] = int(Verdict.MARGINAL)
    verdict[~near] = int(Verdict.NO_FIXED_POINT)
    returned = torch.full((len(images),), torch.nan, dtype=torch.float32, device="cpu")
    for expected, most, settled in (
        (Verdict.ATTRACTOR, MAX_RETURN, _SETTLED),
        (Verdict.REPELLER, MAX_LEAVING, 0.0),  # what leaves slowly hardly moves in the beginning
    ):
        chosen = (verdict == int(expected)).nonzero().flatten()
        starts = _moved(fixed.images[chosen], [indices[i] for i in chosen.tolist()], seed)
        ends = iterate_from(prox, starts, most, settled, rows).images
        returned[chosen] = (ends - fixed.images[chosen]).double().square().flatten(1).mean(dim=1).float()
        came_back = returned[chosen] < RETURNED
        contradicted = chosen[~came_back if expected == Verdict.ATTRACTOR else came_back]
        verdict[contradicted] = int(Verdict.UNKNOWN)
    return Stability(verdict, _residual(prox, images), fixed, spectra, returned)


def _moved(images: Tensor, indices: list[int], seed: int) -> Tensor:
    """With noise that is keyed by (seed, index)."""
    noise = [keyed_random("stability", seed, i).standard_normal(images[0].numel(), dtype=np.float32) for i in indices]
    if not noise:
        return images
    return images + NOISE * torch.from_numpy(np.stack(noise)).view_as(images)


def _residual(prox: Prox, images: Tensor) -> Tensor:
    found = torch.zeros(len(images), dtype=torch.float32, device="cpu")
    with working_on(prox.device):
        for some in torch.arange(len(images), device="cpu").split(rows_at_once(prox)):
            x = prox.to_rows(images[some].to(prox.device))
            found[some] = (prox(x) - x).double().square().mean(dim=1).float().cpu()
    return found


def _column(flags: Tensor, images: Tensor) -> Tensor:
    return flags.view(-1, *[1] * (images.dim() - 1))


def _spread(what: str, values: Tensor) -> str:
    known = values[values.isfinite()]
    if not len(known):
        return f"{what}: unknown"
    return f"{what}: {known.min():.3g} to {known.max():.3g}, median {known.median():.3g}"
