"""Image files as arrays; whatever is wrong with one is a ValueError."""

from __future__ import annotations

import contextlib
import re
import struct
import threading
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from memrecon_fast.common.errors import reason
from memrecon_fast.common.files import open_regular, placeholder
from memrecon_fast.common.memory import available_memory, in_units
from memrecon_fast.images.source import Look, Size

# Documents, films and containers of data, of which Pillow shows a page where another program is installed.
_NO_IMAGES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
_SUFFIXES = Image.registered_extensions()  # asks for all formats, so that Image.OPEN is complete from here on
IMAGE_SUFFIXES = tuple(sorted(s for s, name in _SUFFIXES.items() if name in Image.OPEN and name not in _NO_IMAGES))
"""Of the files that `read_image` can read, in lower case."""
_GREY_MODES = ("1", "L", "LA", "La")
_COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_OTHER_FORMAT = (SyntaxError, IndexError, TypeError, struct.error)  # what a plugin of Pillow says of a foreign file
TURNED = "carry an EXIF orientation and are turned as it says, as the library datasets turns them"
NOT_TURNED = "carry an EXIF orientation, which is not applied (as in torchvision; the library datasets applies it)"
_BYTES_PER_PIXEL = 24  # of memory, while an image is decoded, converted and resized
_LARGE = 2**24  # pixels; images of more are decoded one at a time
_MAX_ICON = 2**20  # pixels
_PNG_SIZE = re.compile(rb"\x89PNG\r\n\x1a\n....IHDR(....)(....)", re.DOTALL)
_one_large = threading.Lock()
_BEGINNINGS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
_BOXES = (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypavif", b"ftypavis", b"jP  \r\n\x87\n")


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image file as uint8 (H, W, 1) where it is greyscale, else (H, W, 3). Raises ValueError, which names it.

    Refused: transparency (an alpha channel that is opaque everywhere is dropped), several frames, more than 8 bits per
    pixel and channel, truncated files, what is no regular file, and before it is decoded an image of more pixels than
    `Image.MAX_IMAGE_PIXELS` or than memory is free for, which may be a decompression bomb. Turned as stored: an EXIF
    orientation is not applied, but in TIFF files, where Pillow does it.
    """
    try:
        with open_regular(path) as file:
            return decode(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as an image: {reason(error)}") from error


def decode(file: IO[bytes]) -> NDArray[np.uint8]:
    """As `read_image`, from an open file; the ValueError says what is wrong with it, without a name."""
    return look(file).pixels


def look(file: IO[bytes], size: Size | None = None, turn: bool = False) -> Look:
    """As `decode`, and whether there is an EXIF orientation.

    size: (H, W); an image of more pixels than that, and of another size, is refused before it is decoded.
    turn: whether an EXIF orientation is applied, as the library `datasets` does.
    """
    try:
        with open_image(file) as image:
            check_pixels(image)
            pixels = image.width * image.height
            if size is not None and pixels > size[0] * size[1]:
                raise WrongSize((image.height, image.width))
            with _one_large if pixels > _LARGE else contextlib.nullcontext():
                if pixels > _LARGE:
                    _check_memory(pixels)
                image.load()
                is_turned = _is_turned(image)
                array = _as_array(ImageOps.exif_transpose(image) if is_turned and turn else image)
    except Unusable:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds on a damaged file
        raise Unusable(f"it cannot be decoded: {reason(error)}") from error
    return Look(array, (TURNED if turn else NOT_TURNED) if is_turned else None)


class Unusable(ValueError):
    """An image is not usable, for what the message says."""


class WrongSize(Unusable):
    """An image is not of the size that was asked for, and was not decoded."""

    def __init__(self, size: Size) -> None:
        super().__init__(f"it is {size[0]}×{size[1]} pixels (height×width)")
        self.size = size


def pixels_of(image: Image.Image) -> NDArray[np.uint8]:
    """A Pillow image as uint8 (H, W, 1) or (H, W, 3). Raises ValueError for what `read_image` refuses."""
    check_pixels(image)
    return _as_array(image)


def check_pixels(image: Image.Image) -> None:
    """Raise ValueError for several frames, and for pixels that are not of 8 bits per channel; decodes nothing."""
    if getattr(image, "is_animated", False) and image.format != "MPO":  # a camera's JPEG: what follows are previews
        count = vars(image).get("n_frames")  # where the file says it; elsewhere all of it would have to be read
        several = "several frames or pages" if count is None else f"{count} frames"
        raise Unusable(f"it has {several}; save the one that is meant as a file of its own")
    if image.mode not in _GREY_MODES + _COLOUR_MODES:
        raise Unusable(f"its pixels are of Pillow's mode {image.mode!r}; expected 8 bits per channel, grey or colour")
    if _is_deep(image):
        raise Unusable("it has more than 8 bits per channel")


def printable(path: str) -> str:
    """The path, where its bytes are no text with these as \\xNN: what is not text can be neither printed nor stored."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def open_image(file: IO[bytes]) -> Image.Image:
    """As `Image.open(file, formats=…)`, but an image above `Image.MAX_IMAGE_PIXELS` is refused before it is decoded.

    Image.open refuses one of twice as many pixels; of one between, it warns, and opens it. The filters of warnings
    belong to the process, so that none could be set here: images are decoded by several threads.

    Raises ValueError for a file that is no image.
    """
    prefix = file.read(64)
    if not prefix:
        raise Unusable("it is empty")
    if stands_for := placeholder(prefix):
        raise Unusable(f"it is {stands_for}")
    for name in Image.ID:
        factory, accept = Image.OPEN[name]
        if name in _NO_IMAGES:
            continue
        try:
            accepted = accept is None or accept(prefix)
            if not accepted or isinstance(accepted, str):  # a text: Pillow was built without it
                continue
            file.seek(0)
            if name in ("ICO", "ICNS"):
                _check_icon(file)
            image = factory(file, "")
        except _OTHER_FORMAT:
            continue
        pixels, limit = image.width * image.height, Image.MAX_IMAGE_PIXELS
        if limit is not None and pixels > limit:
            raise Unusable(
                f"its {pixels} pixels may be a decompression bomb; at most {limit} are decoded; make it smaller, or "
                "set PIL.Image.MAX_IMAGE_PIXELS in Python"
            )
        return image
    raise Unusable("its format is unknown, or it is damaged")


def _check_icon(file: IO[bytes]) -> None:
    """Refuse an icon with a larger picture inside than icons have; Pillow decodes it to open the icon."""
    for sides in _PNG_SIZE.findall(file.read()):
        width, height = (int.from_bytes(side, "big") for side in sides)
        if width * height > _MAX_ICON:
            raise Unusable(f"it is an icon with a picture of {height}×{width} pixels; at most {_MAX_ICON} are decoded")
    file.seek(0)


def begins_as_image(prefix: bytes) -> bool:
    """Whether a file that begins so, with 16 bytes or more, is of one of the usual formats of images."""
    return prefix.startswith(_BEGINNINGS) or prefix[4:12] in _BOXES or (prefix[:4], prefix[8:12]) == (b"RIFF", b"WEBP")


def _check_memory(pixels: int) -> None:
    needed, free = pixels * _BYTES_PER_PIXEL, available_memory()
    if free is not None and needed > free:
        raise Unusable(
            f"its {pixels} pixels take up to {in_units(needed)} of memory to decode, and {in_units(free)} are free"
        )


def _is_turned(image: Image.Image) -> bool:
    """Whether a decoded image has an EXIF orientation other than as it is stored; one that is damaged is none."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
    except Exception:  # Pillow's parser raises many kinds
        return False


def _as_array(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = _without_alpha(image)
    if image.mode in _GREY_MODES:
        return np.asarray(image.convert("L"))[:, :, None]
    return np.asarray(image.convert("RGB"))


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
        raise Unusable("it has transparency; save it without an alpha channel")
    return image.getchannel("R") if is_grey else image.convert("RGB")
