"""Images as pixels to look at: uint8, and as addresses of PNG files inside a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LARGEST_SIDE = 128
"""Of a picture in a page, in pixels; larger ones are reduced to this by averaging."""
NOT_FINITE = (255, 0, 255)
"""The colour, magenta, of pixels that are NaN or infinite."""


def is_picture(image_shape: Sequence[int]) -> bool:
    """Whether images of this shape can be looked at: (H, W), or (C, H, W) with C = 1 or 3; none of them empty."""
    return (len(image_shape) == 2 or (len(image_shape) == 3 and image_shape[0] in (1, 3))) and 0 not in image_shape


def to_pixels(image: Tensor, largest_side: int | None = None) -> NDArray[np.uint8]:
    """uint8 (H, W, 3) of an image, float or bool, of a shape that `is_picture`, on any device.

    Pixels are clipped to [0, 1]; those that are NaN or infinite are `NOT_FINITE`. largest_side: reduced to at most this
    by averaging; an average of what is not finite is not finite.
    """
    pixels = image.detach().float().cpu()
    pixels = (pixels[None] if pixels.dim() == 2 else pixels).expand(3, -1, -1)
    sides = pixels.shape[1:]
    if largest_side is not None and max(sides) > largest_side:
        height, width = (max(1, round(side * largest_side / max(sides))) for side in sides)
        pixels = torch.nn.functional.adaptive_avg_pool2d(pixels, (height, width))
    shown = (pixels.nan_to_num(0.0).clamp(0, 1) * 255).round().byte()
    colour = torch.tensor(NOT_FINITE, dtype=torch.uint8)[:, None, None]
    shown = torch.where(pixels.isfinite().all(dim=0), shown, colour)
    result: NDArray[np.uint8] = shown.permute(1, 2, 0).contiguous().numpy()
    return result


def mask_in_words(masks: Tensor) -> str:
    """What the colours of masks, bool (n, *image_shape) of shapes that `is_picture`, mean where they are shown."""
    words = "mask: white is kept, black is erased"
    if masks.dim() == 4 and bool((masks != masks[:, :1]).any()):
        words += "; a colour where only some channels are kept: red for the first, yellow for the first and second, …"
    return words


def to_address(pixels: NDArray[np.uint8]) -> str:
    """uint8 (H, W, 3) as the address of a PNG file that holds it. Raises ImportError where Pillow is missing."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("pictures need Pillow: pip install 'memrecon-fast[audit]'") from error
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
