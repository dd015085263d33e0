"""Pictures and charts as addresses, so that they are inside the page that shows them."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def embed_image(pixels: NDArray[np.uint8], reduce: int = 1) -> str:
    """uint8 (C, H, W), C = 1 or 3, as the address of a PNG, 1/`reduce` as high and wide."""
    image = Image.fromarray(np.ascontiguousarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)))
    return _png(image.reduce(reduce))


def embed_mask(mask: NDArray[np.uint8], reduce: int = 1) -> str:
    """The same of 0 and 255 alone, a quarter of the size: one colour of 2 or 8 for each pixel."""
    if reduce > 1:
        whole = Image.fromarray(np.ascontiguousarray(mask.transpose(1, 2, 0).squeeze()))
        mask = np.atleast_3d(np.asarray(whole.reduce(reduce))).transpose(2, 0, 1)
    bits = mask > 127
    weights = 1 << np.arange(len(bits))
    image = Image.fromarray(np.tensordot(weights, bits, 1).astype(np.uint8))
    colours = (np.arange(1 << len(bits))[:, None] & weights > 0) * np.uint8(255)
    image.putpalette(np.broadcast_to(colours, (len(colours), 3)).tobytes())
    return _png(image)


def embed_svg(svg: str) -> str:
    """A chart."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _png(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
