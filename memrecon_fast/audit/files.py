"""Image files and NumPy files as arrays; whatever is wrong with one is a ValueError that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
ARRAY_SUFFIXES = (".npy", ".npz")
_RGB_MODES = ("P", "RGB", "CMYK", "YCbCr")


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image file as uint8 (H, W, 1) where it is greyscale, else (H, W, 3). Raises ValueError.

    Refused: transparency, several frames, more than 8 bits per pixel and channel, and what Pillow takes for a
    decompression bomb. Turned as stored: an EXIF orientation is not applied.
    """
    try:
        with Image.open(path) as image:
            return pixels_of(image)
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} cannot be read as an image: its format is unknown") from error
    except Exception as error:  # Pillow's decoders raise many kinds on a damaged file
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def pixels_of(image: Image.Image) -> NDArray[np.uint8]:
    """A Pillow image as uint8 (H, W, 1) or (H, W, 3). Raises ValueError for what `read_image` refuses."""
    if getattr(image, "n_frames", 1) > 1:
        raise ValueError("it has several frames")
    if image.mode.endswith(("A", "a")) or "transparency" in image.info:
        raise ValueError("it has transparency; save it without an alpha channel")
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))[:, :, None]
    if image.mode in _RGB_MODES:
        return np.asarray(image.convert("RGB"))
    raise ValueError(f"its pixels are of Pillow's mode {image.mode!r}; expected 8 bits per channel, grey or RGB")


def read_array(path: Path) -> NDArray[Any]:
    """The array of a `.npy` file, mapped into memory, or the only one of an `.npz` file. Raises ValueError.

    Nothing is unpickled.
    """
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded as archive:
            if len(archive.files) != 1:
                raise ValueError(f"it holds {len(archive.files)} arrays; expected one")
            array = archive[archive.files[0]]
        if not isinstance(array, np.ndarray):  # NumPy gives the bytes of a member that is no array
            raise ValueError("what it holds is no array")
        return array
    except Exception as error:  # NumPy and its decompressors raise many kinds on a damaged file
        raise ValueError(f"{path} cannot be read as a NumPy array: {error}") from error
