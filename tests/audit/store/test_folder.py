from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from memrecon_fast.audit.store.folder import LOCK, RECOVERED, Folder, check_empty, locked
from memrecon_fast.audit.store.parts import Row
from memrecon_fast.audit.store.pictures import GALLERY, SHEET
from memrecon_fast.audit.store.records import RECORDS, SCHEMA, Cell, cell_path
from tests.helpers.auditing import contents, folder_of, known_images, make_record

CELL = Cell("members", "center", "paper")
OTHER = Cell("controls", "center", "paper")
COUNT = 6
KNOWN = known_images(COUNT)
RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (COUNT, 4, 3, 5, 7), np.uint8)
IMAGES = RNG.random((COUNT, 3, 5, 7), np.float32)
MASKS = RNG.random((COUNT, 3, 5, 7)) < 0.5


def row(index: int) -> Row:
    return Row(make_record(CELL, index, mse=1 / (index + 1)), PICTURES[index], IMAGES[index], MASKS[index])


def write(folder: Folder, *parts: Sequence[int]) -> None:
    for indices in parts:
        folder.parts.write(CELL, [row(index) for index in indices])


def complete(path: Path, *parts: Sequence[int]) -> Folder:
    folder = folder_of(path)
    path.mkdir()
    write(folder, *parts)
    folder.complete(CELL, [4, 1, 2], [5, 0, 4])
    return folder


def test_what_is_done_of_a_cell(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    assert folder.done(CELL).tolist() == []
    assert folder.done(CELL).dtype == np.int64
    assert {name: len(column) for name, column in folder.read(CELL).items()} == dict.fromkeys(SCHEMA.names, 0)
    write(folder, [5, 2], [3], [2, 0])  # 2 was done twice
    assert folder.done(CELL).tolist() == [0, 2, 3, 5]
    assert folder.done(OTHER).tolist() == []
    columns = folder.read(CELL)
    assert list(columns) == SCHEMA.names
    assert columns["index"].tolist() == [0, 2, 3, 5]
    assert columns["mse"].tolist() == [1, 1 / 3, 1 / 4, 1 / 6]
    assert columns["name"].tolist() == ["0.png", "2.png", "3.png", "5.png"]
    assert not folder.is_complete(CELL)


def test_a_complete_cell_is_one_file_whatever_the_parts_were(tmp_path: Path) -> None:
    first = complete(tmp_path / "first", range(COUNT))
    assert first.is_complete(CELL)
    assert first.done(CELL).tolist() == list(range(COUNT))
    assert first.read(CELL)["index"].tolist() == list(range(COUNT))
    assert sorted(contents(first.path)) == [
        f"{GALLERY}/members.paper.center.npz",
        f"{RECORDS}/members.paper.center.parquet",
        *(f"{RECOVERED}/members.paper.center.{what}.npy" for what in ("images", "index", "masks")),
    ]
    for number, parts in enumerate(
        ([[3], [5, 1], [4, 0, 2]], [[index] for index in range(COUNT)], [[0, 1, 2, 3, 4, 5], [4, 1]])
    ):
        other = complete(tmp_path / str(number), *parts)
        assert contents(other.path) == contents(first.path)
        assert not (other.path / RECORDS / CELL.file_stem).exists()


def test_pictures_are_those_that_were_asked_for_before_and_after(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    folder.parts.write(CELL, [Row(make_record(CELL, 0)), row(4)])
    write(folder, [1, 2, 3], [2, 5])
    before = folder.pictures(CELL, [2, 0, 4])
    assert sorted(picture.index for picture in before) == [2, 4]  # of 0 none was kept
    folder.complete(CELL, [4, 2, 5], [])
    after = folder.pictures(CELL, [2, 0, 4, 1])
    assert [picture.index for picture in after] == [2, 4]
    for picture in before + after:
        pixels = (picture.original, picture.degraded, picture.recovered, picture.mask)
        np.testing.assert_array_equal(np.stack(pixels), PICTURES[picture.index])
    assert folder.pictures(OTHER, [0]) == []


def test_thumbnails_are_those_that_were_asked_for_before_and_after(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    for index in (4, 0, 2):
        folder.parts.write(CELL, [dataclasses.replace(row(index), thumbnail=PICTURES[index, :2])])
    folder.parts.write(CELL, [row(1)])
    before = folder.thumbnails(CELL, {2, 1, 4})
    assert sorted(one.index for one in before) == [2, 4]  # of 1 none was kept
    folder.complete(CELL, [], [], [0, 4])
    after = folder.thumbnails(CELL, {0, 1, 2, 4})
    assert [one.index for one in after] == [0, 4]
    for one in before + after:
        np.testing.assert_array_equal(np.stack([one.original, one.recovered]), PICTURES[one.index, :2])
    assert folder.thumbnails(OTHER, {0}) == []
    path = tmp_path / SHEET / f"{CELL.file_stem}.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="cannot be read as pictures of an audit"):
        folder.thumbnails(CELL, {0})


def test_part_files_of_an_earlier_version_have_no_thumbnails(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    folder.parts.write(CELL, [dataclasses.replace(row(0), thumbnail=PICTURES[0, :2])])
    (path,) = (tmp_path / RECORDS).rglob("*.parquet")
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["thumbnail"]), path, write_page_checksum=True)
    assert folder.thumbnails(CELL, {0}) == []
    assert [one.index for one in folder.pictures(CELL, {0})] == [0]
    folder.complete(CELL, [0], [], [0])
    assert not (tmp_path / SHEET).exists()


def test_the_rows_of_what_is_kept_are_in_step(tmp_path: Path) -> None:
    folder = complete(tmp_path / "run", [5, 2, 4], [1], [3, 0, 4])
    index, images, masks = (
        np.load(folder.path / RECOVERED / f"{CELL.file_stem}.{what}.npy") for what in ("index", "images", "masks")
    )
    assert index.tolist() == [0, 4, 5]
    np.testing.assert_array_equal(images, IMAGES[[0, 4, 5]])
    np.testing.assert_array_equal(masks, MASKS[[0, 4, 5]])
    assert (images.dtype, masks.dtype) == (np.float32, np.bool_)


def test_a_damaged_complete_cell_is_set_aside(tmp_path: Path) -> None:
    folder = complete(tmp_path / "run", range(COUNT))
    path = cell_path(folder.path, CELL)
    whole = path.read_bytes()
    assert folder.mend([CELL, OTHER], KNOWN) == []
    assert path.read_bytes() == whole
    for damaged in (whole[:-1], b"", whole[:30] + b"\xff" + whole[31:]):
        path.write_bytes(damaged)
        (message,) = folder.mend([CELL, OTHER], KNOWN)
        assert message.startswith(f"{path} cannot be read as records of an audit: ")
        assert not path.exists()
        (aside,) = (path.parent / "_aside").iterdir()
        assert aside.read_bytes() == damaged
        aside.unlink()
        assert folder.done(CELL).tolist() == []
        assert not folder.is_complete(CELL)


def test_damaged_parts_are_set_aside_and_said(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    write(folder, [1, 2], [3])
    path = tmp_path / RECORDS / CELL.file_stem / "damaged.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"damaged\.parquet cannot be read"):
        folder.done(CELL)
    (message,) = folder.mend([OTHER, CELL], KNOWN)
    assert message.startswith(f"{path} cannot be read")
    assert (tmp_path / RECORDS / "_aside" / f"{CELL.file_stem}.damaged.parquet").read_bytes() == b"PAR1"
    assert folder.done(CELL).tolist() == [1, 2, 3]


def test_parts_that_were_left_beside_a_complete_cell_are_removed(tmp_path: Path) -> None:
    """Where the end came after the cell was written, or a worker that had been given up wrote another part."""
    folder = complete(tmp_path / "run", range(COUNT))
    before = contents(folder.path)
    write(folder, [2, 3])
    assert folder.done(CELL).tolist() == list(range(COUNT))
    assert folder.mend([CELL], KNOWN) == []
    assert contents(folder.path) == before


def test_what_was_being_written_when_the_end_came_is_removed(tmp_path: Path) -> None:
    folder = complete(tmp_path / "run", range(COUNT))
    before = contents(folder.path)
    for inside in (RECORDS, GALLERY, RECOVERED):
        (folder.path / inside / ".members.paper.center.npy.1234.tmp").write_bytes(b"half of i")
    assert folder.mend([CELL], KNOWN) == []
    assert contents(folder.path) == before


HOLDING = """
import sys, time
from pathlib import Path
from memrecon_fast.audit.store.folder import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


def test_another_process_keeps_the_folder_until_it_is_gone(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDING, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "locked\n"
            message = f"another audit is at work in {tmp_path}; wait for it, or give another folder"
            for _ in range(2):
                with pytest.raises(ValueError, match=message), locked(tmp_path):
                    pass
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            with locked(tmp_path):
                assert (tmp_path / LOCK).exists()
        finally:
            process.kill()


def test_a_folder_is_free_again_after_an_error(tmp_path: Path) -> None:
    def enter_twice() -> None:
        with locked(tmp_path), locked(tmp_path):
            pass

    for _ in range(2):  # it is the second one that is refused, each time
        with pytest.raises(ValueError, match="another audit is at work"):
            enter_twice()
    with locked(tmp_path):
        pass


def test_only_a_new_or_empty_folder_will_do(tmp_path: Path) -> None:
    check_empty(tmp_path / "new" / "run")
    check_empty(tmp_path)
    (tmp_path / LOCK).touch()  # of an audit that ended before it began
    check_empty(tmp_path)
    (tmp_path / "something").touch()
    with pytest.raises(ValueError, match=f"the folder {tmp_path} is not empty, and holds no audit"):
        check_empty(tmp_path)
    with pytest.raises(ValueError, match="something is a file; a run needs a folder"):
        check_empty(tmp_path / "something")


@pytest.mark.parametrize("name", [RECORDS, GALLERY, RECOVERED])
def test_what_is_behind_a_link_is_not_the_runs_to_change(tmp_path: Path, name: str) -> None:
    theirs, run = tmp_path / "theirs", tmp_path / "run"
    theirs.mkdir()
    run.mkdir()
    (theirs / ".letter.txt.12.tmp").write_text("mine")
    (run / name).symlink_to(theirs)
    with pytest.raises(ValueError, match=f"{name} is a link; a run needs a folder of its own"):
        folder_of(run).mend([CELL], KNOWN)
    assert (theirs / ".letter.txt.12.tmp").read_text() == "mine"


def test_only_temporary_files_of_ours_are_removed(tmp_path: Path) -> None:
    (tmp_path / RECORDS).mkdir()
    for name in (".notes.tmp", ".tmp", ".cell.parquet.12.tmp"):
        (tmp_path / RECORDS / name).touch()
    folder_of(tmp_path).mend([CELL], KNOWN)
    assert sorted(os.listdir(tmp_path / RECORDS)) == [".notes.tmp", ".tmp"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_named_pipes_are_not_waited_for(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    write(folder, [0])
    parts = Path(folder.parts.address) / CELL.file_stem
    os.mkfifo(parts / "pipe.parquet")
    (tmp_path / RECORDS).mkdir(exist_ok=True)
    os.mkfifo(cell_path(tmp_path, CELL))
    found = folder.mend([CELL], KNOWN)
    assert [fault.rsplit(": ", 1)[1] for fault in found] == [
        "it is a named pipe, no regular file",
        "it is no regular file",
    ]
    assert folder.done(CELL).tolist() == [0]
