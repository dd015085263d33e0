"""Images from the files of a folder."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from memrecon_fast.common.errors import reason
from memrecon_fast.images.decode import IMAGE_SUFFIXES, decode, printable
from memrecon_fast.images.source import Source

MARKER = "audit.json"
"""A folder that holds a file of this name holds results, which may be pictures, and is passed over."""
PARQUET_SUFFIX = ".parquet"


def open_folder(text: str, pixel_range: tuple[float, float]) -> Source:
    """The image files in a folder and in those below, in the order of their relative paths; hidden and other files are
    passed over. See `decode.read_image` for what is read. If there are none, its Parquet files, in that order.

    pixel_range: is not needed, as these files hold integers.
    """
    folder = Path(text)
    files = _files_below(folder)
    images = tuple(file for file in files if file.lower().endswith(IMAGE_SUFFIXES))
    if images:
        return Source(tuple(map(printable, images)), partial(_read_from_folder, folder.absolute(), images))
    tables = tuple(file for file in files if file.lower().endswith(PARQUET_SUFFIX))
    if tables:
        from memrecon_fast.images.parquet import open_parquet  # pyarrow is not needed for image files

        return open_parquet(folder, tables)
    raise ValueError(
        f"the folder {folder} holds no image files (such as .png, .jpg, .tif, .webp) and no .parquet files"
    )


def _files_below(folder: Path) -> list[str]:
    """The relative paths of all files that are not hidden, nor in a hidden folder or one with a `MARKER`, sorted."""
    found: list[str] = []
    try:
        for parent, folders, files in os.walk(folder, onerror=_raise):
            if MARKER in files:
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


def _read_from_folder(folder: Path, files: tuple[str, ...], index: int) -> NDArray[Any]:
    try:
        with open(folder / files[index], "rb") as file:
            return decode(file)
    except OSError as error:
        raise ValueError(f"it cannot be read: {reason(error)}") from error
