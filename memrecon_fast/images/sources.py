"""Where images come from: a folder, a NumPy array, Parquet files, a torchvision data set; read one at a time.

A new kind of source is one module, with a function that opens it, and one line of `SOURCES`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from memrecon_fast.images.arrays import from_array, from_iterable, open_array_file
from memrecon_fast.images.datasets import open_dataset
from memrecon_fast.images.folder import PARQUET_SUFFIX, open_folder
from memrecon_fast.images.foreign import what_to_do
from memrecon_fast.images.numpy_files import ARRAY_SUFFIXES
from memrecon_fast.images.several import expand, join
from memrecon_fast.images.source import NOISY_PIXEL_RANGE, PIXEL_RANGE, Source, SourceKind, file_and_part

IN_MEMORY = (
    "of an array: mf.images.scan(mf.images.from_array(array)); of a data set, or what yields images or (image, label): "
    'mf.images.scan(mf.images.from_iterable(images, "images.npy"))'
)
"""How images that are no files become a source."""
Names = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""One name or several, see `open_source`."""


def _open_parquet_file(text: str, pixel_range: tuple[float, float]) -> Source:
    from memrecon_fast.images.parquet import open_parquet  # pyarrow is not needed for the others

    path, part = file_and_part(text)
    return open_parquet(path.parent, (path.name,), pixel_range, part=part)


SOURCES: list[SourceKind] = [
    SourceKind(open_dataset, prefix="torchvision:"),
    SourceKind(open_folder, folders=True),
    SourceKind(open_array_file, suffixes=ARRAY_SUFFIXES),
    SourceKind(_open_parquet_file, suffixes=(PARQUET_SUFFIX,)),
]
"""The first one that matches a name opens it."""


def open_source(names: Names, pixel_range: tuple[float, float] = PIXEL_RANGE) -> Source:
    """Open a folder, a `.npy`, `.npz` or `.parquet` file, or `torchvision:NAME:ROOT`; no image is read yet.

    What of each is read is said where it is opened: `folder.open_folder`, `arrays.open_array_file`,
    `parquet.open_parquet` and `datasets.open_dataset`; `SOURCES` has them all. Several names are one source after the
    other; a name with *, ? or [ stands for what it matches; those of files may also be image files.

    pixel_range: in which float32 pixels of an array must lie.

    Raises FileNotFoundError, ValueError or TypeError for what is wrong with all of it; a wrong image says so when read.
    """
    given = [names] if isinstance(names, (str, os.PathLike)) else names
    if not isinstance(given, (list, tuple)) or not all(isinstance(name, (str, os.PathLike)) for name in given):
        raise TypeError(f"sources of images are opened by their names, texts or paths, not {_what(names)}; {IN_MEMORY}")
    texts = [os.fspath(name) for name in given]
    if not texts or not all(texts):  # Path("") is the current folder
        raise ValueError("a source of images must be named; its name is empty")
    found = [one for text in texts for one in ([text] if _kind_of(text) else expand(text))]
    text = texts[0] if len(texts) == 1 else f"{texts[0]} and {len(texts) - 1} more"
    return dataclasses.replace(join(found, lambda one: _open(one, pixel_range), _kind_of), text=text)


def _what(given: object) -> str:
    if isinstance(given, (list, tuple)) and given:
        return f"{type(given).__name__} of {type(given[0]).__name__}"
    return type(given).__name__


def _kind_of(text: str) -> SourceKind | None:
    return next((kind for kind in SOURCES if kind.matches(text)), None)


def _open(text: str, pixel_range: tuple[float, float]) -> Source:
    kind = _kind_of(text)
    if kind is not None:
        return kind.open(text, pixel_range)
    if not Path(text).exists():
        raise FileNotFoundError(f"there is no file or folder {text}")
    if hint := what_to_do(text):
        raise ValueError(f"{text} is {hint}")
    *others, last = (suffix for kind in SOURCES for suffix in kind.suffixes)
    raise ValueError(f"{text} is neither a folder of images nor a {', '.join(others)} or {last} file")


__all__ = [
    "NOISY_PIXEL_RANGE",
    "PIXEL_RANGE",
    "SOURCES",
    "Names",
    "Source",
    "SourceKind",
    "from_array",
    "from_iterable",
    "open_source",
]
