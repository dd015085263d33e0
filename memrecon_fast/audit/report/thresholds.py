"""The thresholds of `metrics` in words."""

from __future__ import annotations

import math

import numpy as np

from memrecon_fast.metrics import ACCURATE_MSE, APPROXIMATE_MSE


def name_mse(mse: float) -> str:
    """The way people write it: 5e-4."""
    return np.format_float_scientific(mse, trim="-", exp_digits=1)


def psnr_at(mse: float) -> float:
    """The PSNR in dB of images with this mean squared error."""
    return -10 * math.log10(mse)


NAMES = {"approximate": name_mse(APPROXIMATE_MSE), "accurate": name_mse(ACCURATE_MSE)}
PSNRS = {"approximate": psnr_at(APPROXIMATE_MSE), "accurate": psnr_at(ACCURATE_MSE)}
