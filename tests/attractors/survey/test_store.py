"""The blocks of a table: written whole, checked when they are read again, and joined into one file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from memrecon_fast.attractors.survey.store import ASIDE, TABLES, Store
from memrecon_fast.attractors.survey.table import Table
from tests.helpers.surveying import SCHEMA, squares

NO_MODEL: Any = None


def fill(store: Store, table: Table, blocks: range) -> None:
    for block in blocks:
        store.write(table, block, table.compute(NO_MODEL, block))


def aside(run: Path) -> list[str]:
    folder = run / TABLES / ASIDE
    return sorted(path.name.split(".")[0] for path in folder.iterdir()) if folder.exists() else []


def test_blocks_are_by_index_and_leave_out_what_has_no_row() -> None:
    table = Table("squares", SCHEMA, (1, 2, 9, 10, 31), 8, squares(1, 8).rows)
    assert table.blocks == {0: (1, 2), 1: (9, 10), 3: (31,)}
    assert table.compute(NO_MODEL, 1).to_pydict() == {"index": [9, 10], "square": [81, 100]}


def test_a_table_is_the_same_whatever_the_order_of_its_blocks(tmp_path: Path) -> None:
    table = squares(20, 8)
    for name, order in (("a", (0, 1, 2)), ("b", (2, 0, 1))):
        store = Store(tmp_path / name, "plan")
        for block in order:
            store.write(table, block, table.compute(NO_MODEL, block))
        assert store.read(table.name, SCHEMA)["square"].to_pylist() == [i**2 for i in range(20)]  # before it is joined
        store.complete(table, [0, 1, 2])
        assert store.read(table.name, SCHEMA)["square"].to_pylist() == [i**2 for i in range(20)]
        assert [rows.num_rows for rows in store.pieces(table.name, SCHEMA)] == [8, 8, 4]
        assert [path.name for path in (tmp_path / name / TABLES).iterdir()] == ["squares.parquet"]
    a, b = (tmp_path / name / TABLES / "squares.parquet" for name in "ab")
    assert a.read_bytes() == b.read_bytes()


def test_nothing_is_there_before_the_first_block(tmp_path: Path) -> None:
    store, table = Store(tmp_path, "plan"), squares(20, 8)
    assert store.mend(table) == []
    assert store.done(table) == set()
    assert len(store.read(table.name, SCHEMA)) == 0


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"PAR1") + 40] ^= 1
    path.write_bytes(bytes(content))


def another_plan(path: Path) -> None:
    table = squares(20, 8)
    other = Store(path.parents[2] / "other", "another plan")
    fill(other, table, range(2))
    shutil.copy(other.run / TABLES / "squares" / "000001.parquet", path)


def another_table(path: Path) -> None:
    table = Table("cubes", SCHEMA, tuple(range(20)), 8, squares(1, 8).rows)
    other = Store(path.parents[2] / "other", "plan")
    fill(other, table, range(2))
    shutil.copy(other.run / TABLES / "cubes" / "000001.parquet", path)


def another_block(path: Path) -> None:
    shutil.copy(path.with_name("000000.parquet"), path)


def another_schema(path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"index": [8]}), path)


def no_parquet(path: Path) -> None:
    path.write_text("nothing of the kind")


BROKEN: dict[Callable[[Path], None], str] = {
    truncate: "cannot be read",
    flip_a_bit: "cannot be read",
    another_plan: "is of another survey",
    another_table: "holds no rows of the table squares",
    another_block: "it holds other rows",
    another_schema: "is of another survey",
    no_parquet: "cannot be read",
}


@pytest.mark.parametrize("spoil", BROKEN, ids=lambda spoil: spoil.__name__)
def test_a_block_that_is_damaged_or_foreign_is_set_aside(spoil: Callable[[Path], None], tmp_path: Path) -> None:
    store, table = Store(tmp_path / "run", "plan"), squares(20, 8)
    fill(store, table, range(3))
    spoil(tmp_path / "run" / TABLES / "squares" / "000001.parquet")
    (fault,) = store.mend(table)
    assert BROKEN[spoil] in fault
    assert "000001.parquet" in fault
    assert store.done(table) == {0, 2}
    assert aside(tmp_path / "run") == ["squares"]
    assert store.mend(table) == []


def test_a_complete_table_that_is_damaged_is_set_aside(tmp_path: Path) -> None:
    store, table = Store(tmp_path, "plan"), squares(20, 8)
    fill(store, table, range(3))
    store.complete(table, [0, 1, 2])
    assert store.mend(table) == []
    truncate(tmp_path / TABLES / "squares.parquet")
    assert "cannot be read" in store.mend(table)[0]
    assert not store.has_complete("squares")


def test_a_table_that_ends_early_is_complete_only_where_it_may(tmp_path: Path) -> None:
    store = Store(tmp_path, "plan")
    for stop, faults in ((lambda: NO_MODEL, 0), (None, 1)):
        table = squares(20, 8, stop=stop)
        fill(store, table, range(2))
        store.complete(table, [0, 1])
        assert len(store.mend(table)) == faults


def test_a_file_that_is_no_block_is_set_aside_and_unfinished_ones_are_removed(tmp_path: Path) -> None:
    store, table = Store(tmp_path, "plan"), squares(20, 8)
    fill(store, table, range(3))
    folder = tmp_path / TABLES / "squares"
    (folder / "000099.parquet").write_text("?")
    unfinished = [folder / ".000002.parquet.123.tmp", tmp_path / TABLES / ".squares.parquet.123.tmp"]
    for path in unfinished:
        path.write_text("half of it")
    (fault,) = store.mend(table)
    assert "is no block of this table" in fault
    assert not any(path.exists() for path in unfinished)
    assert sorted(path.name for path in folder.iterdir()) == [f"{block:06d}.parquet" for block in range(3)]


def test_blocks_beside_a_complete_table_are_removed(tmp_path: Path) -> None:
    store, table = Store(tmp_path, "plan"), squares(20, 8)
    fill(store, table, range(3))
    store.complete(table, [0, 1, 2])
    fill(store, table, range(1))  # as an interruption in between leaves them
    assert store.mend(table) == []
    assert not (tmp_path / TABLES / "squares").exists()
