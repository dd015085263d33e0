"""Image files and NumPy files as arrays; whatever is wrong with one is a ValueError."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memrecon_fast.common.errors import reason

# Documents, films and containers of data, of which Pillow shows a page where another program is installed.
_NO_IMAGES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
_SUFFIXES = Image.registered_extensions()  # asks for all formats, so that Image.OPEN is complete from here on
IMAGE_SUFFIXES = tuple(sorted(s for s, name in _SUFFIXES.items() if name in Image.OPEN and name not in _NO_IMAGES))
"""Of the files that `read_image` can read, in lower case."""
ARRAY_SUFFIXES = (".npy", ".npz")
_GREY_MODES = ("1", "L", "LA", "La")
_COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_OTHER_FORMAT = (SyntaxError, IndexError, TypeError, struct.error)  # what a plugin of Pillow says of a foreign file


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image file as uint8 (H, W, 1) where it is greyscale, else (H, W, 3). Raises ValueError, which names it.

    Refused: transparency (an alpha channel that is opaque everywhere is dropped), several frames, more than 8 bits per
    pixel and channel, truncated files, and before it is decoded an image of more pixels than `Image.MAX_IMAGE_PIXELS`,
    which may be a decompression bomb. Turned as stored: an EXIF orientation is not applied.
    """
    try:
        with open(path, "rb") as file:
            return decode(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as an image: {reason(error)}") from error


def decode(file: IO[bytes]) -> NDArray[np.uint8]:
    """As `read_image`, from an open file; the ValueError says what is wrong with it, without a name."""
    try:
        with _open(file) as image:
            return pixels_of(image)
    except ValueError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds on a damaged file
        raise ValueError(f"it cannot be decoded: {reason(error)}") from error


def pixels_of(image: Image.Image) -> NDArray[np.uint8]:
    """A Pillow image as uint8 (H, W, 1) or (H, W, 3). Raises ValueError for what `read_image` refuses."""
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # a camera's JPEG: what follows are previews
        raise ValueError("it has several frames")
    if image.mode not in _GREY_MODES + _COLOUR_MODES:
        raise ValueError(f"its pixels are of Pillow's mode {image.mode!r}; expected 8 bits per channel, grey or colour")
    if _is_deep(image):
        raise ValueError("it has more than 8 bits per channel")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = _without_alpha(image)
    if image.mode in _GREY_MODES:
        return np.asarray(image.convert("L"))[:, :, None]
    return np.asarray(image.convert("RGB"))


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
        raise ValueError(f"{path} cannot be read as a NumPy array: {reason(error)}") from error


def printable(path: str) -> str:
    """The path, where its bytes are no text with these as \\xNN: what is not text can be neither printed nor stored."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _open(file: IO[bytes]) -> Image.Image:
    """As `Image.open(file, formats=…)`, but an image above `Image.MAX_IMAGE_PIXELS` is refused before it is decoded.

    Image.open refuses one of twice as many pixels; of one between, it warns, and opens it. The filters of warnings
    belong to the process, so that none could be set here: images are decoded by several threads.
    """
    prefix = file.read(16)
    for name in Image.ID:
        factory, accept = Image.OPEN[name]
        accepted = accept is None or accept(prefix)
        if name in _NO_IMAGES or not accepted or isinstance(accepted, str):  # a text: Pillow was built without it
            continue
        file.seek(0)
        try:
            image = factory(file, "")
        except _OTHER_FORMAT:
            continue
        pixels, limit = image.width * image.height, Image.MAX_IMAGE_PIXELS
        if limit is not None and pixels > limit:
            raise ValueError(f"its {pixels} pixels may be a decompression bomb; PIL.Image.MAX_IMAGE_PIXELS is {limit}")
        return image
    raise ValueError("its format is unknown, or it is damaged")


def _is_deep(image: Image.Image) -> bool:
    """Whether the file has more than 8 bits per channel, which Pillow would cut to 8 where it is in colour.

    Known before the image is decoded, for PNG, TIFF, PPM and SGI.
    """
    for codec, _, _, arguments in getattr(image, "tile", []):
        modes = arguments if isinstance(arguments, tuple) else (arguments,)
        if codec == "SGI16" or any(isinstance(mode, str) and re.search(";16[BLN]", mode) for mode in modes):
            return True
        if codec in ("ppm", "ppm_plain") and modes[-1] > 255:
            return True
    return False


def _without_alpha(image: Image.Image) -> Image.Image:
    is_grey = image.mode in _GREY_MODES
    if image.mode == "La":  # Pillow goes from there to LA alone
        image = image.convert("LA")
    image = image.convert("RGBA")
    if image.getchannel("A").getextrema()[0] != 255:
        raise ValueError("it has transparency; save it without an alpha channel")
    return image.getchannel("R") if is_grey else image.convert("RGB")
