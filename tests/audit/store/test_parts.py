from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from memrecon_fast.audit.store.parts import PART_SCHEMA, PICTURES, Parts, Row, open_address, unpack
from memrecon_fast.audit.store.records import Cell
from tests.helpers.auditing import make_record

CELL = Cell("members", "center", "paper")
OTHER = dataclasses.replace(CELL, split="controls")
RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (4, 3, 5, 7), np.uint8)
IMAGE = RNG.random((3, 5, 7), np.float32)
MASK = RNG.random((3, 5, 7)) < 0.5


def right(rows: pa.Table) -> str:
    """Whatever can be read is."""
    return ""


def rows_of(*indices: int) -> list[Row]:
    return [Row(make_record(CELL, index)) for index in indices]


def indices_in(parts: Parts, cell: Cell = CELL) -> list[int]:
    return sorted(index for table in parts.read(cell) for index in table["index"].to_pylist())


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_rows_are_written_and_read(tmp_path: Path) -> None:
    parts = Parts(str(tmp_path / "new" / "folder"))
    assert list(parts.read(CELL)) == []
    rows = [Row(make_record(CELL, 7, mse=float("inf")), PICTURE, IMAGE, MASK, PICTURE[:2]), Row(make_record(CELL, 3))]
    parts.write(CELL, rows)
    (table,) = parts.read(CELL)
    assert table.schema.equals(PART_SCHEMA)
    for ours, theirs in zip(table.to_pylist(), rows, strict=True):
        assert {name: value for name, value in ours.items() if name not in PICTURES} == dataclasses.asdict(
            theirs.record
        )
    for name, array in zip(PICTURES, (PICTURE, IMAGE, MASK, PICTURE[:2]), strict=True):
        assert table[name][1].as_py() is None
        read = unpack(table[name][0].as_py())
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)


def test_each_write_is_a_file_of_its_own_beside_the_others(tmp_path: Path) -> None:
    parts = Parts(str(tmp_path))
    for cell, indices in ((CELL, (3, 4)), (OTHER, (1,)), (CELL, (0,)), (CELL, (3,))):
        parts.write(cell, rows_of(*indices))
    assert [len(table) for table in parts.read(OTHER)] == [1]
    assert sorted(len(table) for table in parts.read(CELL)) == [1, 1, 2]
    assert indices_in(parts) == [0, 3, 3, 4]
    assert parts.mend(CELL, right) == []
    parts.remove(CELL)
    assert list(parts.read(CELL)) == []
    assert indices_in(parts, OTHER) == [1]
    parts.remove(CELL)  # there are none
    parts.write(CELL, rows_of(5))
    assert indices_in(parts) == [5]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, MemoryError])
def test_a_file_appears_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    parts = Parts(str(tmp_path))
    parts.write(CELL, rows_of(1))
    before = files_in(tmp_path)
    write = pq.write_table

    def write_and_fail(table: pa.Table, where: str, **options: object) -> None:
        write(table, where, **options)
        assert len(files_in(tmp_path)) == 2
        assert indices_in(parts) == [1]  # what is not finished is not read
        raise error("while it was written")

    monkeypatch.setattr(pq, "write_table", write_and_fail)
    with pytest.raises(error, match="while it was written"):
        parts.write(CELL, rows_of(2))
    assert files_in(tmp_path) == before


def test_what_the_system_refuses_to_write_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    parts = Parts(str(tmp_path))
    parts.write(CELL, rows_of(1))
    with no_file_larger_than(1000), pytest.raises(OSError, match="File too large"):
        parts.write(CELL, rows_of(*range(2, 60)))
    assert indices_in(parts) == [1]
    assert len(files_in(tmp_path)) == 1
    parts.write(CELL, rows_of(*range(2, 60)))
    assert indices_in(parts) == list(range(1, 60))


@contextlib.contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_was_never_finished_is_removed(tmp_path: Path) -> None:
    parts = Parts(str(tmp_path))
    parts.write(CELL, rows_of(1))
    before = files_in(tmp_path)
    (tmp_path / CELL.file_stem / "0123.tmp").write_bytes(b"PAR1")
    assert indices_in(parts) == [1]
    assert parts.mend(CELL, right) == []
    assert files_in(tmp_path) == before


def damage_at(tmp_path: Path, content: bytes) -> tuple[Parts, Path]:
    """A good part file, and one with this content."""
    parts = Parts(str(tmp_path))
    parts.write(CELL, rows_of(1))
    path = tmp_path / CELL.file_stem / "damaged.parquet"
    path.write_bytes(content)
    return parts, path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("whole")
    Parts(str(folder)).write(CELL, [Row(make_record(CELL, 5), PICTURE, IMAGE, MASK), *rows_of(6, 7)])
    (path,) = (folder / CELL.file_stem).iterdir()
    return path.read_bytes()


def test_a_file_that_was_cut_short_anywhere_is_set_aside(tmp_path: Path, whole: bytes) -> None:
    for size in {0, 1, 3, 4, 5, 7, 8, 12, *range(20, len(whole), 97), len(whole) - 8, len(whole) - 1}:
        folder = tmp_path / str(size)
        parts, path = damage_at(folder, whole[:size])
        (message,) = parts.mend(CELL, right)
        assert message.startswith(f"{path} cannot be read as records of an audit: ")
        assert not path.exists()
        assert indices_in(parts) == [1]


def test_a_flipped_bit_is_noticed_or_changes_nothing(tmp_path: Path, whole: bytes) -> None:
    parts, path = damage_at(tmp_path, whole)
    good = pq.read_table(path)
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    noticed = 0
    for position in (*range(4, footer, 23), *range(footer, len(whole), 101)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        if parts.mend(CELL, right):
            noticed += position < footer
            assert not path.exists()
        else:  # in what Parquet files say beside their content: the smallest and the largest values, and the like
            assert pq.read_table(path).equals(good)
    assert noticed > 80  # of 250 before the footer: many bytes are of headers


def test_a_flipped_bit_of_the_pixels_is_noticed(tmp_path: Path, whole: bytes) -> None:
    at = whole.index(IMAGE.tobytes()[:40])
    parts, path = damage_at(tmp_path, whole[: at + 7] + bytes([whole[at + 7] ^ 1]) + whole[at + 8 :])
    (message,) = parts.mend(CELL, right)
    assert "CRC" in message
    assert not path.exists()


def test_a_damaged_file_is_not_read(tmp_path: Path, whole: bytes) -> None:
    parts, path = damage_at(tmp_path, whole[:-9])
    with pytest.raises(ValueError, match=rf"{path.name} cannot be read as records"):
        list(parts.read(CELL))


def test_anothers_parquet_file_is_removed(tmp_path: Path) -> None:
    parts, path = damage_at(tmp_path, b"")
    pq.write_table(pa.table({"index": [1]}), path)
    assert parts.mend(CELL, right) == [f"{path} holds no records of an audit: its columns are ['index']"]
    assert indices_in(parts) == [1]


def test_an_address_works_like_a_folder(tmp_path: Path, whole: bytes) -> None:
    folder = tmp_path / "a folder"
    address, path = Parts(folder.as_uri()), Parts(str(folder))
    address.check()
    address.write(CELL, rows_of(1, 2))
    path.write(CELL, rows_of(3))
    assert indices_in(address) == indices_in(path) == [1, 2, 3]
    (folder / CELL.file_stem / "damaged.parquet").write_bytes(whole[:-1])
    (folder / CELL.file_stem / "0123.tmp").write_bytes(whole)
    (message,) = address.mend(CELL, right)
    assert "damaged.parquet cannot be read" in message
    assert len(files_in(folder)) == 3
    address.remove(CELL)
    assert files_in(folder) == ["_aside/members.paper.center.damaged.parquet"]


def test_a_slash_at_the_end_does_not_matter(tmp_path: Path) -> None:
    Parts(f"{tmp_path}/").write(CELL, rows_of(1))
    assert indices_in(Parts(str(tmp_path))) == indices_in(Parts(f"{tmp_path.as_uri()}/")) == [1]


@pytest.mark.parametrize("address", ["nonsense://bucket/folder", "://", "file://relative/path"])
def test_an_address_that_cannot_be_opened_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=f"{address} is no folder and no address that pyarrow.fs can open"):
        open_address(address)


def test_where_no_file_can_be_written_is_refused(tmp_path: Path) -> None:
    parts = Parts(str(tmp_path / "folder"))
    parts.check()
    assert files_in(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"no part files can be written in .*file/below"):
        Parts(str(tmp_path / "file" / "below")).check()


def test_a_folder_is_that_of_this_machine(tmp_path: Path) -> None:
    files, path = open_address(str(tmp_path))
    assert isinstance(files, fs.LocalFileSystem)
    assert path == str(tmp_path)
