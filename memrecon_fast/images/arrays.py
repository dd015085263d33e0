"""Images from NumPy arrays, in memory and in files, and from any iterable."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from memrecon_fast.common.errors import reason
from memrecon_fast.common.files import open_regular, replacing
from memrecon_fast.images.decode import pixels_of
from memrecon_fast.images.numpy_files import Header, array_names, read_array
from memrecon_fast.images.source import PIXEL_RANGE, Look, Size, Source, file_and_part, indices

if TYPE_CHECKING:
    from torch.utils.data import Dataset

CHANNELS = (1, 3)
ROUNDING = 1e-5
"""So far may float pixels leave [0, 1] and be clipped: what arithmetic in float32 explains, 1/400 of a grey value."""
_FLOATS = (2, 4, 8)
"""Bytes of the float types that are read, in either byte order. Whole numbers but uint8 are not: what black and white
are in them, 0 and 1 or 0 and 255, cannot be told before all of them are read, and one image might say something else
than the next."""
_TORCH_FLOATS = (torch.float16, torch.float32, torch.float64)
"""bfloat16 is too coarse for an accurate recovery: its rounding alone is an MSE of 1e-6."""
_MAX_NAMED = 6
_IMAGES = (np.ndarray, torch.Tensor, Image.Image)
_IMAGE_NAMES = ("image", "img", "images", "pixel_values", "pixels")
"""What the image of an item is called, where the item is a dictionary."""
CLIPPED = f"have pixels that leave [0, 1] by rounding, at most {ROUNDING:g}, which were clipped"


def open_array_file(text: str, pixel_range: tuple[float, float]) -> Source:
    """The images of a `.npy` file, read as they are needed, or of one array of an `.npz` file, read into memory whole.

    They are floats of 16, 32 or 64 bits in `pixel_range`, which become float32, or uint8; (N, C, H, W) or (N, H, W, C),
    with one or three channels, or (N, H, W).
    Of an `.npz` file with several arrays it is the only one that can be meant, or the one that is named: FILE.npz:NAME.
    """
    path, part = file_and_part(text)
    array = _with_channels(read_array(path, part, _may_be_images))
    channels_last = _check_array(array, text)
    read = _ArrayFile(path, array, channels_last, pixel_range, part)
    meant, others = array_names(path, _may_be_images) if part is None and not isinstance(array, np.memmap) else ([], [])
    remarks: tuple[str, ...] = ()
    if others:
        left = ", ".join(name.removesuffix(".npy") for name in others[:_MAX_NAMED])
        more = f" and {len(others) - _MAX_NAMED} more" if len(others) > _MAX_NAMED else ""
        remarks = (f"{meant[0].removesuffix('.npy')} was taken, the only array of images beside {left}{more}",)
    return Source(indices(len(array)), read, read.look, remarks)


def from_array(array: NDArray[Any], what: str = "the array") -> Source:
    """The images of an array in memory, see `open_source`; `what` names it in errors."""
    array = _with_channels(array)
    channels_last = _check_array(array, what)
    look = partial(_look_at_array, array, channels_last, PIXEL_RANGE)
    return Source(indices(len(array)), partial(_read_from_array, array, channels_last, PIXEL_RANGE), look)


def _may_be_images(header: Header) -> bool:
    """Whether an array looks like images, of whatever type: float64 is refused with a reason."""
    if len(header.shape) == 3:
        return _is_grey(header.shape)
    return len(header.shape) == 4 and (header.shape[1] in CHANNELS or header.shape[3] in CHANNELS)


def _is_grey(shape: tuple[int, ...]) -> bool:
    """Whether it is (N, H, W) and cannot be one image with its channels first or last."""
    return len(shape) == 3 and not any(length in CHANNELS for length in shape)


def _with_channels(array: NDArray[Any]) -> NDArray[Any]:
    """Grey images (N, H, W) get an axis for their channel."""
    return array[..., None] if _is_grey(array.shape) else array


def from_iterable(images: Iterable[Any] | Dataset[Any], spool: str | os.PathLike[str]) -> Source:
    """The images of any iterable, of which one at a time is in memory: they are written to the file `spool`.

    images: arrays or tensors, uint8 or floats in [0, 1] (which become float32), (H, W), (H, W, C) or (C, H, W), or
        Pillow images; all of one shape, and all uint8 or all floats. Gone through once. Or a data set: of (image,
        label) the first part is taken, of a dictionary what is called image or the like, and a remark says so.
    spool: becomes a `.npy` file of (N, H, W, C), whole or not at all; in its folder there must be room for it.

    Raises TypeError or ValueError, which name the position of the image.
    """
    spool = Path(spool)
    first: NDArray[Any] | None = None
    count, remark = 0, None
    with replacing(spool) as temporary, open(temporary, "wb") as file:
        for count, item in enumerate(_one_by_one(images), 1):
            image, said = _image_of(item)
            pixels = _pixels_at(count - 1, image)
            if first is None:
                first, remark = pixels, said
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
    read = _ArrayFile(spool, np.load(spool, mmap_mode="r"), channels_last=True)
    return Source(indices(count), read, read.look, () if remark is None else (remark,))


def _one_by_one(images: Any) -> Iterator[Any]:
    """By their positions, where they are a data set of torch: many of these have no end as an iterable."""
    if hasattr(images, "__len__") and hasattr(images, "__getitem__") and not hasattr(images, "__iter__"):
        return (images[position] for position in range(len(images)))
    return iter(images)


def _image_of(item: Any) -> tuple[Any, str | None]:
    """The image of an item of a data set, itself where it is one; and which part of the item that is, as a remark."""
    if isinstance(item, Mapping):
        name = next((name for name in _IMAGE_NAMES if name in item), None)
        if name is None:
            return item, None
        beside = ", ".join(str(other) for other in item if other != name)
        return item[name], f"{name} of each item was taken" + (f", beside {beside}" if beside else "")
    if isinstance(item, (tuple, list)) and item and isinstance(item[0], _IMAGES):
        kinds = ", ".join(type(part).__name__ for part in item)
        return item[0], f"the first part of each item, ({kinds}), was taken" if len(item) > 1 else None
    return item, None


def _check_array(array: NDArray[Any], what: str) -> bool:
    """Whether its channels are last. Raises TypeError or ValueError for what is no array of images."""
    _check_dtype(array.dtype, what)
    if array.ndim == 3 and 0 not in array.shape:
        raise ValueError(
            f"{what} must have the shape (N, C, H, W) or (N, H, W, C); it has {array.shape}: one image, array[None]? "
            "Or grey ones without an axis for their channel, array[:, None]?"
        )
    if array.ndim != 4 or 0 in array.shape:
        raise ValueError(
            f"{what} must have the shape (N, C, H, W) or (N, H, W, C), none of them 0; it has {array.shape}"
        )
    return _channels_last(array, what)


def _check_dtype(dtype: np.dtype[Any], what: str) -> None:
    """Raise TypeError, which says what to do, for a type that is not read."""
    if dtype == np.uint8 or (dtype.kind == "f" and dtype.itemsize in _FLOATS):
        return
    hint = ""
    if dtype.kind in "iu":
        hint = "; pixels of 0 to 255 are to be saved as uint8, array.astype('uint8'), those of 0 and 1 as float32"
    elif dtype.kind == "b":
        hint = "; as array.astype('float32') they are 0 and 1"
    raise TypeError(f"{what} must hold floats in [0, 1] or uint8, not {dtype}{hint}")


def _channels_last(array: NDArray[Any], what: str) -> bool:
    """Of (N, C, H, W) or (N, H, W, C). Raises ValueError where it is neither, or may be both."""
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
    if isinstance(image, Mapping):
        raise TypeError(
            f"{what} is a dictionary without {' or '.join(_IMAGE_NAMES)}; it has {', '.join(map(str, image))}"
        )
    if isinstance(image, (np.ndarray, torch.Tensor)) and image.ndim == 4:
        raise ValueError(f"{what} is a batch, {tuple(image.shape)}; give the data set itself, not a loader of batches")
    if isinstance(image, Image.Image):
        try:
            return pixels_of(image)
        except (OSError, ValueError) as error:  # an image that Pillow has opened is decoded only now
            raise ValueError(f"{what} cannot be used: {reason(error)}") from error
    if isinstance(image, torch.Tensor) and (image.dtype in _TORCH_FLOATS or not image.is_floating_point()):
        image = image.detach().cpu().numpy()
    if not isinstance(image, np.ndarray):
        kind = image.dtype if isinstance(image, torch.Tensor) else type(image).__name__
        raise TypeError(f"{what} must be an array or tensor of floats or uint8, or a Pillow image, not {kind}")
    _check_dtype(image.dtype, what)
    return as_image(image if image.dtype == np.uint8 else _as_float32(image), what)


def as_image(array: NDArray[Any], what: str) -> NDArray[Any]:
    """An array (H, W), (H, W, C) or (C, H, W) as (H, W, C). Raises ValueError for another, or one that may be both."""
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(
            f"{what} must have the shape (H, W), (H, W, C) or (C, H, W), none of them 0; it has {array.shape}"
        )
    if array.ndim == 2:
        return array[:, :, None]
    return array if _channels_last(array[None], what) else array.transpose(1, 2, 0)


def _write_header(file: Any, image: NDArray[Any], count: int) -> int:
    """Write the header of a `.npy` file of `count` such images, and return its length."""
    header = {"descr": image.dtype.str, "fortran_order": False, "shape": (count, *image.shape)}
    np.lib.format.write_array_header_1_0(file, header)
    return int(file.tell())


def _read_from_array(
    array: NDArray[Any], channels_last: bool, pixel_range: tuple[float, float], index: int
) -> NDArray[Any]:
    return _look_at_array(array, channels_last, pixel_range, index).pixels


def _look_at_array(
    array: NDArray[Any],
    channels_last: bool,
    pixel_range: tuple[float, float],
    index: int,
    size: Size | None = None,
) -> Look:
    """An image of an array; `size` is not needed, as nothing is decoded."""
    image: NDArray[Any] = array[index]
    remark = None
    if image.dtype != np.uint8:
        image, remark = in_range(image, pixel_range)
    return Look(image if channels_last else image.transpose(1, 2, 0), remark)


def _as_float32(image: NDArray[Any]) -> NDArray[np.float32]:
    """In the byte order of this machine; itself where it is that already."""
    with np.errstate(over="ignore"):  # what is beyond float32 is infinite, and refused as that
        return image.astype(np.float32, copy=False)


def in_range(image: NDArray[Any], pixel_range: tuple[float, float]) -> tuple[NDArray[np.float32], str | None]:
    """The pixels, of any float type, as float32, those that leave [0, 1] by rounding clipped; and the remark on that.
    Raises ValueError for others.

    A wider range has room for rounding.
    """
    low, high = pixel_range
    image = _as_float32(image)
    if ((image >= low) & (image <= high)).all():  # not so for NaN
        return image, None
    if pixel_range == PIXEL_RANGE and ((image >= low - ROUNDING) & (image <= high + ROUNDING)).all():
        return image.clip(low, high), CLIPPED
    raise ValueError(_out_of_range(image, low, high))


def _out_of_range(image: NDArray[np.float32], low: float, high: float) -> str:
    """What is wrong, with the pixel that is furthest from the range; and what the pixels look like."""
    beyond = np.maximum(low - image, image - high)
    worst = image.flat[int(beyond.argmax())]  # NaN, if there is one
    needed = f"float pixels must lie in [{low:g}, {high:g}], and those of 0 to 255 must be uint8"
    message = f"it has a pixel of {worst:g}; {needed}"
    least, most = image.min(), image.max()
    if least >= 0 and 1 < most <= 255 and (image > 1).mean() > 0.1:
        return f"{message}; they look like 0 to 255, of which x / 255 makes 0 to 1"
    if low == 0 and -1 <= least < -0.25 and most <= 1:
        return f"{message}; they look like -1 to 1, of which (x + 1) / 2 makes 0 to 1"
    if -10 < least < -0.25 and most < 10:
        return f"{message}; they look as if mean and standard deviation had been made 0 and 1, which must be undone"
    return message


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
        part: str | None = None,
    ) -> None:
        self._path = path.absolute()
        self._part = part
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
        return self.look(index).pixels

    def look(self, index: int, size: Size | None = None) -> Look:
        """Image `index`, see `Source.look`."""
        if self._offset is None:
            return _look_at_array(self._in_memory(), self._channels_last, self._pixel_range, index)
        count = math.prod(self._shape)
        offset = self._offset + index * count * self._dtype.itemsize
        try:
            with open_regular(self._path) as file:
                pixels: NDArray[Any] = np.fromfile(file, self._dtype, count, offset=offset)
        except OSError as error:
            raise ValueError(f"{self._path.name} cannot be read: {reason(error)}") from error
        if pixels.size < count:
            raise ValueError(f"{self._path.name} is shorter than it was")
        return _look_at_array(pixels.reshape(1, *self._shape), self._channels_last, self._pixel_range, 0)

    def _in_memory(self) -> NDArray[Any]:
        with self._lock:
            if self._loaded is None:
                loaded = _with_channels(read_array(self._path, self._part, _may_be_images))
                if (loaded.shape[1:], loaded.dtype) != (self._shape, self._dtype):
                    raise ValueError(f"{self._path.name} is not what it was")
                self._loaded = loaded
            return self._loaded
