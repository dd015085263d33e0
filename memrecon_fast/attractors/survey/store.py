"""The tables of a survey in its folder: a file for each block that is done, and one for each table that is complete.

A file appears whole or not at all, its pages carry checksums, and it notes the survey and the table that it is of.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from memrecon_fast.attractors.survey.table import INDEX, Table
from memrecon_fast.common.files import open_regular, remove_unfinished, replacing

TABLES = "tables"
ASIDE = "_aside"
"""The folder for files that are damaged or hold what they should not."""
_SUFFIX = ".parquet"
_NOTE = b"memrecon_fast.table"


@dataclasses.dataclass(frozen=True)
class Store:
    """The tables of a survey.

    run: its folder. plan: `manifest.plan_digest`, by which a file is known to be of this survey.
    """

    run: Path
    plan: str

    def mend(self, table: Table) -> list[str]:
        """Remove unfinished files, and set those aside that are damaged or hold what they should not: it is computed
        again. Returns a line on each of these."""
        faults = {}
        for folder in (self._root, self._folder(table.name)):
            remove_unfinished(folder)
        complete = self._complete(table.name)
        if complete.exists() and (fault := self._fault_of_complete(table)):
            faults[complete] = fault
        if self._folder(table.name).is_dir():
            expected = {self._block(table.name, block): indices for block, indices in table.blocks.items()}
            for path in sorted(self._folder(table.name).iterdir()):
                if path not in expected:
                    faults[path] = f"{path} is no block of this table"
                elif fault := self._fault(path, table, expected[path]):
                    faults[path] = fault
        for path in faults:
            self._set_aside(table.name, path)
        if complete.exists():  # what is left in between was left by an interruption
            self._remove_blocks(table.name)
        return list(faults.values())

    def has_complete(self, name: str) -> bool:
        """Whether the table is in one file."""
        return self._complete(name).exists()

    def done(self, table: Table) -> set[int]:
        """The blocks that are done, of a table that is not complete."""
        return {block for block in table.blocks if self._block(table.name, block).exists()}

    def write(self, table: Table, block: int, rows: pa.Table) -> None:
        """A block is done."""
        self._write(self._block(table.name, block), [rows], table, 1)

    def read_block(self, table: Table, block: int) -> pa.Table:
        """Its rows. Raises ValueError where its file is damaged."""
        return pa.concat_tables(self._read(self._block(table.name, block), table.name, table.schema))

    def complete(self, table: Table, blocks: Sequence[int]) -> None:
        """The table ends with the last of these blocks, the first ones: join them into one file."""
        self._write(self._complete(table.name), (self.read_block(table, block) for block in blocks), table, len(blocks))
        self._remove_blocks(table.name)

    def read(self, name: str, schema: pa.Schema) -> pa.Table:
        """The rows of a table so far, by rising index; none where nothing is done. Raises ValueError where a file is
        damaged, or of another survey."""
        try:
            return pa.concat_tables([schema.empty_table(), *self.pieces(name, schema)])
        except ValueError:
            if not self._complete(name).exists():  # a survey at work may have completed it meanwhile
                raise
            return pa.concat_tables([schema.empty_table(), *self.pieces(name, schema)])

    def pieces(self, name: str, schema: pa.Schema) -> Iterator[pa.Table]:
        """The same, block by block."""
        if self._complete(name).exists():
            yield from self._read(self._complete(name), name, schema)
            return
        blocks = [path for path in self._folder(name).glob(f"*{_SUFFIX}") if path.stem.isdecimal()]
        for path in sorted(blocks, key=lambda path: int(path.stem)):
            yield from self._read(path, name, schema)

    @property
    def _root(self) -> Path:
        return self.run / TABLES

    def _folder(self, name: str) -> Path:
        return self._root / name

    def _complete(self, name: str) -> Path:
        return self._root / f"{name}{_SUFFIX}"

    def _block(self, name: str, block: int) -> Path:
        return self._folder(name) / f"{block:06d}{_SUFFIX}"

    def _write(self, path: Path, pieces: Iterable[pa.Table], table: Table, blocks: int) -> None:
        """A piece is a group of rows in the file: no more than one is in memory."""
        path.parent.mkdir(parents=True, exist_ok=True)
        note = {_NOTE: json.dumps({"plan": self.plan, "table": table.name, "blocks": blocks})}
        with (
            replacing(path) as temporary,
            pq.ParquetWriter(temporary, table.schema.with_metadata(note), write_page_checksum=True) as file,
        ):
            for rows in pieces:
                file.write_table(rows.replace_schema_metadata(note).combine_chunks())

    def _read(self, path: Path, name: str, schema: pa.Schema) -> Iterator[pa.Table]:
        """The rows of a file, block by block. Raises ValueError where it is damaged, or of something else."""
        with self._open(path, name, schema) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group).replace_schema_metadata(None)

    @contextlib.contextmanager
    def _open(self, path: Path, name: str, schema: pa.Schema) -> Iterator[pq.ParquetFile]:
        try:
            with open_regular(path) as stream, pq.ParquetFile(stream, page_checksum_verification=True) as file:
                found = _note(file.schema_arrow)
                if found.get("plan") != self.plan:
                    raise ValueError(f"{path} is of another survey: another model, other images or settings")
                if found.get("table") != name or not file.schema_arrow.equals(schema):
                    raise ValueError(f"{path} holds no rows of the table {name}")
                yield file
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
        except pa.ArrowException as error:  # ArrowInvalid is a ValueError as well, but names no file
            raise ValueError(f"{path} cannot be read: {error}") from error

    def _fault_of_complete(self, table: Table) -> str:
        """What is wrong with the file of a complete table; "" if nothing is."""
        path = self._complete(table.name)
        try:
            with self._open(path, table.name, table.schema) as file:
                blocks = int(_note(file.schema_arrow)["blocks"])
        except ValueError as error:
            return str(error)
        if blocks < len(table.blocks) and table.stop is None:
            return f"{path} is not what its name says: it ends too early"
        indices = [index for block in list(table.blocks.values())[:blocks] for index in block]
        return self._fault(path, table, indices)

    def _fault(self, path: Path, table: Table, indices: Sequence[int]) -> str:
        """What is wrong with a file of these rows; "" if nothing is."""
        found: list[int] = []
        try:
            for rows in self._read(path, table.name, table.schema):
                found += rows[INDEX].to_pylist()
        except ValueError as error:
            return str(error)
        return "" if found == list(indices) else f"{path} is not what its name says: it holds other rows"

    def _set_aside(self, name: str, path: Path) -> None:
        aside = self._root / ASIDE
        aside.mkdir(exist_ok=True)
        path.rename(aside / f"{name}.{path.stem}.{uuid.uuid4().hex}{path.suffix}")

    def _remove_blocks(self, name: str) -> None:
        if self._folder(name).is_dir():
            shutil.rmtree(self._folder(name))


def folders_of(names: Iterable[str]) -> list[str]:
    """The folders that a survey with these tables may have, by their paths in it."""
    return [TABLES, f"{TABLES}/{ASIDE}", *(f"{TABLES}/{name}" for name in names)]


def _note(schema: pa.Schema) -> dict[str, Any]:
    try:
        found = json.loads((schema.metadata or {}).get(_NOTE, b"{}"))
    except ValueError:
        return {}
    valid = isinstance(found, dict) and isinstance(found.get("blocks"), int)
    return found if valid else {}
