"""How well images were recovered: the success measures of Abitbul & Dar, section 4."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:  # it is slow to import
    from numpy.typing import ArrayLike, NDArray


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


def recovery_rate(mse: Tensor, threshold: float) -> float:
    """The share of images whose MSE is below `threshold`; NaN counts as not recovered. NaN for no images at all."""
    return float((mse < threshold).double().mean())


def mse_of_rows(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """`mse` of each row, float64 (B,), for arrays (B, d); to the last bit the same however many rows there are."""
    differences = np.subtract(a, b, dtype=np.float64)
    means: NDArray[np.float64] = np.square(differences, out=differences).mean(axis=1)
    return means


def clipped_mse_of_rows(estimates: NDArray[np.float32], originals: NDArray[np.float32]) -> NDArray[np.float64]:
    """`mse_of_rows` of the estimates clipped to [0, 1], NaN taken as 0: finite for diverged estimates too."""
    return mse_of_rows(np.nan_to_num(estimates, nan=0.0).clip(0, 1), originals)


def psnr_of(mse: ArrayLike) -> NDArray[np.float64]:
    """The PSNR in dB, 10 log₁₀(1/MSE), of images with these mean squared errors; infinite where the MSE is 0."""
    with np.errstate(divide="ignore"):
        return np.asarray(-10 * np.log10(mse), np.float64)


def name_mse(mse: float) -> str:
    """A mean squared error as people write it: 5e-4."""
    return np.format_float_scientific(mse, trim="-", exp_digits=1)


THRESHOLD_NAMES = {"approximate": name_mse(APPROXIMATE_MSE), "accurate": name_mse(ACCURATE_MSE)}
THRESHOLD_PSNRS = {"approximate": float(psnr_of(APPROXIMATE_MSE)), "accurate": float(psnr_of(ACCURATE_MSE))}
