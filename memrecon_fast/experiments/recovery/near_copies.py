"""Near-copies of images, such as data sets hold without anyone's knowing."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from memrecon_fast.common.seeding import keyed_random

_JPEG_QUALITY = 50
_NOISE = 0.02
_BRIGHTNESS = (0.03, -0.03, -0.2)


def _brightened(change: float, images: Tensor, seed: int) -> Tensor:
    """By this share of every pixel."""
    return (images * (1 + change)).clip(0, 1)


def _shifted(images: Tensor, seed: int) -> Tensor:
    """By one pixel to the right; the first column stands twice."""
    return torch.cat([images[..., :1], images[..., :-1]], dim=-1)


def _with_noise(images: Tensor, seed: int) -> Tensor:
    noise = [keyed_random("near-copy", seed, index).standard_normal(images.shape[1:]) for index in range(len(images))]
    return (images + _NOISE * torch.from_numpy(np.stack(noise)).float()).clip(0, 1)


def _through_jpeg(images: Tensor, seed: int) -> Tensor:
    return torch.stack([_one_through_jpeg(image) for image in images])


def _one_through_jpeg(image: Tensor) -> Tensor:
    pixels = (255 * image).round().byte().permute(1, 2, 0).numpy()
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(stream, "JPEG", quality=_JPEG_QUALITY)
    read = np.asarray(Image.open(stream), np.float32) / 255
    return torch.from_numpy(read).reshape(pixels.shape).permute(2, 0, 1)


NEAR_COPIES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "none": lambda images, seed: images.clone(),
    f"noise {_NOISE}": _with_noise,
    **{f"brightness {100 * change:+.0f} %": partial(_brightened, change) for change in _BRIGHTNESS},
    f"JPEG, quality {_JPEG_QUALITY}": _through_jpeg,
    "shift by a pixel": _shifted,
    "mean of two": lambda images, seed: (images + images.roll(-1, 0)) / 2,
    "mirror": lambda images, seed: images.flip(-1),
}
"""By name: of images (n, C, H, W) in [0, 1] and a seed, of the same shape. "mean of two": an image and the next one."""
