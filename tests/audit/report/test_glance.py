"""A run as a prompt and a notebook show it."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import memrecon_fast as mf
from memrecon_fast.audit.report.glance import MAX_PICTURES
from memrecon_fast.audit.store.records import Cell
from tests.helpers.made_run import make_run

EVIL = "<b onclick=x>&\"'\x1b[2J"
ERRORS = [1e-9, 1e-8, 1e-6, 1e-4, 1e-2, np.inf]
SHAPE = (3, 8, 8)


def made(path: Path, **how: Any) -> mf.audit.Run:
    errors = {
        Cell(split, mask, method): [0.1] * 3 if split == "controls" else ERRORS
        for split in ("members", "controls")
        for mask in ("center", "half")
        for method in ("accelerated", "iterate")
    }
    make_run(path, errors, **how)
    return mf.audit.open(path)


def pictures_of(html: str) -> list[NDArray[np.uint8]]:
    found = re.findall(r'src="data:image/png;base64,([^"]*)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in found]


def words_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", html))


def test_at_a_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = repr(made(tmp_path / "run"))
    lines = text.splitlines()
    assert lines[0] == f"Audit in {tmp_path / 'run'}: 6 members and 3 controls, 2 masks, 2 methods"
    assert "center accelerated 66.7% 33.3%" in re.sub(" +", " ", text)
    assert max(map(len, lines[1:])) <= 80
    assert "\x1b" not in text


def test_in_a_notebook(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (4, *SHAPE), np.uint8)
    html = made(tmp_path / "run", picture=pixels)._repr_html_()
    words = words_of(html)
    assert "6 members and 3 controls, 2 masks, 2 methods" in words
    assert "center accelerated 66.7% 33.3%" in words
    assert "MSE &lt; 5e-4" in words
    assert "Members under center by accelerated, from the best to the worst" in words
    assert re.findall(r"members-(\d)\.png (accurate|approximate|not recovered|diverged)", words) == [
        ("0", "accurate"), ("1", "accurate"), ("2", "approximate"), ("3", "approximate"), ("4", "not recovered"),
        ("5", "diverged"),
    ]  # fmt: skip
    shown = pictures_of(html)
    assert len(shown) == 4 * len(ERRORS)  # original, degraded, recovered, mask
    for row, expected in enumerate(pixels):
        np.testing.assert_array_equal(shown[len(ERRORS) * row], expected.transpose(1, 2, 0))


def test_of_many_pictures_some_from_the_best_to_the_worst(tmp_path: Path) -> None:
    errors = np.logspace(-9, -1, 40)
    make_run(tmp_path / "run", {Cell("members", "center", "iterate"): errors[::-1]})
    html = mf.audit.open(tmp_path / "run")._repr_html_()
    assert len(pictures_of(html)) == 3 * MAX_PICTURES  # iteration estimates no mask
    psnrs = [float(one) for one in re.findall(r"([\d.]+) dB<", html)]
    assert len(psnrs) == MAX_PICTURES
    assert psnrs == sorted(psnrs, reverse=True)
    assert psnrs[0] == 90
    assert psnrs[-1] == 10


def test_names_are_escaped(tmp_path: Path) -> None:
    run = made(tmp_path / EVIL.replace("/", ""), names={"members": [EVIL] * 6, "controls": ["c"] * 3})
    html = run._repr_html_()
    assert "<b " not in html
    assert "\x1b" not in html
    assert "\x1b" not in repr(run)
    # the end of the name, cut after 16 letters
    assert "…onclick=x&gt;&amp;&quot;&#x27;\\x1b[2J"[-20:] in html


def test_an_unfinished_run(tmp_path: Path) -> None:
    errors = {
        Cell("members", "center", "accelerated"): [1e-9, np.nan, np.nan],
        Cell("members", "half", "accelerated"): [np.nan] * 3,
    }
    make_run(tmp_path / "run", errors, unfinished=list(errors))
    run = mf.audit.open(tmp_path / "run")
    assert "; NOT FINISHED, 5 more to do" in repr(run)
    assert "; NOT FINISHED, 5 more to do" in run._repr_html_()
    assert len(pictures_of(run._repr_html_())) == 4


def test_a_run_without_originals(tmp_path: Path) -> None:
    cells = {Cell(split, "given", "accelerated"): [1e-9, 1e-2] for split in ("members", "controls")}
    make_run(tmp_path / "run", cells, degraded=True)
    words = words_of(mf.audit.open(tmp_path / "run")._repr_html_())
    assert "Originals unknown." in words
    assert "degraded – " not in words
    assert "original" not in words.partition("from the best to the worst")[2]
    assert "members-0.png score 3e-10" in words


def test_damaged_pictures_are_said(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    for path in (tmp_path / "run" / "gallery").iterdir():
        path.write_bytes(b"nothing")
    assert "cannot be read as pictures of an audit" in run._repr_html_()
