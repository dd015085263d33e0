from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from types import SimpleNamespace

import pytest

from memrecon_fast.showing import progress
from memrecon_fast.showing.progress import progress_bar


def work(counts: Iterable[int], total: int = 3, enabled: bool = True) -> None:
    with progress_bar("recovering", total, "images", enabled=enabled) as advance:
        for count in counts:
            assert advance is not None
            advance(count)


def test_nothing_is_there_where_it_is_off(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("recovering", 3, "images", enabled=False) as advance:
        assert advance is None
    assert capsys.readouterr() == ("", "")


def test_in_a_file_lines_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 9.0, 11.0, 11.0, 12.0, 20.0, 20.0])
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    work([1, 1, 1])
    assert capsys.readouterr().out.splitlines() == [
        "recovering 2/3 images, 0:00:11",
        "recovering 3/3 images, 0:00:20",
    ]


def test_in_a_notebook_one_line_that_changes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_in_notebook", lambda: True)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LOOKS", 0)
    work([1, 2])
    begun, *seen = capsys.readouterr().out.split("\r")
    assert begun == ""
    assert [(one.count("█"), one.count("░")) for one in seen] == [(0, 24), (8, 16), (24, 0), (24, 0)]
    assert [one.partition("░ ")[2].partition(",")[0] for one in seen[:2]] == ["0/3 images", "1/3 images"]
    assert [one.endswith("\n") for one in seen] == [False, False, False, True]


def test_this_is_no_notebook() -> None:
    assert not progress._in_notebook()


def test_a_line_ends_where_the_work_ends_early(capsys: pytest.CaptureFixture[str]) -> None:
    def images() -> Iterator[int]:
        yield 2
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(images(), total=5)
    assert capsys.readouterr().out == "recovering 2/5 images, 0:00:00\n"


def test_no_images_at_all(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_in_notebook", lambda: True)
    work([], total=0)
    assert capsys.readouterr().out.endswith("0/0 images, 0:00:00\n")


def test_in_a_terminal_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    work([1, 2])
    shown = capsys.readouterr().out
    assert "recovering" in shown
    assert "3/3" in shown
    assert "images" in shown
    assert "\x1b[" in shown


def test_in_a_terminal_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    with pytest.raises(ImportError, match=r"the progress bar needs rich: pip install 'memrecon-fast\[audit\]'"):
        work([])
