"""Images from the data sets of torchvision."""

from __future__ import annotations

import importlib
import inspect
import os
import threading
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from memrecon_fast.common.errors import reason
from memrecon_fast.common.files import open_regular
from memrecon_fast.images.decode import pixels_of, printable
from memrecon_fast.images.listing import list_files
from memrecon_fast.images.source import Source, indices
from memrecon_fast.images.splits import split_of


def open_dataset(text: str, pixel_range: tuple[float, float]) -> Source:
    """The images of "torchvision:NAME:ROOT": NAME is a class of torchvision.datasets that gives Pillow images, ROOT its
    folder. Nothing is downloaded; of a data set with parts, it is the one that is the class's default, usually the
    training set. Images are turned as the data set does it: torchvision applies no EXIF orientation.

    pixel_range: is not needed, as Pillow images hold integers.
    """
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
    if special := list_files(Path(root)).special:  # torchvision would open it, and wait for ever
        raise ValueError(f"{os.path.join(root, printable(special[0]))} is no regular file")
    read = _Dataset(name, os.path.abspath(root))
    try:
        count = len(read.dataset())
    except Exception as error:  # the data sets raise many kinds where files are missing or wrong
        raise ValueError(f"torchvision cannot open {name} in {root}: {reason(error)}") from error
    if not count:
        raise ValueError(f"{text} holds no images")
    classes = [one for one in getattr(read.dataset(), "classes", ()) if isinstance(one, str)]
    splits = {split_of(one): one for one in classes if split_of(one)}
    if len(splits) > 1:
        named = " and ".join(splits.values())
        raise ValueError(f"{root} holds several splits, {named}, as if they were classes; name one of them as ROOT")
    return Source(indices(count), read)


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
                dataset = self.dataset()
                _check_file(dataset, index)
                item = dataset[index]
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


def _check_file(dataset: Any, index: int) -> None:
    """Raise OSError where the file of an item, if the data set says which, is no regular one."""
    samples = getattr(dataset, "samples", None)
    if isinstance(samples, list) and isinstance(samples[index], tuple) and isinstance(samples[index][0], str):
        open_regular(samples[index][0]).close()
