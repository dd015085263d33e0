"""Part files: the results for a cell so far, a few seconds' work in each, written by any number of workers.

An image is done if its row can be read. A file appears whole or not at all, but a machine that loses power may leave a
damaged one: its pages carry checksums, and what it held is done again.
"""

from __future__ import annotations

import dataclasses
import io
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import fs

from memrecon_fast.audit.store.records import SCHEMA, THUMBNAIL, Cell, Record, of_plan, read_table
from memrecon_fast.common.files import UNFINISHED

PICTURES = ("picture", "image", "estimated_mask", THUMBNAIL)
"""The columns beside those of the records, null for most images: of the gallery, what is kept on request, and of the
contact sheet."""
PART_SCHEMA = pa.schema([*SCHEMA, *(pa.field(name, pa.binary()) for name in PICTURES)])
SUFFIX = ".parquet"
ASIDE = "_aside"
"""The folder for files that are damaged or hold wrong rows; who reads a folder of Parquet files passes it over."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A record, and the pictures that are kept with it."""

    record: Record
    picture: NDArray[np.uint8] | None = None
    """(5, C, H, W): see `pictures.make_picture`."""
    image: NDArray[np.float32] | None = None
    """(C, H, W): the estimate."""
    estimated_mask: NDArray[np.bool_] | None = None
    """(C, H, W), True = kept."""
    thumbnail: NDArray[np.uint8] | None = None
    """(2, C, H, W): see `pictures.make_thumbnail`."""


@dataclasses.dataclass(frozen=True)
class Parts:
    """Where the part files of a run are: a folder, or an address of `pyarrow.fs` such as s3://bucket/folder."""

    address: str
    plan: str = ""
    """What the files are known by to be of this audit, see `records.of_plan`."""

    def check(self) -> None:
        """Raise ValueError where no files can be written."""
        files, root = open_address(self.address)
        probe = f"{root.rstrip('/')}/{uuid.uuid4().hex}{UNFINISHED}"
        try:
            files.create_dir(root, recursive=True)
            with files.open_output_stream(probe):
                pass
            files.delete_file(probe)
        except OSError as error:
            raise ValueError(f"no part files can be written in {self.address}: {error}") from error

    def write(self, cell: Cell, rows: Sequence[Row]) -> None:
        """One more part file of the cell."""
        columns = {field.name: [getattr(row.record, field.name) for row in rows] for field in SCHEMA}
        for name in PICTURES:
            columns[name] = [pack(getattr(row, name)) for row in rows]
        files, folder = self._folder(cell)
        files.create_dir(folder, recursive=True)
        name = uuid.uuid4().hex
        unfinished = f"{folder}/{name}{UNFINISHED}"
        try:
            table = of_plan(pa.table(columns, schema=PART_SCHEMA), self.plan)
            pq.write_table(
                table,
                unfinished,
                filesystem=files,
                write_page_checksum=True,
                write_statistics=SCHEMA.names,  # those of pictures would hold a picture each
            )
            files.move(unfinished, f"{folder}/{name}{SUFFIX}")
        except BaseException:
            if files.get_file_info(unfinished).type == fs.FileType.File:
                files.delete_file(unfinished)
            raise

    def read(self, cell: Cell, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows of each part file, or these columns of them. Raises ValueError for a damaged one."""
        files, _ = self._folder(cell)
        for path in self._paths(cell, SUFFIX):
            yield self._read(files, path, columns)

    def read_sound(self, cell: Cell, fault_of: Callable[[pa.Table], str]) -> Iterator[pa.Table]:
        """The rows of each part file, pictures as well. Raises ValueError for one that is damaged or holds wrong rows.

        fault_of: what is wrong with the rows of a file that can be read; "" if nothing is.
        """
        files, _ = self._folder(cell)
        for path in self._paths(cell, SUFFIX):
            yield self._read_sound(files, path, fault_of)

    def mend(self, cell: Cell, fault_of: Callable[[pa.Table], str]) -> list[str]:
        """Remove unfinished files, set damaged and wrong ones aside; returns what is wrong with each.

        fault_of: as for `read_sound`.
        """
        files, _ = self._folder(cell)
        for path in self._paths(cell, UNFINISHED):
            files.delete_file(path)
        found = {path: fault for path in self._paths(cell, SUFFIX) if (fault := self._fault(files, path, fault_of))}
        _, root = open_address(self.address)
        aside = f"{root.rstrip('/')}/{ASIDE}"
        if found:
            files.create_dir(aside, recursive=True)
        for path in found:
            files.move(path, f"{aside}/{cell.file_stem}.{path.rsplit('/', 1)[1]}")
        return list(found.values())

    def remove(self, cell: Cell) -> None:
        """Remove the part files of a cell."""
        files, folder = self._folder(cell)
        if files.get_file_info(folder).type == fs.FileType.Directory:
            files.delete_dir(folder)

    def _folder(self, cell: Cell) -> tuple[fs.FileSystem, str]:
        files, root = open_address(self.address)
        return files, f"{root.rstrip('/')}/{cell.file_stem}"

    def _paths(self, cell: Cell, suffix: str) -> list[str]:
        files, folder = self._folder(cell)
        found = files.get_file_info(fs.FileSelector(folder, allow_not_found=True))
        return sorted(info.path for info in found if info.path.endswith(suffix))

    def _read(self, files: fs.FileSystem, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        if files.get_file_info(path).type not in (fs.FileType.File, fs.FileType.NotFound):
            raise ValueError(f"{path} cannot be opened: it is no regular file")  # a pipe would be waited for for ever
        try:
            stream = files.open_input_file(path)
        except OSError as error:
            raise ValueError(f"{path} cannot be opened: {error}") from error
        with stream:
            return read_table(stream, path, PART_SCHEMA, columns, self.plan)

    def _read_sound(self, files: fs.FileSystem, path: str, fault_of: Callable[[pa.Table], str]) -> pa.Table:
        table = self._read(files, path)
        if fault := fault_of(table):
            raise ValueError(f"{path} is not what its name says: {fault}")
        return table

    def _fault(self, files: fs.FileSystem, path: str, fault_of: Callable[[pa.Table], str]) -> str:
        """What is wrong with the file; "" if nothing is."""
        try:
            self._read_sound(files, path, fault_of)
        except ValueError as error:
            return str(error)
        return ""


def open_address(address: str) -> tuple[fs.FileSystem, str]:
    """The file system of a folder or of an address of `pyarrow.fs`, and the path there. Raises ValueError."""
    try:
        if "://" in address:
            return fs.FileSystem.from_uri(address)  # type: ignore[no-any-return]
        return fs.LocalFileSystem(), address
    except (pa.ArrowException, OSError, ImportError) as error:
        raise ValueError(f"{address} is no folder and no address that pyarrow.fs can open: {error}") from error


def unpack(content: bytes) -> NDArray[Any]:
    """The array in a cell of a picture column."""
    array: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    return array


def pack(array: NDArray[Any] | None) -> bytes | None:
    """The inverse of `unpack`; None of None."""
    if array is None:
        return None
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()
