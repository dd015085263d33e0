from __future__ import annotations

import csv
import os
import socket
from pathlib import Path

import pytest

from memrecon_fast.common.files import open_regular, remove_unfinished, replacing, write_csv, write_json


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write_and_be_interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_be_interrupted()
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("file", "old")]
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("file", "new")]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    with replacing(tmp_path / "file") as temporary:
        temporary.write_text("whole")
        (tmp_path / temporary.name.replace("file", "other")).write_text("of another process")
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_numbers_stay_numbers_in_csv(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["a", "b", "c", "d"], [{"a": -1.5, "b": True, "c": None, "d": "ü"}])
    assert (tmp_path / "a.csv").read_bytes() == '"a","b","c","d"\n-1.5,1,"","ü"\n'.encode()


def test_json_has_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": "ü"})
    assert (tmp_path / "a.json").read_bytes() == b'{\n  "a": "\\u00fc"\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_regular_file_is_opened_also_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"content"
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "absent")


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    monkeypatch.chdir(tmp_path)  # the address of a socket is short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
        kinds = {"pipe": "a named pipe", "link": "a device", "socket": "a socket", ".": "a folder"}
        for name, kind in kinds.items():
            with pytest.raises(OSError, match=f"it is {kind}, no regular file"):
                open_regular(name)


def test_what_takes_the_place_of_a_file_before_it_is_opened_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"content")
    os.mkfifo(tmp_path / "pipe")
    before = os.stat(tmp_path / "file")
    monkeypatch.setattr(os, "stat", lambda path: before)
    opened = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="it is a named pipe, no regular file"):
        open_regular(tmp_path / "pipe")
    assert len(os.listdir("/proc/self/fd")) == opened


@pytest.mark.parametrize(
    "text",
    [
        "=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\ntext", " =1", "\u00a0=1", "\u200b=1", "\ufeff=1",
        "\x00=1", "\u202e=1", '"=1', "'=1", "\u2028=1", "\uff1d1+1", "\uff0b1", "\uff0d1", "\uff201", "\ufe661",
        "\u22121", " \n\u200b\uff1d1",
    ],
)  # fmt: skip
def test_what_a_spreadsheet_would_run_gets_an_apostrophe(tmp_path: Path, text: str) -> None:
    write_csv(tmp_path / "a.csv", ["x"], [{"x": text}])
    with open(tmp_path / "a.csv", encoding="utf-8", newline="") as stream:
        assert [row[0] for row in csv.reader(stream)] == ["x", f"'{text}"]


@pytest.mark.parametrize("text", ["", "a=1", "1=1", "5 - 3", " a", "\u200ba", "é", "...", "(=1)", "/=", '"a"'])
def test_what_it_would_not_run_stays_as_it_is(tmp_path: Path, text: str) -> None:
    write_csv(tmp_path / "a.csv", ["x"], [{"x": text}])
    with open(tmp_path / "a.csv", encoding="utf-8", newline="") as stream:
        assert [row[0] for row in csv.reader(stream)] == ["x", text]
