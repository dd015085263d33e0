"""Images in a column of Parquet files, as data sets of Hugging Face have them; a few rows are in memory at a time."""

from __future__ import annotations

import bisect
import dataclasses
import io
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from memrecon_fast.common.errors import reason
from memrecon_fast.images.decode import decode
from memrecon_fast.images.source import Source

COLUMNS = ("image", "img")
_BUFFER = 2**20  # bytes of the file that are read at a time
_BATCH = 2**20  # bytes in a batch of rows, if that is no fewer than _MIN_ROWS rows
_MIN_ROWS, _MAX_ROWS = 16, 256
_BATCHES = 6  # that are kept: several threads do not ask for the rows quite in their order


def open_parquet(folder: Path, files: tuple[str, ...]) -> Source:
    """The images in these Parquet files of a folder, one after the other.

    The images are files in the column "image" or "img", or in the only one that can be meant: of struct {bytes, path},
    or binary. Their names are their paths, where all have one and no two the same, else FILE:ROW.

    Raises ValueError where there is no such column, or no rows.
    """
    tables = [_open(folder, file) for file in files]
    paths = [path for table in tables for path in table.paths]
    names = [f"{table.file}:{row}" for table in tables for row in range(table.rows)]
    if not names:
        raise ValueError(f"there are no rows in {folder / files[0]}" + (" and the others" if len(files) > 1 else ""))
    if len(paths) == len(names) == len(set(paths)):
        names = paths
    read = ParquetImages(folder.absolute(), tuple(dataclasses.replace(table, paths=()) for table in tables))
    return Source(tuple(names), read)


@dataclasses.dataclass(frozen=True)
class _Table:
    file: str
    column: str
    """The path of what holds the bytes: `image.bytes` for a struct."""
    groups: tuple[int, ...]
    """The row at which each row group begins, and the number of rows."""
    rows_in_batch: int
    paths: tuple[str, ...]
    """Of the images that have one."""

    @property
    def rows(self) -> int:
        return self.groups[-1]


class ParquetImages:
    """Reads images; best in their order, as a row is found by reading its row group from the beginning.

    In memory are a few hundred rows and, by the nature of the format, the page of the file that they are in.
    May be called by several threads. Pickled, it is the names of the files.
    """

    def __init__(self, folder: Path, tables: tuple[_Table, ...]) -> None:
        self._folder = folder
        self._tables = tables
        self._begins = [0, *itertools.accumulate(table.rows for table in tables)]
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self._folder, "tables": self._tables}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __call__(self, index: int) -> NDArray[np.uint8]:
        """Image `index`. Raises ValueError."""
        with self._lock:
            content = self._cell(index)
        if content is None:
            raise ValueError("its cell holds no bytes")
        return decode(io.BytesIO(content))

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[tuple[int, pa.Array]] = deque(maxlen=_BATCHES)  # with the index of the first row
        self._batches: Iterator[pa.Array] = iter(())
        self._which = 0  # the file that the batches are of
        self._next = -1  # the index of the first row of the next batch

    def _cell(self, index: int) -> bytes | None:
        while True:
            for begin, cells in self._kept:
                if begin <= index < begin + len(cells):
                    value = cells[index - begin].as_py()
                    content: bytes | None = value["bytes"] if isinstance(value, dict) else value
                    return content
            self._advance(index)

    def _advance(self, index: int) -> None:
        """Read the next batch on the way to the row; from the beginning of its row group where that is shorter."""
        which = bisect.bisect_right(self._begins, index) - 1
        table, first = self._tables[which], self._begins[which]
        group = bisect.bisect_right(table.groups, index - first) - 1
        if which != self._which or not first + table.groups[group] <= self._next <= index:
            self._which, self._next = which, first + table.groups[group]
            self._batches = _read(self._folder, table, group)
        try:
            cells = next(self._batches, None)
        except (pa.ArrowException, OSError) as error:
            self._next = -1
            raise ValueError(f"the Parquet file {table.file} is damaged there: {reason(error)}") from error
        if cells is None:
            self._next = -1
            raise ValueError(f"the Parquet file {table.file} is shorter than it was")
        self._kept.append((self._next, cells))
        self._next += len(cells)


def _open(folder: Path, file: str) -> _Table:
    path = folder / file
    try:
        with pq.ParquetFile(path, pre_buffer=False) as opened:
            metadata, schema = opened.metadata, opened.schema_arrow
            column = _image_column(schema, path)
            paths: list[str | None] = []
            if pa.types.is_struct(schema.field(column).type):
                if _has_field(schema.field(column).type, "path", pa.types.is_string, pa.types.is_large_string):
                    paths = [
                        cell and cell["path"] for cell in opened.read([f"{column}.path"]).column(column).to_pylist()
                    ]
                column += ".bytes"
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as a Parquet file: {reason(error)}") from error
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    size = sum(
        group.column(i).total_uncompressed_size
        for group in groups
        for i in range(group.num_columns)
        if group.column(i).path_in_schema == column
    )
    return _Table(
        file=file,
        column=column,
        groups=(0, *itertools.accumulate(group.num_rows for group in groups)),
        rows_in_batch=min(max(_BATCH * metadata.num_rows // max(size, 1), _MIN_ROWS), _MAX_ROWS),
        paths=tuple(filter(None, paths)),
    )


def _image_column(schema: pa.Schema, path: Path) -> str:
    found = [field.name for field in schema if _may_hold_images(field.type)]
    named = [name for name in COLUMNS if name in found]
    if named or len(found) == 1:
        return (named or found)[0]
    raise ValueError(
        f"{path} has {'several columns' if found else 'no column'} that may hold images, of struct {{bytes, path}} or "
        f"binary, and none of them is called image or img; its columns are {', '.join(schema.names)}"
    )


def _may_hold_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return _has_field(kind, "bytes", pa.types.is_binary, pa.types.is_large_binary)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _has_field(struct: pa.StructType, name: str, *tests: Callable[[pa.DataType], bool]) -> bool:
    return struct.get_field_index(name) >= 0 and any(test(struct.field(name).type) for test in tests)


def _read(folder: Path, table: _Table, first_group: int) -> Iterator[pa.Array]:
    """The column from a row group on, batch by batch."""
    # pre_buffer would read the column of the whole row group, and so it would be without a buffer
    with pq.ParquetFile(folder / table.file, buffer_size=_BUFFER, pre_buffer=False) as opened:
        for group in range(first_group, opened.num_row_groups):  # no batch of two: one of them may be damaged
            for batch in opened.iter_batches(table.rows_in_batch, [group], [table.column], use_threads=False):
                yield batch.column(0)
