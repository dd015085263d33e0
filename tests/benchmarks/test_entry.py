"""`python -m benchmarks`: what there is, and how it is found."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from benchmarks import __main__ as entry
from benchmarks.registry import BENCHMARKS, ROOT, table


def test_the_readme_has_the_table_that_list_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["--list"]) == 0
    assert capsys.readouterr().out == table() + "\n"
    assert table() in (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")


def test_every_module_is_there() -> None:
    modules = {one.module for one in BENCHMARKS}
    assert len({one.name for one in BENCHMARKS}) == len(modules) == len(BENCHMARKS)
    for one in BENCHMARKS:
        path = ROOT.joinpath(*one.module.split(".")).with_suffix(".py")
        assert ("\ndef main(arguments: Sequence[str])" in path.read_text()) != one.is_pytest


def test_what_comes_after_the_name_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []

    class Module:
        @staticmethod
        def main(arguments: list[str]) -> int:
            given.append(arguments)
            return 3

    def imported(name: str) -> Any:
        assert name == "benchmarks.speed.host"
        return Module

    monkeypatch.setattr(importlib, "import_module", imported)
    assert entry.main(["host", "--quick", "--out", "somewhere"]) == 3
    assert given == [["--quick", "--out", "somewhere"]]


def test_an_unknown_name_is_answered_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["nothing"]) == 2
    message = capsys.readouterr().err
    assert "nothing" in message
    assert all(one.name in message for one in BENCHMARKS)
