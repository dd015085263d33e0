"""The folder of a run: complete cells, each in one file, and the part files of the others."""

from __future__ import annotations

import contextlib
import dataclasses
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memrecon_fast.audit.store.checking import fault_of_rows
from memrecon_fast.audit.store.parts import ASIDE, Parts, unpack
from memrecon_fast.audit.store.pictures import (
    GALLERY,
    SHEET,
    Picture,
    Thumbnail,
    read_pictures,
    read_thumbnails,
    write_pictures,
    write_thumbnails,
)
from memrecon_fast.audit.store.records import (
    RECORDS,
    SCHEMA,
    THUMBNAIL,
    Cell,
    Columns,
    cell_path,
    read_table,
    write_cell,
)
from memrecon_fast.common.files import UNFINISHED, open_regular, remove_unfinished, replacing

RECOVERED = "recovered"
LOCK = ".lock"


@dataclasses.dataclass(frozen=True)
class Folder:
    """A run's folder, and the part files of its incomplete cells."""

    path: Path
    parts: Parts

    def mend(self, cells: Iterable[Cell], images: Columns) -> list[str]:
        """Remove unfinished files, and set those aside that are damaged or hold what they should not: what they held is
        done again. Returns a line on each of these.

        images: as `scan.read_images` gives them.
        """
        found = []
        check_folders(self.path)
        for folder in (".", RECORDS, GALLERY, SHEET, RECOVERED):
            remove_unfinished(self.path / folder)
        for cell in cells:
            fault = self._fault(cell, images)
            if fault:
                found.append(fault)
                self._set_aside(cell)
            found += self.parts.mend(cell, partial(fault_of_rows, cell=cell, images=images, complete=False))
            if self.is_complete(cell):
                self.parts.remove(cell)  # left by an interruption in between, or by a worker that was thought dead
        return found

    def _fault(self, cell: Cell, images: Columns) -> str:
        """What is wrong with the file of a complete cell; "" if nothing is, or there is none."""
        try:
            self._complete(cell, images)
        except ValueError as error:
            return str(error)
        return ""

    def _set_aside(self, cell: Cell) -> None:
        path = cell_path(self.path, cell)
        aside = path.parent / ASIDE
        aside.mkdir(exist_ok=True)
        path.rename(aside / f"{path.stem}.{uuid.uuid4().hex}{path.suffix}")

    def done(self, cell: Cell) -> NDArray[np.int64]:
        """The indices of the images of the cell that are done, ascending."""
        table = self._complete(cell)
        tables = [table] if table is not None else self.parts.read(cell, ["index"])
        return np.unique(np.concatenate([np.empty(0, np.int64), *(table["index"].to_numpy() for table in tables)]))

    def read(self, cell: Cell, images: Columns | None = None) -> Columns:
        """The records of the cell so far, in the order of their indices: the columns of `Record` as arrays.

        images: as for `table`.
        """
        table = self.table(cell, images)
        return {name: table[name].to_numpy() for name in table.column_names}

    def table(self, cell: Cell, images: Columns | None = None) -> pa.Table:
        """The same as an Arrow table.

        images: as `scan.read_images` gives them; with them the rows are compared with what they must be, and
            ValueError is raised for the first file that `mend` would set aside.
        """
        try:
            table = self._complete(cell, images)
            if table is None:
                try:
                    table = _in_order(self._of_parts(cell, images))
                except ValueError:
                    table = self._complete(cell, images)  # an audit at work has completed it meanwhile
                    if table is None:
                        raise
        except ValueError as error:
            if images is None:
                raise
            raise ValueError(f"{error}; the audit, given again, sets it aside and does it again") from error
        return table

    def pictures(self, cell: Cell, indices: Collection[int]) -> list[Picture]:
        """The pictures of these images, as far as they were kept."""
        if cell_path(self.path, cell).exists():
            return [picture for picture in read_pictures(self._gallery(cell)) if picture.index in indices]
        return list(self._pictures(cell, indices))

    def thumbnails(self, cell: Cell, indices: Collection[int]) -> list[Thumbnail]:
        """The thumbnails of these images, as far as they were kept: of members by the headline method alone."""
        if cell_path(self.path, cell).exists():
            return [one for one in read_thumbnails(self._sheet(cell)) if one.index in indices]
        return list(self._thumbnails(cell, indices))

    def complete(
        self, cell: Cell, pictures: Sequence[int], kept: Sequence[int], thumbnails: Sequence[int] = ()
    ) -> None:
        """All rows of the cell are there: write them to one file, and beside it `pictures`, the `kept` estimates and
        `thumbnails`, each the indices of images."""
        if shown := list(self._pictures(cell, pictures)):
            write_pictures(self._gallery(cell), shown)
        if small := list(self._thumbnails(cell, thumbnails)):
            write_thumbnails(self._sheet(cell), small)
        if kept:
            self._keep_images(cell, kept)
        write_cell(self.path, cell, _in_order(self.parts.read(cell, SCHEMA.names)), self.parts.plan)
        self.parts.remove(cell)

    def is_complete(self, cell: Cell) -> bool:
        """Whether the cell is in one file."""
        return cell_path(self.path, cell).exists()

    def _complete(self, cell: Cell, images: Columns | None = None) -> pa.Table | None:
        path = cell_path(self.path, cell)
        if not path.exists():
            return None
        try:
            stream = open_regular(path)
        except OSError as error:
            raise ValueError(f"{path} cannot be opened: {error.strerror}") from error
        with stream:
            table = read_table(stream, str(path), SCHEMA, plan=self.parts.plan)
        if images is not None and (fault := fault_of_rows(table, cell, images, complete=True)):
            raise ValueError(f"{path} is not what its name says: {fault}")
        return table

    def _of_parts(self, cell: Cell, images: Columns | None) -> Iterator[pa.Table]:
        if images is None:
            return self.parts.read(cell, SCHEMA.names)
        of_parts = partial(fault_of_rows, cell=cell, images=images, complete=False)
        return (table.select(SCHEMA.names) for table in self.parts.read_sound(cell, of_parts))

    def _gallery(self, cell: Cell) -> Path:
        return self.path / GALLERY / f"{cell.file_stem}.npz"

    def _sheet(self, cell: Cell) -> Path:
        return self.path / SHEET / f"{cell.file_stem}.npz"

    def _pictures(self, cell: Cell, indices: Collection[int]) -> Iterator[Picture]:
        for index, pixels in _of(self.parts.read(cell, ["index", "picture"]), "picture", indices):
            yield Picture(index, *pixels)

    def _thumbnails(self, cell: Cell, indices: Collection[int]) -> Iterator[Thumbnail]:
        for index, pixels in _of(self.parts.read(cell, ["index", THUMBNAIL]), THUMBNAIL, indices):
            yield Thumbnail(index, *pixels)

    def _keep_images(self, cell: Cell, kept: Sequence[int]) -> None:
        """Write estimates and masks as arrays, with the index of each row in a third one; in constant memory."""
        folder = self.path / RECOVERED
        folder.mkdir(exist_ok=True)
        position = {index: row for row, index in enumerate(sorted(kept))}
        with contextlib.ExitStack() as files:
            temporary = {
                what: files.enter_context(replacing(folder / f"{cell.file_stem}.{what}.npy"))
                for what in ("index", "images", "masks")
            }
            arrays: dict[str, Any] = {}
            for table in self.parts.read(cell):
                for index, image, mask in zip(
                    *(table[name] for name in ("index", "image", "estimated_mask")), strict=True
                ):
                    if (row := position.get(index.as_py())) is not None and image.is_valid:
                        for what, content in (("images", image), ("masks", mask)):
                            array = unpack(content.as_py())
                            if what not in arrays:
                                shape = (len(position), *array.shape)
                                arrays[what] = np.lib.format.open_memmap(temporary[what], "w+", array.dtype, shape)
                            arrays[what][row] = array
            for array in arrays.values():
                array.flush()
            with open(temporary["index"], "wb") as stream:
                np.save(stream, np.array(sorted(kept)))


def check_folders(run: Path, names: Sequence[str] = (RECORDS, GALLERY, SHEET, RECOVERED, f"{RECORDS}/{ASIDE}")) -> None:
    """Raise ValueError where a folder of a run is a link or a file: what is behind a link is not its own."""
    for name in names:
        path = run / name
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise ValueError(
                f"{path} is {'a link' if path.is_symlink() else 'a file'}; a run needs a folder of its own"
            )


@contextlib.contextmanager
def locked(run: Path, kind: str = "audit") -> Iterator[None]:
    """Keep others out of the folder. Raises ValueError where one is at work in it.

    kind: what the run is, in messages.
    """
    lock = filelock.FileLock(run / LOCK)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise ValueError(f"another {kind} is at work in {run}; wait for it, or give another folder") from None
    try:
        yield
    finally:
        lock.release()


def check_empty(run: Path, kind: str = "audit") -> None:
    """Raise ValueError unless `run` is a new folder or one without files."""
    if run.exists() and not run.is_dir():
        raise ValueError(f"{run} is a file; a run needs a folder")
    ours = (LOCK, UNFINISHED)  # left by a process that was killed before it began
    if any(not path.name.endswith(ours) and not path.is_dir() for path in run.rglob("*")):
        raise ValueError(f"the folder {run} is not empty, and holds no {kind}; give one for this run alone")


def _in_order(tables: Iterable[pa.Table]) -> pa.Table:
    """All records in the order of their indices, each image once: a worker that was thought dead may write too."""
    table = pa.concat_tables([SCHEMA.empty_table(), *tables])
    _, first = np.unique(table["index"].to_numpy(), return_index=True)
    return table.take(first)


def _of(tables: Iterable[pa.Table], column: str, indices: Collection[int]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Index and pixels of these images in a column, each image once."""
    wanted = set(indices)
    for table in tables:
        for index, pixels in zip(table["index"].to_pylist(), table[column], strict=True):
            if index in wanted and pixels.is_valid:
                wanted.discard(index)
                yield index, unpack(pixels.as_py())
