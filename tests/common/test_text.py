from __future__ import annotations

import io
import sys

import pytest

from memrecon_fast.common.checks import suggestion
from memrecon_fast.common.text import escaped, print_every_letter


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 記 ≤.png", "plain é 記 ≤.png"),
        ("a\x1b[31mred\x07", "a\\x1b[31mred\\x07"),
        ("photo\u202egnp.exe", "photo\\u202egnp.exe"),
        ("\u2066a\u2069\u200e\u200f\u061c", "\\u2066a\\u2069\\u200e\\u200f\\u061c"),
        ("two\nlines\r", "two\\nlines\\r"),
        ("\udcff", "\\udcff"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
    ],
)
def test_what_cannot_be_seen_is_shown_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_what_an_encoding_lacks_is_written_in_a_simpler_way(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    binary = io.BytesIO()
    stdout = io.TextIOWrapper(binary, encoding=encoding)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "stderr", io.StringIO())  # which cannot be reconfigured
        print_every_letter()
        print("γ ≤ 7 % 記 …")
    stdout.flush()
    expected = {"ascii": "gamma <= 7 % ? ...", "cp1252": "gamma <= 7 % ? …", "utf-8": "γ ≤ 7 % 記 …"}
    assert binary.getvalue().decode(encoding).strip() == expected[encoding]


@pytest.mark.parametrize(
    ("value", "meant"),
    [("centre", "center"), ("Center", "center"), ("randon-50", "random-50"), ("stripe", "stripes"), ("x", ""), (3, "")],
)
def test_what_a_misspelt_name_may_mean(value: object, meant: str) -> None:
    found = suggestion(value, ("center", "half", "random-50", "random-80", "stripes", "corner"))
    assert found == (f"; did you mean {meant!r}?" if meant else "")
