"""Images from NumPy arrays, in memory and in files, and from any iterable."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from memrecon_fast.common.errors import reason
from memrecon_fast.common.files import replacing
from memrecon_fast.images.decode import pixels_of, read_array
from memrecon_fast.images.source import PIXEL_RANGE, Source, indices

CHANNELS = (1, 3)


def open_array_file(text: str, pixel_range: tuple[float, float]) -> Source:
    """The images of a `.npy` file, read as they are needed, or of an `.npz` file of one array, read into memory whole.

    They are float32 in `pixel_range` or uint8, (N, C, H, W) or (N, H, W, C), with one or three channels.
    """
    path = Path(text)
    array = read_array(path)
    channels_last = _check_array(array, text)
    return Source(indices(len(array)), _ArrayFile(path, array, channels_last, pixel_range))


def from_array(array: NDArray[Any], what: str = "the array") -> Source:
    """The images of an array in memory, see `open_source`; `what` names it in errors."""
    return Source(indices(len(array)), partial(_read_from_array, array, _check_array(array, what)))


def from_iterable(images: Iterable[Any], spool: str | os.PathLike[str]) -> Source:
    """The images of any iterable, of which one at a time is in memory: they are written to the file `spool`.

    images: arrays or tensors, uint8 or float32 in [0, 1], (H, W), (H, W, C) or (C, H, W), or Pillow images; all of one
        shape and dtype. Gone through once.
    spool: becomes a `.npy` file of (N, H, W, C), whole or not at all; in its folder there must be room for it.

    Raises TypeError or ValueError, which name the position of the image.
    """
    spool = Path(spool)
    first: NDArray[Any] | None = None
    count = 0
    with replacing(spool) as temporary, open(temporary, "wb") as file:
        for count, image in enumerate(images, 1):
            pixels = _pixels_at(count - 1, image)
            if first is None:
                first = pixels
                header = _write_header(file, first, 0)
            elif (pixels.shape, pixels.dtype) != (first.shape, first.dtype):
                raise ValueError(
                    f"image {count - 1} is of shape {pixels.shape}, {pixels.dtype}; expected {first.shape}, "
                    f"{first.dtype} (height, width, channels) like image 0"
                )
            file.write(np.ascontiguousarray(pixels).data)
        if first is None:
            raise ValueError("there are no images")
        file.seek(0)
        if _write_header(file, first, count) != header:  # NumPy leaves room in it for a longer first axis
            raise ValueError(f"{count} images are too many for one file")
    return Source(indices(count), _ArrayFile(spool, np.load(spool, mmap_mode="r"), channels_last=True))


def _check_array(array: NDArray[Any], what: str) -> bool:
    """Whether its channels are last. Raises TypeError or ValueError for what is no array of images."""
    if array.dtype not in (np.float32, np.uint8):
        raise TypeError(f"{what} must hold float32 in [0, 1] or uint8, not {array.dtype}")
    if array.ndim != 4 or 0 in array.shape:
        raise ValueError(
            f"{what} must have the shape (N, C, H, W) or (N, H, W, C), none of them 0; it has {array.shape}"
        )
    first, last = array.shape[1] in CHANNELS, array.shape[3] in CHANNELS
    if first == last:
        raise ValueError(
            f"{what} of shape {array.shape} "
            + ("could have its channels first or last" if first else "has no axis of one or three channels")
            + "; expected (N, C, H, W) or (N, H, W, C)"
        )
    return last


def _pixels_at(position: int, image: Any) -> NDArray[Any]:
    """An image of an iterable as (H, W, C)."""
    what = f"image {position}"
    if isinstance(image, Image.Image):
        try:
            return pixels_of(image)
        except (OSError, ValueError) as error:  # an image that Pillow has opened is decoded only now
            raise ValueError(f"{what} cannot be used: {reason(error)}") from error
    if isinstance(image, torch.Tensor) and image.dtype in (torch.uint8, torch.float32):
        image = image.detach().cpu().numpy()
    if not isinstance(image, np.ndarray):
        kind = image.dtype if isinstance(image, torch.Tensor) else type(image).__name__
        raise TypeError(f"{what} must be an array or tensor of uint8 or float32, or a Pillow image, not {kind}")
    if image.dtype not in (np.float32, np.uint8):
        raise TypeError(f"{what} must hold float32 in [0, 1] or uint8, not {image.dtype}")
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(
            f"{what} must have the shape (H, W), (H, W, C) or (C, H, W), none of them 0; it has {image.shape}"
        )
    if image.ndim == 2:
        return image[:, :, None]
    return image if _check_array(image[None], what) else image.transpose(1, 2, 0)


def _write_header(file: Any, image: NDArray[Any], count: int) -> int:
    """Write the header of a `.npy` file of `count` such images, and return its length."""
    header = {"descr": image.dtype.str, "fortran_order": False, "shape": (count, *image.shape)}
    np.lib.format.write_array_header_1_0(file, header)
    return int(file.tell())


def _read_from_array(
    array: NDArray[Any], channels_last: bool, index: int, pixel_range: tuple[float, float] = PIXEL_RANGE
) -> NDArray[Any]:
    image: NDArray[Any] = array[index]
    if image.dtype == np.float32:
        low, high = pixel_range
        good = (image >= low) & (image <= high)  # not so for NaN
        if not good.all():
            raise ValueError(
                f"it has a pixel of {image[~good].flat[0]:g}; float32 pixels must lie in [{low:g}, {high:g}], and "
                "those of 0 to 255 must be uint8"
            )
    return image if channels_last else image.transpose(1, 2, 0)


class _ArrayFile:
    """Reads images of a NumPy file, which is opened where it is read: pickled, it is a path.

    Of a `.npy` file an image is read at a time, into memory of its own: what is mapped counts as memory of the process.
    """

    def __init__(
        self,
        path: Path,
        array: NDArray[Any],
        channels_last: bool,
        pixel_range: tuple[float, float] = PIXEL_RANGE,
    ) -> None:
        self._path = path.absolute()
        self._channels_last = channels_last
        self._pixel_range = pixel_range
        self._shape, self._dtype = array.shape[1:], array.dtype
        self._offset = array.offset if isinstance(array, np.memmap) and array.flags.c_contiguous else None
        self._loaded = None if isinstance(array, np.memmap) else array
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def __call__(self, index: int) -> NDArray[Any]:
        if self._offset is None:
            return _read_from_array(self._in_memory(), self._channels_last, index, self._pixel_range)
        count = math.prod(self._shape)
        offset = self._offset + index * count * self._dtype.itemsize
        try:
            pixels: NDArray[Any] = np.fromfile(self._path, self._dtype, count, offset=offset)
        except OSError as error:
            raise ValueError(f"{self._path.name} cannot be read: {reason(error)}") from error
        if pixels.size < count:
            raise ValueError(f"{self._path.name} is shorter than it was")
        return _read_from_array(pixels.reshape(1, *self._shape), self._channels_last, 0, self._pixel_range)

    def _in_memory(self) -> NDArray[Any]:
        with self._lock:
            if self._loaded is None:
                self._loaded = read_array(self._path)
            return self._loaded
