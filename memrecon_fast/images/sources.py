"""Where images come from: a folder, a NumPy array, Parquet files, a torchvision data set; read one at a time."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
import os
import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from memrecon_fast.common.files import replacing
from memrecon_fast.images.decode import (
    ARRAY_SUFFIXES,
    IMAGE_SUFFIXES,
    decode,
    pixels_of,
    printable,
    read_array,
    reason,
)

CHANNELS = (1, 3)
NOT_OURS = "audit.json"
"""A folder that holds this file is that of an audit, and its pictures are none to read."""
PARQUET_SUFFIX = ".parquet"
PIXEL_RANGE = (0.0, 1.0)
NOISY_PIXEL_RANGE = (-1.0, 2.0)
"""Room for noise, not enough for pixels of 0 to 255."""


@dataclasses.dataclass(frozen=True)
class Source:
    """N ≥ 1 images, of which only the one that is asked for is in memory. Small to pickle, unless it is an array."""

    names: tuple[str, ...]
    """What to call each image in records and reports: its path in the folder, or its index."""
    read: Callable[[int], NDArray[Any]]
    """Reads an image: uint8 or float32 in [0, 1], (H, W, 1) or (H, W, 3). May be called by several threads.

    Raises ValueError, which says what is wrong, without the name of the image, where it cannot be used."""
    name: str = ""
    """What the user calls all of them."""

    def __len__(self) -> int:
        return len(self.names)


def open_source(text: str | os.PathLike[str], pixel_range: tuple[float, float] = PIXEL_RANGE) -> Source:
    """Open a folder, a `.npy`, `.npz` or `.parquet` file, or `torchvision:NAME:ROOT`; no image is read yet.

    folder: the image files in it and in the folders below, in the order of their relative paths; hidden and other files
        are passed over. See `files.read_image` for what is read. If there are none, its Parquet files, in that order.
    array: float32 in [0, 1] or uint8, (N, C, H, W) or (N, H, W, C), with one or three channels. A `.npy` file is
        mapped, so that images are read as they are needed; an `.npz` file, of one array, is read into memory whole.
    Parquet: a column of image files, as data sets of Hugging Face have it; see `parquet.open_parquet`.
    torchvision: NAME is a class of torchvision.datasets that gives Pillow images, ROOT its folder. Nothing is
        downloaded; of a data set with parts, it is the one that is the class's default, usually the training set.
    pixel_range: in which float32 pixels of an array must lie.

    Raises FileNotFoundError, ValueError or TypeError for what is wrong with all of it; a wrong image says so when read.
    """
    text = os.fspath(text)
    return dataclasses.replace(_open(text, pixel_range), name=text)


def _open(text: str, pixel_range: tuple[float, float]) -> Source:
    if not text:  # Path("") is the current folder
        raise ValueError("a source of images must be named; its name is empty")
    if text.startswith("torchvision:"):
        return _open_torchvision(text)
    path = Path(text)
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {text}")
    suffix = path.suffix.lower()
    if suffix == PARQUET_SUFFIX:
        return _open_parquet(path.parent, (path.name,))
    if suffix not in ARRAY_SUFFIXES:
        raise ValueError(f"{text} is neither a folder of images nor a .npy, .npz or .parquet file")
    array = read_array(path)
    channels_last = _check_array(array, text)
    return Source(_indices(len(array)), _ArrayFile(path, array, channels_last, pixel_range))


def from_array(array: NDArray[Any], what: str = "the array") -> Source:
    """The images of an array in memory, see `open_source`; `what` names it in errors."""
    read = partial(_read_from_array, array, _check_array(array, what))
    return Source(_indices(len(array)), read, f"{len(array)} images")


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
    read = _ArrayFile(spool, np.load(spool, mmap_mode="r"), channels_last=True)
    return Source(_indices(count), read, f"{count} images")


def _open_folder(folder: Path) -> Source:
    files = _files_below(folder)
    images = tuple(file for file in files if file.lower().endswith(IMAGE_SUFFIXES))
    if images:
        return Source(tuple(map(printable, images)), partial(_read_from_folder, folder.absolute(), images))
    tables = tuple(file for file in files if file.lower().endswith(PARQUET_SUFFIX))
    if tables:
        return _open_parquet(folder, tables)
    raise ValueError(
        f"the folder {folder} holds no image files (such as .png, .jpg, .tif, .webp) and no .parquet files"
    )


def _files_below(folder: Path) -> list[str]:
    """The relative paths of all files that are not hidden, nor in a hidden folder or in that of an audit, sorted."""
    found: list[str] = []
    try:
        for parent, folders, files in os.walk(folder, onerror=_raise):
            if NOT_OURS in files:  # the folder of an audit, which may be beside the images
                folders.clear()
                continue
            folders[:] = [name for name in folders if not name.startswith(".")]
            relative = os.path.relpath(parent, folder)
            found += [os.path.normpath(os.path.join(relative, name)) for name in files if not name.startswith(".")]
    except OSError as error:
        raise ValueError(f"the folder {error.filename} cannot be listed: {reason(error)}") from error
    return sorted(path.replace(os.sep, "/") for path in found)


def _raise(error: OSError) -> None:
    raise error


def _open_parquet(folder: Path, files: tuple[str, ...]) -> Source:
    from memrecon_fast.images.parquet import open_parquet  # pyarrow is not needed for the others

    return Source(*open_parquet(folder, files))


def _open_torchvision(text: str) -> Source:
    _, name, root = (*text.split(":", 2), "", "")[:3]
    if not (name and root):
        raise ValueError(f"{text} should read torchvision:NAME:ROOT, for instance torchvision:CIFAR10:data")
    try:
        datasets = importlib.import_module("torchvision.datasets")
    except (ImportError, RuntimeError) as error:  # the latter where it was built for another version of torch
        raise ValueError(f"{text} needs torchvision, which cannot be imported: {reason(error)}") from error
    if name not in datasets.__all__:
        raise ValueError(f"torchvision.datasets has no class {name!r}")
    if not os.path.isdir(root):
        raise FileNotFoundError(f"there is no folder {root} with the data set {name}")
    read = _Dataset(name, os.path.abspath(root))
    try:
        count = len(read.dataset())
    except Exception as error:  # the data sets raise many kinds where files are missing or wrong
        raise ValueError(f"torchvision cannot open {name} in {root}: {reason(error)}") from error
    if not count:
        raise ValueError(f"{text} holds no images")
    return Source(_indices(count), read)


def _indices(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


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


def _read_from_folder(folder: Path, files: tuple[str, ...], index: int) -> NDArray[Any]:
    try:
        with open(folder / files[index], "rb") as file:
            return decode(file)
    except OSError as error:
        raise ValueError(f"it cannot be read: {reason(error)}") from error


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


class _Dataset:
    """Reads images of a torchvision data set, which is opened where it is read, and read by one thread at a time."""

    def __init__(self, name: str, root: str) -> None:
        self._name = name
        self._root = root
        self._opened: Any = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def __call__(self, index: int) -> NDArray[Any]:
        try:
            with self._lock:
                item = self.dataset()[index]
        except Exception as error:  # whatever a data set raises
            raise ValueError(f"torchvision cannot read it: {reason(error)}") from error
        image = item[0] if isinstance(item, tuple) else item
        if not isinstance(image, Image.Image):
            raise ValueError(f"it is a {type(image).__name__}, no Pillow image")
        try:
            return pixels_of(image)
        except OSError as error:
            raise ValueError(f"it cannot be decoded: {reason(error)}") from error

    def dataset(self) -> Any:
        """The data set itself; not to be called by several threads."""
        if self._opened is None:
            dataset_class = getattr(importlib.import_module("torchvision.datasets"), self._name)
            options = {"download": False} if "download" in inspect.signature(dataset_class).parameters else {}
            self._opened = dataset_class(self._root, **options)
        return self._opened
