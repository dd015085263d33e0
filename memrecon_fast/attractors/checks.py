"""Checks of what the functions of this room are given, before work and after it."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from memrecon_fast.common.errors import AutoencoderChangedError
from memrecon_fast.engine.prox import Prox
from memrecon_fast.recovery import PIXEL_RANGE


def check_images(name: str, images: object) -> Tensor:
    """The images, float32 (B, *image_shape). Raises TypeError or ValueError, which names them, for anything else, for
    NaN or infinite pixels, and for pixels far out of [0, 1]."""
    checked = _check_batch(name, images, " with pixels in [0, 1]")
    if len(checked):
        lows, highs = checked.flatten(1).aminmax(dim=1)
        low, high = float(lows.min()), float(highs.max())
        if low < PIXEL_RANGE[0] or high > PIXEL_RANGE[1]:
            raise ValueError(f"{name} must have pixels in [0, 1], but for noise; they have [{low:g}, {high:g}]")
    return checked


def check_some_images(name: str, images: object, why: str) -> Tensor:
    """As `check_images`; at least one, and the error says why it takes one."""
    checked = check_images(name, images)
    if not len(checked):
        raise ValueError(f"{name} must be at least one image: {why}")
    return checked


def check_starts(name: str, starts: object, image_shape: tuple[int, ...]) -> Tensor:
    """At least one start, float32 (B, *image_shape), of any finite range. Raises TypeError or ValueError otherwise."""
    checked = _check_batch(name, starts, "")
    if tuple(checked.shape[1:]) != image_shape:
        raise ValueError(
            f"{name} must be of the images' shape {image_shape}, a batch (B, *image_shape); they are of "
            f"{tuple(checked.shape[1:])}"
        )
    if not len(checked):
        raise ValueError(f"{name} must be at least one")
    return checked


def check_ascending(name: str, values: object, example: str, check: Callable[[str, Any], None]) -> tuple[Any, ...]:
    """The values. Raises TypeError or ValueError unless they are at least one, ascending, and all pass the check."""
    if isinstance(values, (Tensor, np.ndarray)):
        values = values.tolist()
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        raise TypeError(f"{name} must be a sequence of numbers, such as {example}, not {values!r}")
    for value in values:
        check(f"each of {name}", value)
    if not values or any(later <= value for value, later in itertools.pairwise(values)):
        raise ValueError(f"{name} must be at least one, and ascending, such as {example}, not {tuple(values)}")
    return tuple(values)


def _check_batch(name: str, images: object, pixels: str) -> Tensor:
    """What holds for all batches: a float32 tensor (B, *image_shape) whose pixels are finite."""
    if not isinstance(images, Tensor):
        raise TypeError(f"{name} must be a torch tensor, not {type(images).__name__}")
    if images.dtype != torch.float32:
        hint = " (uint8 pixels: images.float() / 255)" if images.dtype == torch.uint8 else ""
        raise TypeError(f"{name} must be float32{pixels}, not {images.dtype}{hint}")
    if images.dim() < 2 or 0 in images.shape[1:]:
        raise ValueError(f"{name} must be a batch (B, *image_shape), not of shape {tuple(images.shape)}")
    low, high = images.flatten(1).aminmax(dim=1)  # NaN where there is one; no copy of the images is made
    finite = low.isfinite() & high.isfinite()
    if not finite.all():
        raise ValueError(f"{name} have NaN or infinite pixels, first in image {int((~finite).nonzero()[0])}")
    return images


def warn_if_changed(prox: Prox) -> None:
    """A RuntimeWarning where the autoencoder does not answer in the end as it did in the beginning."""
    try:
        prox.check_same()
    except AutoencoderChangedError as error:
        warnings.warn(f"{error}: the result is in doubt", RuntimeWarning, stacklevel=3)
