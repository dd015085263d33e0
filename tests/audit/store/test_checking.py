"""A run does not trust its files by their names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import memrecon_fast as mf
from memrecon_fast.audit.plan import Audit
from memrecon_fast.audit.store.checking import fault_of_images, fault_of_rows
from memrecon_fast.audit.store.opening import IMAGES
from memrecon_fast.audit.store.parts import ASIDE, Row
from memrecon_fast.audit.store.records import RECORDS, SCHEMA, Cell, cell_path
from memrecon_fast.images.scan import columns_of
from tests.helpers.auditing import Interruption, contents, folder_of, known_images, make_record, run, small_audit
from tests.helpers.memorised import Memorised

CELL = Cell("members", "center", "paper")
KNOWN = known_images(4)
WHOLE = pa.Table.from_pylist([vars(make_record(CELL, index)) for index in range(4)], SCHEMA)


def changed(column: str, values: Sequence[object]) -> pa.Table:
    at = SCHEMA.names.index(column)
    return WHOLE.set_column(at, SCHEMA.field(column), [values])


HASHES = WHOLE["sha256"].to_pylist()
FAULTS = [
    (changed("split", ["controls"] * 4), "it holds rows of the split 'controls', not of 'members'"),
    (changed("mask", ["center", "half", "center", "center"]), "it holds rows of the mask 'half', not of 'center'"),
    (changed("method", ["iterate"] * 4), "it holds rows of the method 'iterate', not of 'paper'"),
    (changed("index", [0, 1, 2, 4]), "it holds a row of image 4, and there is no such image among the members"),
    (changed("index", [-1, 1, 2, 3]), "it holds a row of image -1, and there is no such image among the members"),
    (pa.concat_tables([WHOLE, WHOLE]), "it holds an image twice"),
    (changed("sha256", [*HASHES[:3], HASHES[0]]), "the sha256 of image 3 is not that of this image"),
    (changed("accurate", [False, True, False, False]), "the verdict 'accurate' on image 1 is not what its mse says"),
    (changed("approximate", [False] * 3 + [True]), "the verdict 'approximate' on image 3 is not what its mse says"),
    (changed("mse", [0.25, 0.25, 1e-9, 0.25]), "the verdict 'accurate' on image 2 is not what its mse says"),
    (changed("name", ["0.png", "2.png", "1.png", "3.png"]), "the name of image 1 is not that of this image"),
]
OF_COMPLETE = [
    (WHOLE.slice(0, 2), "it holds 2 images; there are 4"),
    (WHOLE.slice(0, 0), "it holds 0 images; there are 4"),
    (WHOLE.take([0, 1, 3, 2]), "it is not in order"),
]


@pytest.mark.parametrize(("table", "fault"), FAULTS + OF_COMPLETE)
def test_what_is_wrong_with_the_rows_of_a_file(table: pa.Table, fault: str) -> None:
    assert fault_of_rows(WHOLE, CELL, KNOWN, complete=True) == ""
    assert fault_of_rows(table, CELL, KNOWN, complete=True) == fault
    of_part = fault_of_rows(table, CELL, KNOWN, complete=False)
    assert of_part == ("" if any(table is one for one, _ in OF_COMPLETE) else fault)


def test_images_that_cannot_be_used_have_no_rows() -> None:
    known = {**KNOWN, "problem": np.array([None, "it is dark", *[None] * 6], object)}
    assert fault_of_rows(WHOLE, CELL, known, complete=False).startswith("it holds a row of image 1, ")
    assert fault_of_rows(WHOLE.take([0, 2, 3]), CELL, known, complete=True) == ""


@pytest.fixture(scope="module")
def finished(memorised: Memorised, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "run"
    mf.audit.run(audit_of(memorised), memorised.autoencoder, path, progress=False)
    return path


def audit_of(memorised: Memorised) -> Audit:
    return small_audit(memorised, controls=4, methods=("paper", "known-mask"))


def swap(path: Path, cell: Path) -> None:
    shutil.copy(cell_path(path, Cell("controls", "center", "paper")), cell)


def halve(path: Path, cell: Path) -> None:
    pq.write_table(pq.read_table(cell).slice(0, 8), cell)


def double(path: Path, cell: Path) -> None:
    table = pq.read_table(cell)
    pq.write_table(pa.concat_tables([table, table]), cell)


def rename(path: Path, cell: Path) -> None:
    table = pq.read_table(cell)
    names = [table["name"].to_pylist()[::-1]]
    pq.write_table(table.set_column(SCHEMA.names.index("name"), SCHEMA.field("name"), names), cell)


def cut(path: Path, cell: Path) -> None:
    cell.write_bytes(cell.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [swap, halve, double, rename, cut])
def test_a_cell_that_is_not_what_its_name_says_is_said_set_aside_and_done_again(
    memorised: Memorised, finished: Path, tmp_path: Path, damage: Callable[[Path, Path], None]
) -> None:
    path = Path(shutil.copytree(finished, tmp_path / "run"))
    cell = cell_path(path, CELL)
    damage(path, cell)
    wrong = cell.read_bytes()
    with pytest.raises(ValueError, match=rf"{cell} (is not what its name says|cannot be read).*sets it aside"):
        _ = mf.audit.open(path).summary
    with pytest.raises(ValueError, match=f"{cell}"):
        _ = mf.audit.open(path).records
    assert cell.read_bytes() == wrong  # who reads changes nothing
    with pytest.warns(RuntimeWarning, match=f"{cell.name} .*; it is set aside, and what it held is done again"):
        mf.audit.run(audit_of(memorised), memorised.autoencoder, path, progress=False)
    (aside,) = (path / RECORDS / ASIDE).iterdir()
    assert aside.read_bytes() == wrong
    aside.unlink()
    files = contents(path)
    assert {name: files[name] for name in files if not name.startswith("report")} == {
        name: content for name, content in contents(finished).items() if not name.startswith("report")
    } | {"summary.json": files["summary.json"]}  # which has the seconds of one session more
    assert json.loads(files["summary.json"])["rows"] == mf.audit.open(finished).summary["rows"]


def test_a_part_file_that_is_not_what_its_folder_says_is_set_aside(memorised: Memorised, tmp_path: Path) -> None:
    audit = audit_of(memorised)
    with pytest.raises(KeyboardInterrupt):
        run(audit, memorised.autoencoder, tmp_path, report=Interruption(10), seconds=0)
    folder = folder_of(tmp_path)
    folder.parts.write(CELL, [Row(make_record(CELL, 12))])
    with pytest.raises(ValueError, match="is not what its name says: the sha256 of image 12 is not that of this image"):
        _ = mf.audit.open(tmp_path).summary
    remarks = run(audit, memorised.autoencoder, tmp_path)
    assert any("it is set aside, and what it held is done again" in remark for remark in remarks)
    (aside,) = (tmp_path / RECORDS / ASIDE).iterdir()
    assert pq.read_table(aside)["index"].to_pylist() == [12]
    assert mf.audit.open(tmp_path).missing == 0


def other_near_duplicates(table: pa.Table) -> pa.Table:
    return table.set_column(5, table.schema.field(5), [[None] * (len(table) - 1) + ["0"]])


def other_problems(table: pa.Table) -> pa.Table:
    return table.set_column(4, table.schema.field(4), [["it is dark"] + [None] * (len(table) - 1)])


def fewer(table: pa.Table) -> pa.Table:
    return table.slice(1)


@pytest.mark.parametrize(
    ("change", "is_said"),
    [(other_problems, True), (fewer, True), (other_near_duplicates, False), (None, True)],
)
def test_the_list_of_images_is_compared_with_the_run_and_with_the_images(
    memorised: Memorised,
    finished: Path,
    tmp_path: Path,
    change: Callable[[pa.Table], pa.Table] | None,
    is_said: bool,
) -> None:
    path = Path(shutil.copytree(finished, tmp_path / "run"))
    whole = (path / IMAGES).read_bytes()
    if change is None:
        (path / IMAGES).write_bytes(whole[:-50])
    else:
        pq.write_table(change(pq.read_table(path / IMAGES)), path / IMAGES)
    if is_said:  # what is nearly a member is known from the images alone
        with pytest.raises(ValueError, match=r"images\.parquet .*; the audit, given again, writes it anew"):
            _ = mf.audit.open(path).summary
    with pytest.warns(RuntimeWarning, match=r"images\.parquet .*; it is written anew"):
        mf.audit.run(audit_of(memorised), memorised.autoencoder, path, progress=False)
    assert (path / IMAGES).read_bytes() == whole


def test_near_duplicates_that_cannot_be_are_noticed() -> None:
    description = {"plan": {"images": {"members": "", "controls": ""}, "degraded": False}}
    fault = partial(fault_of_images, description=description)
    assert fault({**KNOWN, "split": np.array(["members"] * 8, object)}) == "its splits are 'members'"
    assert fault(KNOWN) == "the members in it are not those that the run was begun with"


def test_a_list_of_images_that_does_not_name_the_members_among_the_controls(
    memorised: Memorised, tmp_path: Path
) -> None:
    splits = {"members": small_audit(memorised).splits["members"], "controls": small_audit(memorised).splits["members"]}
    audit = small_audit(memorised, splits=splits, methods=("known-mask",))
    run(audit, memorised.autoencoder, tmp_path)
    description = mf.audit.open(tmp_path).description
    table = pq.read_table(tmp_path / IMAGES)
    assert fault_of_images(columns_of(table), description) == ""
    without = table.set_column(5, table.schema.field(5), pa.nulls(len(table), pa.string()))
    assert fault_of_images(columns_of(without), description) == "it does not say which controls are members"
    strange = table.set_column(5, table.schema.field(5), [["nobody"] * len(table)])
    assert fault_of_images(columns_of(strange), description).startswith("its near-duplicates are no controls")
