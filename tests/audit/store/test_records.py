from __future__ import annotations

import dataclasses
import hashlib
import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from memrecon_fast.audit.store.records import RECORDS, SCHEMA, Cell, Record, cell_path, read_table, write_cell
from tests.helpers.auditing import make_record

CELL = Cell("members", "center", "paper")


def table_of(records: list[Record]) -> pa.Table:
    return pa.Table.from_pylist([dataclasses.asdict(record) for record in records], SCHEMA)


def test_the_columns_are_those_of_a_record() -> None:
    assert SCHEMA.names == [field.name for field in dataclasses.fields(Record)]
    assert [field.name for field in SCHEMA if field.nullable] == [
        "mse", "psnr", "accurate", "approximate", "wrong_mask_share", "gamma", "erased_mse",
        "nearest_member", "nearest_member_mse", "shown_member_mse", "flat_mse",
    ]  # fmt: skip
    assert [str(SCHEMA.field(name).type) for name in ("index", "name", "mse", "accurate")] == [
        "int64",
        "string",
        "double",
        "bool",
    ]


def test_a_cell_is_written_and_read(tmp_path: Path) -> None:
    odd = make_record(CELL, 1, mse=float("nan"), psnr=-3.5, wrong_mask_share=None, name="ä/b\n.png", diverged=True)
    unknown = make_record(CELL, 2, mse=None, psnr=None, accurate=None, approximate=None, gamma=None)
    records = [make_record(CELL, 0), odd, unknown]
    write_cell(tmp_path, CELL, table_of(records))
    read = read_table(cell_path(tmp_path, CELL), "the file", SCHEMA).to_pylist()
    assert [str(row) for row in read] == [str(dataclasses.asdict(record)) for record in records]  # NaN is not NaN
    assert [path.name for path in (tmp_path / RECORDS).iterdir()] == ["members.paper.center.parquet"]


def test_columns_beside_those_of_the_records_are_left_out(tmp_path: Path) -> None:
    table = table_of([make_record(CELL, 0)])
    write_cell(tmp_path, CELL, table.append_column("picture", [[b"pixels"]]))
    assert read_table(cell_path(tmp_path, CELL), "the file", SCHEMA).equals(table)


def test_a_file_is_the_same_however_its_rows_lie_in_memory(tmp_path: Path) -> None:
    """More rows than fit in a page, and more texts than fit in the dictionary of a column."""
    count = 30_000
    rows = table_of([make_record(CELL, 0)] * count)
    names = [hashlib.sha256(str(index).encode()).hexdigest() for index in range(count)]
    rows = rows.set_column(1, SCHEMA.field(1), [pa.array(names)])
    contents = []
    for cuts in ([0, count], [0, 1, 1025, 20_000, count], [0, *range(7, count, 1013), count]):
        chunks = [rows.slice(begin, end - begin) for begin, end in itertools.pairwise(cuts)]
        write_cell(tmp_path, CELL, pa.concat_tables(chunks))
        contents.append(cell_path(tmp_path, CELL).read_bytes())
    assert len(contents[0]) > 1_000_000
    assert contents[0] == contents[1] == contents[2]


def test_no_two_cells_share_a_file() -> None:
    names = (
        "a",
        "A.png",
        "a b",
        "a_b",
        "a%20b",
        "../a",
        "a/b",
        "記" * 80 + "一",
        "記" * 80 + "二",
        "a" * 101,
        "a" * 102,
    )
    methods, splits = ("paper", "iterate"), ("members", "controls")
    stems = [Cell(*all_three).file_stem for all_three in itertools.product(splits, names, methods)]
    assert len({stem.lower() for stem in stems if "A.png" not in stem}) == len(stems) - 4
    assert len(set(stems)) == len(stems)
    assert all(len(stem.encode()) < 200 and "/" not in stem for stem in stems)


def test_what_an_earlier_version_wrote_is_read_without_the_column_that_it_lacks(tmp_path: Path) -> None:
    whole = table_of([make_record(CELL, 0), make_record(CELL, 1)])
    path = tmp_path / "old.parquet"
    pq.write_table(whole.drop_columns(["erased_mse"]), path)
    read = read_table(path, str(path), SCHEMA)
    assert read.schema == SCHEMA
    assert read["erased_mse"].to_pylist() == [None, None]
    assert read.drop_columns(["erased_mse"]).equals(whole.drop_columns(["erased_mse"]))
    assert read_table(path, str(path), SCHEMA, ["erased_mse", "index"]).column_names == ["erased_mse", "index"]


def test_what_holds_no_records_is_refused_by_name(tmp_path: Path) -> None:
    whole = table_of([make_record(CELL, 0)])
    path = tmp_path / "bad.parquet"
    for content in (b"", b"no Parquet", b"PAR1"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"bad\.parquet cannot be read as records of an audit"):
            read_table(path, str(path), SCHEMA)
    for table in (whole.drop_columns(["mse"]), whole.set_column(0, "index", pa.array([0], pa.int32()))):
        pq.write_table(table, path)
        with pytest.raises(ValueError, match=r"bad\.parquet holds no records of an audit: its columns are \['"):
            read_table(path, str(path), SCHEMA)
    with pytest.raises(ValueError, match="absent cannot be read"):
        read_table(tmp_path / "absent.parquet", "absent", SCHEMA)


def test_a_flipped_bit_in_a_column_is_noticed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_cell(tmp_path, CELL, table_of([make_record(CELL, index, mse=rng.random()) for index in range(50)]))
    path = cell_path(tmp_path, CELL)
    whole = path.read_bytes()
    at = pq.ParquetFile(path).metadata.row_group(0).column(SCHEMA.names.index("mse")).data_page_offset
    path.write_bytes(whole[: at + 100] + bytes([whole[at + 100] ^ 1]) + whole[at + 101 :])
    with pytest.raises(ValueError, match="CRC"):
        read_table(path, "the file", SCHEMA)
