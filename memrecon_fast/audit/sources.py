"""Where images come from: a folder of image files, a NumPy array, a torchvision data set; read one at a time."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from memrecon_fast.audit.files import ARRAY_SUFFIXES, IMAGE_SUFFIXES, pixels_of, read_array, read_image

CHANNELS = (1, 3)
_CHUNK = 2**24  # entries of an array that are checked at a time


@dataclasses.dataclass(frozen=True)
class Images:
    """N ≥ 1 images of one shape, of which only the one that is asked for is in memory."""

    names: tuple[str, ...]
    """What to call each image in records and reports: its path in the folder, or its index."""
    image_shape: tuple[int, int, int]
    """(channels, height, width)."""
    read: Callable[[int], NDArray[Any]]
    """Reads an image: uint8 or float32 in [0, 1], (height, width, channels)."""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor:
        """Image `index`: float32 (channels, height, width) in [0, 1]."""
        image = torch.from_numpy(np.array(self.read(index).transpose(2, 0, 1), order="C"))
        return image.float() / 255 if image.dtype == torch.uint8 else image

    def first(self, count: int) -> Images:
        """The first `count` images; all of them where there are fewer."""
        return dataclasses.replace(self, names=self.names[:count])

    def stack(self) -> Tensor:
        """All the images in memory: float32 (N, channels, height, width)."""
        return torch.stack([self[index] for index in range(len(self))])


def open_images(source: str | os.PathLike[str]) -> Images:
    """Open a folder of image files, a `.npy` or `.npz` array, or `torchvision:NAME:ROOT`; checks every image.

    folder: the image files in it and in the folders below, in the order of their relative paths; other files are passed
        over. All of one size, and all greyscale (one channel) or all in colour (three); see `files.read_image`.
    array: float32 in [0, 1] or uint8, (N, C, H, W) or (N, H, W, C), with one or three channels; an `.npz` file holds
        one array. A `.npy` file is mapped, not read.
    torchvision: NAME is a class of torchvision.datasets that gives Pillow images, ROOT its folder. Nothing is
        downloaded; of a data set with parts, it is the one that is the class's default, usually the training set.

    Raises FileNotFoundError, ValueError or TypeError, which name the image and what was expected.
    """
    text = os.fspath(source)
    if not text:  # Path("") is the current folder
        raise ValueError("a source of images must be named; its name is empty")
    if text.startswith("torchvision:"):
        return _open_torchvision(text)
    path = Path(text)
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {text}")
    if path.suffix.lower() not in ARRAY_SUFFIXES:
        raise ValueError(f"{text} is neither a folder of images nor a .npy or .npz array")
    return from_array(read_array(path), text)


def from_array(array: NDArray[Any], what: str = "the array") -> Images:
    """The images of an array, see `open_images`; `what` names it in errors."""
    if array.dtype not in (np.float32, np.uint8):
        raise TypeError(f"{what} must hold float32 in [0, 1] or uint8, not {array.dtype}")
    channels_last = _has_channels_last(array.shape, what)
    if array.dtype == np.float32:
        _check_range(array, what)
    height, width, channels = array.shape[1:] if channels_last else (*array.shape[2:], array.shape[1])
    names = tuple(map(str, range(len(array))))
    return Images(names, (channels, height, width), partial(_read_from_array, array, channels_last))


def _open_folder(folder: Path) -> Images:
    names = tuple(
        sorted(
            os.path.relpath(os.path.join(parent, file), folder)
            for parent, _, files in os.walk(folder)
            for file in files
            if file.lower().endswith(IMAGE_SUFFIXES)
        )
    )
    if not names:
        raise ValueError(f"the folder {folder} holds no image files ({', '.join(IMAGE_SUFFIXES)})")
    read = partial(_read_from_folder, folder, names)
    return Images(names, _common_shape(read, [str(folder / name) for name in names]), read)


def _open_torchvision(text: str) -> Images:
    _, name, root = (*text.split(":", 2), "", "")[:3]
    if not (name and root):
        raise ValueError(f"{text} should read torchvision:NAME:ROOT, for instance torchvision:CIFAR10:data")
    try:
        datasets = importlib.import_module("torchvision.datasets")
    except (ImportError, RuntimeError) as error:  # the latter where it was built for another version of torch
        raise ValueError(f"{text} needs torchvision, which cannot be imported: {error}") from error
    if name not in datasets.__all__:
        raise ValueError(f"torchvision.datasets has no class {name!r}")
    if not os.path.isdir(root):
        raise FileNotFoundError(f"there is no folder {root} with the data set {name}")
    dataset_class = getattr(datasets, name)
    options = {"download": False} if "download" in inspect.signature(dataset_class).parameters else {}
    try:
        dataset = dataset_class(root, **options)
    except Exception as error:  # the data sets raise many kinds where files are missing or wrong
        raise ValueError(f"torchvision cannot open {name} in {root}: {error}") from error
    if not len(dataset):
        raise ValueError(f"{text} holds no images")
    names = tuple(map(str, range(len(dataset))))
    read = partial(_read_from_dataset, dataset, text)
    return Images(names, _common_shape(read, [f"image {name} of {text}" for name in names]), read)


def _common_shape(read: Callable[[int], NDArray[Any]], names: list[str]) -> tuple[int, int, int]:
    """(channels, height, width) of all of them; reads every image once, so that a bad one is noticed before work."""
    expected = read(0).shape
    for index, name in enumerate(names):
        found = read(index).shape
        if found != expected:
            raise ValueError(
                f"{name} is {_describe(found)}; expected {_describe(expected)} like the first image, {names[0]}"
            )
    height, width, channels = expected
    return channels, height, width


def _describe(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}×{shape[1]} pixels (height×width), {'greyscale' if shape[2] == 1 else 'colour'}"


def _has_channels_last(shape: tuple[int, ...], what: str) -> bool:
    if len(shape) != 4 or 0 in shape:
        raise ValueError(f"{what} must have the shape (N, C, H, W) or (N, H, W, C), none of them 0; it has {shape}")
    first, last = shape[1] in CHANNELS, shape[3] in CHANNELS
    if first == last:
        raise ValueError(
            f"{what} of shape {shape} "
            + ("could have its channels first or last" if first else "has no axis of one or three channels")
            + "; expected (N, C, H, W) or (N, H, W, C)"
        )
    return last


def _check_range(array: NDArray[Any], what: str) -> None:
    step = max(1, _CHUNK // array[0].size)
    for begin in range(0, len(array), step):
        chunk = array[begin : begin + step]
        good = (chunk >= 0) & (chunk <= 1)  # not so for NaN
        if not good.all():
            wrong = tuple(np.argwhere(~good)[0])
            raise ValueError(
                f"image {begin + wrong[0]} of {what} has a pixel of {chunk[wrong]:g}; float32 pixels must lie in "
                f"[0, 1], and those of 0 to 255 must be uint8"
            )


def _read_from_folder(folder: Path, names: tuple[str, ...], index: int) -> NDArray[Any]:
    return read_image(folder / names[index])


def _read_from_array(array: NDArray[Any], channels_last: bool, index: int) -> NDArray[Any]:
    image: NDArray[Any] = array[index]
    return image if channels_last else image.transpose(1, 2, 0)


def _read_from_dataset(dataset: Any, what: str, index: int) -> NDArray[Any]:
    item = dataset[index]
    image = item[0] if isinstance(item, tuple) else item
    try:
        if not isinstance(image, Image.Image):
            raise ValueError(f"it is a {type(image).__name__}, no Pillow image")
        return pixels_of(image)
    except ValueError as error:
        raise ValueError(f"image {index} of {what} cannot be used: {error}") from error
