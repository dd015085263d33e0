"""How well images were recovered: the success measures of Abitbul & Dar, section 4."""

from __future__ import annotations

import torch
from torch import Tensor

ACCURATE_MSE = 1e-7
"""A recovery is accurate where its MSE is below this (PSNR above 70 dB)."""
APPROXIMATE_MSE = 5e-4
"""A recovery is approximate where its MSE is below this (PSNR above 33.01 dB)."""


def mse(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error per image, (4): float64 (B,) for two tensors (B, *image_shape); NaN where a pixel is NaN.

    Raises ValueError where the shapes differ.
    """
    if a.shape != b.shape or a.dim() < 2:
        raise ValueError(
            f"mse compares two batches (B, *image_shape) of one shape, not {tuple(a.shape)} and {tuple(b.shape)}"
        )
    return (a.double() - b.double()).square().flatten(1).mean(dim=1)


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio 10 log₁₀(1/MSE) in dB per image, for pixels in [0, 1]: float64 (B,).

    Infinite where the images are equal.
    """
    return -10 * torch.log10(mse(a, b))


def clipped_psnr(estimates: Tensor, originals: Tensor) -> Tensor:
    """`psnr` of the estimates clipped to [0, 1], NaN taken as 0: a diverged estimate then cannot spoil a mean."""
    return psnr(torch.nan_to_num(estimates, nan=0.0).clamp(0, 1), originals)


def recovery_rate(mse: Tensor, threshold: float) -> float:
    """The share of images whose MSE is below `threshold`; NaN counts as not recovered. NaN for no images at all."""
    return float((mse < threshold).double().mean())
