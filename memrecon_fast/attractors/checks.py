"""Checks of what the functions of this room are given, before work and after it."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from memrecon_fast.common.errors import AutoencoderChangedError
from memrecon_fast.engine.prox import Prox
from memrecon_fast.recovery import PIXEL_RANGE


def check_images(name: str, images: object) -> Tensor:
    """The images, float32 (B, *image_shape). Raises TypeError or ValueError, which names them, for anything else, for
    NaN or infinite pixels, and for pixels far out of [0, 1]."""
    if not isinstance(images, Tensor):
        raise TypeError(f"{name} must be a torch tensor, not {type(images).__name__}")
    if images.dtype != torch.float32:
        hint = " (uint8 pixels: images.float() / 255)" if images.dtype == torch.uint8 else ""
        raise TypeError(f"{name} must be float32 with pixels in [0, 1], not {images.dtype}{hint}")
    if images.dim() < 2 or 0 in images.shape[1:]:
        raise ValueError(f"{name} must be a batch (B, *image_shape), not of shape {tuple(images.shape)}")
    if len(images):
        low, high = images.aminmax()
        if not (low.isfinite() and high.isfinite()):
            wrong = (~images.flatten(1).isfinite()).any(dim=1).nonzero()[0].item()
            raise ValueError(f"{name} have NaN or infinite pixels, first in image {wrong}")
        if low < PIXEL_RANGE[0] or high > PIXEL_RANGE[1]:
            raise ValueError(f"{name} must have pixels in [0, 1], but for noise; they have [{low:g}, {high:g}]")
    return images


def warn_if_changed(prox: Prox) -> None:
    """A RuntimeWarning where the autoencoder does not answer in the end as it did in the beginning."""
    try:
        prox.check_same()
    except AutoencoderChangedError as error:
        warnings.warn(f"{error}: the result is in doubt", RuntimeWarning, stacklevel=3)
