"""Images in a column of Parquet files, as data sets of Hugging Face have them; a few rows are in memory at a time."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from memrecon_fast.common.errors import reason
from memrecon_fast.common.files import open_regular, placeholder
from memrecon_fast.common.memory import in_units
from memrecon_fast.images.cells import MAX_CELL, Column, find_column, look_at_cell
from memrecon_fast.images.source import PIXEL_RANGE, Look, Size, Source
from memrecon_fast.images.splits import split_of

_SPLIT_COLUMNS = ("split", "subset", "partition", "set")
_BUFFER = 2**20  # bytes of the file that are read at a time
_BATCH = 2**20  # bytes in a batch of rows, if that is no fewer than _MIN_ROWS rows
_MIN_ROWS, _MAX_ROWS = 16, 256
_MAX_GROWTH, _LARGE = 100, 2**26  # a column of more bytes that grows more when it is decompressed may be a bomb
_BATCHES = 6  # that are kept: several threads do not ask for the rows quite in their order


def open_parquet(
    folder: Path,
    files: tuple[str, ...],
    pixel_range: tuple[float, float] = PIXEL_RANGE,
    remarks: tuple[str, ...] = (),
    part: str | None = None,
) -> Source:
    """The images in these Parquet files of a folder, one after the other.

    The images are in the column "image" or "img", or in the only one that can be meant, see `cells.find_column`: files
    of images as struct {bytes, path} or binary, or text or pixels. Their names are their paths, where all have one and
    no two the same, else FILE:ROW. They are turned by their EXIF orientation, as the library `datasets` does.

    pixel_range: of float pixels. part: COLUMN, that of the images; where no column is called so SPLIT: only the rows of
        it, where a column "split" names several; or COLUMN:SPLIT.

    Raises ValueError where there is no such column, or no rows, or where the rows belong to several splits.
    """
    tables = [_open(folder, file, part) for file in files]
    split = tables[0].split
    paths = [path for table in tables for path in table.paths]
    names = [f"{table.file}:{row}" for table in tables for row in range(table.rows)]
    if not names:
        raise ValueError(f"there are no rows in {folder / files[0]}" + (" and the others" if len(files) > 1 else ""))
    if len(paths) == len(names) == len(set(paths)):
        names = paths
    splits = tuple(itertools.chain.from_iterable(table.splits for table in tables))
    rows = _rows_of_split(splits, split, folder / files[0], tables[0].column.name if part else None)
    plain = tuple(dataclasses.replace(table, paths=(), splits=()) for table in tables)
    read = ParquetImages(folder.absolute(), plain, pixel_range)
    if rows is None:
        return Source(tuple(names), read, read.look, remarks)
    chosen = tuple(names[row] for row in rows)
    return Source(chosen, partial(_read_row, read, rows), partial(_look_at_row, read, rows), remarks)


def _rows_of_split(
    splits: tuple[str | None, ...], split: str | None, path: Path, column: str | None
) -> tuple[int, ...] | None:
    """The rows of a split that was named; None for all rows. Raises ValueError where there are several and none was
    named, or where there are none of it.

    column: the one that was named, if one was, for messages."""
    counts = Counter(splits)
    listed = ", ".join(f"{count} rows of {name!r}" for name, count in counts.most_common(8))
    if split is not None:
        rows = tuple(row for row, name in enumerate(splits) if name == split)
        if not rows:
            there = f", but {listed}" if listed else ", and no other"
            raise ValueError(f"{path} has no column and no rows of the split {split!r}{there}")
        return rows
    if len({split_of(name) for name in counts if name} - {None}) > 1:
        example = next(name for name in counts if name)
        named = f"{path}:{example}" if column is None else f"{path}:{column}:{example}"
        raise ValueError(f"{path} holds several splits: {listed}; name one, for instance {named}")
    return None


def _read_row(read: ParquetImages, rows: Sequence[int], index: int) -> NDArray[Any]:
    return read(rows[index])


def _look_at_row(read: ParquetImages, rows: Sequence[int], index: int, size: Size | None) -> Look:
    return read.look(rows[index], size)


@dataclasses.dataclass(frozen=True)
class _Table:
    file: str
    column: Column
    groups: tuple[int, ...]
    """The row at which each row group begins, and the number of rows."""
    rows_in_batch: int
    paths: tuple[str, ...]
    """Of the images that have one."""
    splits: tuple[str | None, ...]
    """Of each row, where there is a column that names one."""
    split: str | None
    """The one that is wanted; None: all rows."""

    @property
    def rows(self) -> int:
        return self.groups[-1]


class ParquetImages:
    """Reads images; best in their order, as a row is found by reading its row group from the beginning.

    In memory are a few hundred rows and, by the nature of the format, the page of the file that they are in.
    May be called by several threads. Pickled, it is the names of the files.
    """

    def __init__(
        self, folder: Path, tables: tuple[_Table, ...], pixel_range: tuple[float, float] = PIXEL_RANGE
    ) -> None:
        self._folder = folder
        self._pixel_range = pixel_range
        self._tables = tables
        self._folders = [(folder / table.file).parent for table in tables]
        self._begins = [0, *itertools.accumulate(table.rows for table in tables)]
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self._folder, "tables": self._tables, "pixel_range": self._pixel_range}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __call__(self, index: int) -> NDArray[Any]:
        """Image `index`. Raises ValueError."""
        return self.look(index).pixels

    def look(self, index: int, size: Size | None = None) -> Look:
        """Image `index`, see `Source.look`."""
        with self._lock:
            cell = self._cell(index)
        which = self._which_file(index)
        return look_at_cell(cell, self._tables[which].column.kind, self._folders[which], self._pixel_range, size)

    def _which_file(self, index: int) -> int:
        return bisect.bisect_right(self._begins, index) - 1

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[tuple[int, pa.Array]] = deque(maxlen=_BATCHES)  # with the index of the first row
        self._batches: Iterator[pa.Array] = iter(())
        self._which = 0  # the file that the batches are of
        self._next = -1  # the index of the first row of the next batch

    def _cell(self, index: int) -> pa.Scalar:
        while True:
            for begin, cells in self._kept:
                if begin <= index < begin + len(cells):
                    return cells[index - begin]
            self._advance(index)

    def _advance(self, index: int) -> None:
        """Read the next batch on the way to the row; from the beginning of its row group where that is shorter."""
        which = self._which_file(index)
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


def _open(folder: Path, file: str, part: str | None) -> _Table:
    path = folder / file
    try:
        with open_regular(path) as raw, _opened(raw) as opened:
            metadata, schema = opened.metadata, opened.schema_arrow
            wanted, split = _column_and_split(schema.names, part)
            try:
                column = find_column(schema, wanted)
            except ValueError as error:
                which = f"; {split} is none of them" if split and wanted is None else ""
                raise ValueError(f"{path} {error}{which}") from error
            rows_in_batch = _check_sizes(metadata, column, path, raw.seek(0, 2))
            paths: list[str | None] = []
            if column.has_paths:
                paths = [cell and cell["path"] for cell in _column(opened, column.name, "path").to_pylist()]
            splits: list[str | None] = []
            named = [field.name for field in schema if field.name.lower() in _SPLIT_COLUMNS]
            if named and pa.types.is_string(_value_type(schema.field(named[0]).type)):
                splits = pc.cast(_column(opened, named[0]), pa.string()).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as a Parquet file: {reason(error)}") from error
    groups = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return _Table(
        file=file,
        column=column,
        groups=(0, *itertools.accumulate(groups)),
        rows_in_batch=rows_in_batch,
        paths=tuple(filter(None, paths)),
        splits=tuple(splits),
        split=split,
    )


def _column_and_split(columns: Sequence[str], part: str | None) -> tuple[str | None, str | None]:
    """Of COLUMN, SPLIT or COLUMN:SPLIT; a column's name may have colons of its own, and comes first."""
    if part is None:
        return None, None
    for at in (len(part), *(at for at, one in enumerate(part) if one == ":")):
        if part[:at] in columns:
            return part[:at], part[at + 1 :] or None
    return None, part


def _check_sizes(metadata: pq.FileMetaData, column: Column, path: Path, size: int) -> int:
    """How many rows of the column are read at a time. Raises ValueError where a file of `size` bytes says that it holds
    so much that it may be a decompression bomb."""
    if metadata.num_rows > 8 * size:
        raise ValueError(f"{path} declares {metadata.num_rows} rows, which {in_units(size)} cannot hold")
    total, largest_dictionary = 0, 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            name = chunk.path_in_schema
            if name != column.name and not name.startswith(f"{column.name}."):
                continue
            content, stored = chunk.total_uncompressed_size, chunk.total_compressed_size
            per_row = max(content, chunk.num_values) / max(group.num_rows, 1)
            if per_row > MAX_CELL or (content > _LARGE and content > _MAX_GROWTH * stored):
                raise ValueError(
                    f"{path} may be a decompression bomb: {in_units(max(content, chunk.num_values))} of its column "
                    f"{column.name} come from {in_units(stored)}, in {group.num_rows} rows; written without "
                    f"compression it is read, if no row has more than {in_units(MAX_CELL)}"
                )
            total += chunk.num_values * 8 if column.kind == "pixels" else content
            if chunk.has_dictionary_page and chunk.dictionary_page_offset:
                in_file = chunk.data_page_offset - chunk.dictionary_page_offset
                largest_dictionary = max(largest_dictionary, in_file * content // max(stored, 1))  # decompressed
    rows: int = min(max(_BATCH * metadata.num_rows // max(total, 1), _MIN_ROWS), _MAX_ROWS)
    return max(min(rows, _LARGE // max(largest_dictionary, 1)), 1)  # each row may be the largest of the dictionary


def _opened(file: BinaryIO) -> pq.ParquetFile:
    """Raises ArrowInvalid for what is no Parquet file."""
    beginning = file.read(64)
    if stands_for := placeholder(beginning):
        raise pa.ArrowInvalid(f"it is {stands_for}")
    if not beginning:
        raise pa.ArrowInvalid("it is empty")
    # pre_buffer would read the column of the whole row group, and so it would be without a buffer
    return pq.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _column(opened: pq.ParquetFile, name: str, field: str | None = None) -> pa.ChunkedArray:
    return opened.read([name if field is None else f"{name}.{field}"]).column(name)


def _read(folder: Path, table: _Table, first_group: int) -> Iterator[pa.Array]:
    """The column from a row group on, batch by batch."""
    with open_regular(folder / table.file) as file, _opened(file) as opened:
        leaves = list(table.column.leaves)
        for group in range(first_group, opened.num_row_groups):  # no batch of two: one of them may be damaged
            for batch in opened.iter_batches(table.rows_in_batch, [group], leaves, use_threads=False):
                yield batch.column(0)
