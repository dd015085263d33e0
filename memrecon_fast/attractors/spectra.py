"""The largest eigenvalues and singular values of the autoencoder's Jacobian at images: Radhakrishnan et al.

A training image is an attractor of the iteration x ← f(x) where f(x) = x and all eigenvalues of J(x) lie inside the
unit circle.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from memrecon_fast.attractors.bottleneck import Bottleneck
from memrecon_fast.attractors.checks import check_images, warn_if_changed
from memrecon_fast.attractors.flight import values_of
from memrecon_fast.attractors.jacobian import Jacobian, make_jacobian
from memrecon_fast.attractors.krylov import Arnoldi, GolubKahan, Linear
from memrecon_fast.common.checks import check_integer, check_number
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.prox import device_of


@dataclasses.dataclass(frozen=True, repr=False)
class Spectra:
    """The k eigenvalues of largest modulus of the Jacobian at each of B images, on the CPU."""

    values: Tensor
    """complex64 (B, k), by falling modulus; NaN where there are no more, or the Jacobian is not finite."""
    residuals: Tensor
    """float32 (B, k): ‖J y − λ y‖ of each, y of length 1; infinite where the value is NaN."""
    found: Tensor
    """int32 (B,): so many of them, the first ones, have a residual below the tolerance. Less than k where the products
    did not do, or where the start vector leads to no more: of an eigenvalue that is there several times, one is."""
    products: Tensor
    """int32 (B,): products with the Jacobian."""

    @property
    def radius(self) -> Tensor:
        """float32 (B,): ρ, the largest modulus; NaN where it was not found."""
        first = self.values[:, 0].abs()
        return torch.where(self.found > 0, first, torch.nan)

    def __repr__(self) -> str:
        count, k = self.values.shape
        radius = self.radius[self.found > 0]
        inside = int((radius < 1).sum())
        spread = f"{radius.min():.3g} to {radius.max():.3g}" if len(radius) else "unknown"
        return (
            f"Spectra of {count} images, {k} eigenvalues each\n"
            f"  largest modulus: {spread}, median {radius.median() if len(radius) else torch.nan:.3g}\n"
            f"  below 1: {inside} of {count} images; not found: {count - len(radius)}\n"
            f"  products: {self.products.double().mean() if count else 0:.3g} an image"
        )


@dataclasses.dataclass(frozen=True)
class SingularValues:
    """The k largest singular values of the Jacobian at each of B images, on the CPU."""

    values: Tensor
    """float32 (B, k), falling; NaN where there are no more, or the Jacobian is not finite."""
    residuals: Tensor
    """float32 (B, k): ‖Jᵀu − σ v‖ of each; infinite where the value is NaN."""
    found: Tensor
    """int32 (B,): so many of them, the first ones, have a residual below the tolerance."""
    products: Tensor
    """int32 (B,): products with the Jacobian and with its transpose."""


def spectra(
    autoencoder: Autoencoder,
    images: Tensor,
    k: int = 6,
    tolerance: float = 1e-4,
    *,
    encoder: Autoencoder | None = None,
    decoder: Autoencoder | None = None,
    rows: int | None = None,
) -> Spectra:
    """The k eigenvalues of largest modulus of the Jacobian of `autoencoder` at each image, by Arnoldi iteration.

    autoencoder: any differentiable callable (B, *image_shape) → (B, *image_shape), float32; an nn.Module in eval mode.
    images: float32 (B, *image_shape).
    k: 1 to 32; at most d are found. tolerance: of the residuals ‖J y − λ y‖, above 0. An eigenvalue may be further off
        where its eigenvectors are nearly parallel.
    encoder, decoder: its two halves, decoder(encoder(x)) = autoencoder(x), codes (B, …): with m entries in a code, the
        eigenvalues that are not 0 are those of the m × m matrix J_encoder(x) J_decoder(z), whose vectors are shorter.
    rows: images that are worked on at a time; by default 64, on a GPU 1024, or as many as half of the free memory
        should hold. It bounds memory.

    An image takes 12 to 64 products, each as dear as a forward pass, and is done once all k residuals are below the
    tolerance. The start vector is the same for all.

    Raises TypeError or ValueError before work starts where an argument is wrong, and where the autoencoder is no
    function of each image alone, or not differentiable. An autoencoder that is changed by its use is noticed at the
    end: a RuntimeWarning says so.
    """
    check_images("images", images)
    check_integer("k", k, low=1, high=32)
    check_number("tolerance", tolerance, low=0, low_is_allowed=False)
    jacobian = make_jacobian(autoencoder, images.shape[1:], device_of(autoencoder, default=images.device))
    if (encoder is None) != (decoder is None):
        raise ValueError("encoder and decoder go together: give both or none")
    linearise: Callable[[Tensor], Linear] = jacobian.at
    entries = jacobian.prox.pixels
    if encoder is not None and decoder is not None:
        bottleneck = Bottleneck(jacobian.prox, encoder, decoder)
        linearise, entries = bottleneck.at, bottleneck.entries
    found = spectra_of(jacobian, linearise, entries, images, k, tolerance, rows)
    warn_if_changed(jacobian.prox)
    return found


def spectra_of(
    jacobian: Jacobian,
    linearise: Callable[[Tensor], Linear],
    entries: int,
    images: Tensor,
    k: int,
    tolerance: float,
    rows: int | None = None,
) -> Spectra:
    """As `spectra`, of any matrices that belong to images: linearise(rows [n, d]) has those of n images.

    entries: the length of the vectors that they are applied to.
    """
    start = _start(entries, jacobian.prox.device)
    found, products = values_of(
        jacobian.prox, images, linearise, lambda n, most: Arnoldi.begin(start, n, most), k, tolerance, rows
    )
    return Spectra(found.values, found.residuals, _leading(found.residuals, tolerance), products)


def singular_values(
    autoencoder: Autoencoder, images: Tensor, k: int = 6, tolerance: float = 1e-4, *, rows: int | None = None
) -> SingularValues:
    """The k largest singular values of the Jacobian at each image, by Golub–Kahan bidiagonalisation.

    The largest one says by how much a small change of the image may grow in one step. Arguments and errors are those of
    `spectra`.
    """
    check_images("images", images)
    check_integer("k", k, low=1, high=32)
    check_number("tolerance", tolerance, low=0, low_is_allowed=False)
    jacobian = make_jacobian(autoencoder, images.shape[1:], device_of(autoencoder, default=images.device))
    start = _start(jacobian.prox.pixels, jacobian.prox.device)
    found, steps = values_of(
        jacobian.prox, images, jacobian.at, lambda n, most: GolubKahan.begin(start, n, most), k, tolerance, rows
    )
    warn_if_changed(jacobian.prox)
    return SingularValues(found.values, found.residuals, _leading(found.residuals, tolerance), 2 * steps)


def _start(entries: int, device: torch.device) -> Tensor:
    """One vector for all images: what comes of an image depends on nothing else."""
    generator = torch.Generator("cpu").manual_seed(0)
    return torch.randn(entries, generator=generator, dtype=torch.float32, device="cpu").to(device)


def _leading(residuals: Tensor, tolerance: float) -> Tensor:
    """int32 (B,): how many of the first residuals (B, k) are below the tolerance."""
    return (residuals < tolerance).int().cumprod(dim=1).sum(dim=1).int()
