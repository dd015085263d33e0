"""The arrays of NumPy's files. What a file says of itself is compared with what it holds before memory is taken."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from memrecon_fast.common.errors import reason
from memrecon_fast.common.files import open_regular, placeholder
from memrecon_fast.common.memory import available_memory, in_units

ARRAY_SUFFIXES = (".npy", ".npz")
_MAX_NAMED = 8


class Header(NamedTuple):
    """What the beginning of a `.npy` file says."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]
    offset: int
    """In bytes, of the first entry."""

    @property
    def size(self) -> int:
        """Of the entries, in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"


def read_array(
    path: Path, part: str | None = None, may_be_meant: Callable[[Header], bool] | None = None
) -> NDArray[Any]:
    """The array of a `.npy` file, mapped into memory, or one of an `.npz` file, read into memory.

    part: the name of the array in an `.npz` file; needed where there are several, unless `may_be_meant` is true of one
        alone.

    Nothing is unpickled. Raises ValueError.
    """
    try:
        with open_regular(path) as file:
            beginning = file.read(64)
            file.seek(0)
            if not beginning:
                raise ValueError("it is empty")
            if stands_for := placeholder(beginning):
                raise ValueError(f"it is {stands_for}")
            if beginning.startswith(b"PK"):
                return _read_from_archive(file, part, may_be_meant)
            if part is not None:
                raise ValueError(f"it holds one array, and no {part!r}")
            return _map(file)
    except Exception as error:  # NumPy and its decompressors raise many kinds on a damaged file
        raise ValueError(f"{path} cannot be read as a NumPy array: {reason(error)}") from error


def array_names(path: Path, may_be_meant: Callable[[Header], bool]) -> tuple[list[str], list[str]]:
    """The names of the arrays of an `.npz` file that may be meant, and of the others; both empty for another file."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            headers = _headers(archive)
    except Exception:  # what is wrong with it is said where it is read
        return [], []
    meant = [name for name, header in headers.items() if header is not None and may_be_meant(header)]
    return meant, [name for name in headers if name not in meant]


def _map(file: BinaryIO) -> NDArray[Any]:
    header = _read_header(file)
    size = file.seek(0, 2)
    if header.offset + header.size > size:
        raise ValueError(f"its header declares {header}, {in_units(header.size)}, and the file has {in_units(size)}")
    if not header.size:  # nothing can be mapped
        return np.empty(header.shape, header.dtype)
    order: Any = "F" if header.fortran_order else "C"
    return np.memmap(file, header.dtype, "r", header.offset, header.shape, order)


def _read_header(file: IO[bytes]) -> Header:
    """Raises ValueError for what is no `.npy` file, and for an array of Python objects."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):  # the third is for names of fields that are not Latin
        raise ValueError("it holds no array of plain numbers")
    read: Any = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not unpickled")
    if any(length < 0 for length in shape):
        raise ValueError(f"its header declares the shape {shape}")
    return Header(shape, fortran_order, dtype, file.tell())


def _read_from_archive(file: BinaryIO, part: str | None, may_be_meant: Callable[[Header], bool] | None) -> NDArray[Any]:
    with zipfile.ZipFile(file) as archive:
        headers = _headers(archive)
        name = _choose(headers, part, may_be_meant)
        if (count := archive.namelist().count(name)) > 1:
            raise ValueError(
                f"it holds {count} arrays that are called {name!r}, which may differ; save it again with one"
            )
        header = headers[name]
        if header is None:
            raise ValueError(f"what it holds as {name!r} is no array of plain numbers")
        stored = archive.getinfo(name).file_size
        if header.offset + header.size != stored:
            raise ValueError(
                f"the header of {name!r} declares {header}, {in_units(header.size)}, and there are {in_units(stored)}"
            )
        free = available_memory()
        if free is not None and header.size > free:
            raise ValueError(
                f"{name!r} takes {in_units(header.size)} of memory, and {in_units(free)} are free; saved as a .npy "
                "file, its images are read one at a time"
            )
        with archive.open(name) as member:
            array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
    return array


def _headers(archive: zipfile.ZipFile) -> dict[str, Header | None]:
    """Of each member; None for what is no array of plain numbers."""
    headers: dict[str, Header | None] = {}
    for name in archive.namelist():
        with archive.open(name) as member:
            try:
                headers[name] = _read_header(member)
            except ValueError:
                headers[name] = None
    return headers


def _choose(headers: dict[str, Header | None], part: str | None, may_be_meant: Callable[[Header], bool] | None) -> str:
    """The name of the member that is meant. Raises ValueError where it is none or several."""
    if part is not None:
        found = [name for name in (part, f"{part}.npy") if name in headers]
        if len(found) > 1:
            raise ValueError(
                f"it holds both {' and '.join(found)}, which may be meant by {part!r}; save it with other names"
            )
        if found:
            return found[0]
        raise ValueError(f"it holds no {part!r}; expected one of {_listed(headers)}")
    if len(headers) == 1:
        return next(iter(headers))
    meant = [name for name, header in headers.items() if header and may_be_meant is not None and may_be_meant(header)]
    if len(meant) == 1:
        return meant[0]
    what = f"{len(meant)} of which may be images" if meant else "none of which is known to be meant"
    raise ValueError(
        f"it holds {len(headers)} arrays, {what}; name one, FILE.npz:NAME, of {_listed(headers, meant or None)}"
    )


def _listed(headers: dict[str, Header | None], names: list[str] | None = None) -> str:
    """Names, types and shapes, without the suffix that NumPy adds."""
    named = list(headers) if names is None else names
    words = [f"{name.removesuffix('.npy')!r} ({headers[name] or 'no array'})" for name in named[:_MAX_NAMED]]
    return ", ".join(words) + (f" and {len(named) - _MAX_NAMED} more" if len(named) > _MAX_NAMED else "")
