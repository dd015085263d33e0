"""Pictures and charts as data addresses, so that a page is one file, and of few enough characters."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

_Shown = TypeVar("_Shown")


class Encoding(NamedTuple):
    """How pictures are shown."""

    reduce: int = 1
    """Their sides are divided by this."""
    lossy: bool = False
    """Whether as WebP, a third as large, instead of PNG; masks never are."""


ENCODINGS = (Encoding(), Encoding(1, True), Encoding(2, True), Encoding(4, True))
"""From the best to the smallest."""
_QUALITY = 85


def embed_image(pixels: NDArray[np.uint8], encoding: Encoding = ENCODINGS[0]) -> str:
    """uint8 (C, H, W), C = 1 or 3, as the address of a picture."""
    image = Image.fromarray(np.ascontiguousarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)))
    return _address(image.reduce(encoding.reduce), encoding.lossy and bool(features.check("webp")))


def embed_mask(mask: NDArray[np.uint8], encoding: Encoding = ENCODINGS[0]) -> str:
    """The same for a mask of 0 and 255, as a palette of 2 or 8 colours: a quarter of the size."""
    if encoding.reduce > 1:
        whole = Image.fromarray(np.ascontiguousarray(mask.transpose(1, 2, 0).squeeze()))
        mask = np.atleast_3d(np.asarray(whole.reduce(encoding.reduce))).transpose(2, 0, 1)
    bits = mask > 127
    weights = 1 << np.arange(len(bits))
    image = Image.fromarray(np.tensordot(weights, bits, 1).astype(np.uint8))
    colours = (np.arange(1 << len(bits))[:, None] & weights > 0) * np.uint8(255)
    image.putpalette(np.broadcast_to(colours, (len(colours), 3)).tobytes())
    return _address(image)


def embed_svg(svg: str) -> str:
    """A chart."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def fitting(make: Callable[[Encoding], _Shown], most: int) -> _Shown:
    """What `make` makes in the best encoding in which all its texts together have at most so many characters; in the
    smallest one, where none is small enough."""
    for encoding in ENCODINGS:
        shown = make(encoding)
        if _characters(shown) <= most:
            break
    return shown


def _characters(shown: Any) -> int:
    """The length of all texts in nested lists and dictionaries: nearly all of it is pictures."""
    if isinstance(shown, str):
        return len(shown)
    if isinstance(shown, dict):
        return sum(map(_characters, shown.values()))
    return sum(map(_characters, shown)) if isinstance(shown, list) else 0


def _address(image: Image.Image, lossy: bool = False) -> str:
    stream = io.BytesIO()
    if lossy:
        image.convert("RGB").save(stream, format="WEBP", quality=_QUALITY)
    else:
        image.save(stream, format="PNG", optimize=True)
    return f"data:image/{'webp' if lossy else 'png'};base64,{base64.b64encode(stream.getvalue()).decode()}"
