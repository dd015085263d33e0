"""A run as tables and figures for a paper."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

import memrecon_fast as mf
from memrecon_fast.audit.analysis.statistics import rate_interval
from memrecon_fast.audit.store.records import Cell
from tests.helpers.made_run import make_run

MASK = "a_b$.png"
ERRORS = {
    Cell(split, mask, method): np.full(20, 0.1) * (np.arange(20) >= back) + 1e-9
    for split, times in (("members", 1), ("controls", 0))
    for mask, method, back in (
        ("half", "accelerated", 10 * times), (MASK, "accelerated", 5 * times), ("half", "iterate", 0),
        (MASK, "iterate", 1 * times),
    )
}  # fmt: skip
TABLES = ("rates", "rates-over-masks", "members-against-controls")
FIGURES = ("rates", "thresholds", "roc")


def test_rates_have_their_intervals_in_all_formats(tmp_path: Path) -> None:
    make_run(tmp_path / "run", ERRORS)
    paths = mf.audit.export(tmp_path / "run", tmp_path / "out")
    expected = {f"{name}.{kind}" for name in TABLES for kind in ("tex", "md", "csv")}
    expected |= {f"{name}.{kind}" for name in FIGURES for kind in ("svg", "pdf")}
    assert {path.name for path in paths} == expected == {path.name for path in (tmp_path / "out").iterdir()}

    low, high = rate_interval(10, 20)
    rate = f"50.0 ({100 * low:.1f}–{100 * high:.1f})"
    none = "0.0 (0.0–16.1)"
    (line,) = [line for line in (tmp_path / "out" / "rates.md").read_text().splitlines() if line.startswith("| half")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:5] == ["half", "accelerated", rate, rate, none]
    text = (tmp_path / "out" / "rates.tex").read_text()
    assert rf"half & accelerated & {rate.replace('–', '--')} &" in text
    assert r"a\_b\$.png & accelerated & 25.0" in text
    with open(tmp_path / "out" / "rates.csv", newline="") as stream:
        rows = {(row["mask"], row["method"], row["split"]): row for row in csv.DictReader(stream)}
    assert len(rows) == 8
    row = rows["half", "accelerated", "members"]
    assert [float(row[name]) for name in ("accurate", "accurate_low", "accurate_high")] == [0.5, low, high]
    for name in TABLES:
        assert rf"\label{{tab:out-{name}}}" in (tmp_path / "out" / f"{name}.tex").read_text()
    for name in FIGURES:
        assert ET.parse(tmp_path / "out" / f"{name}.svg").getroot().tag.endswith("svg")
        content = (tmp_path / "out" / f"{name}.pdf").read_bytes()
        assert content.startswith(b"%PDF")
        assert b"/Type3" not in content


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_the_tables_fit_on_a_page_of_an_article(tmp_path: Path) -> None:
    masks = (*mf.degradation.MASKS[1:], "a mask with a long name.png")
    methods = ("accelerated", "paper", "known-mask")
    errors = {
        Cell(split, mask, method): np.where(np.arange(12) < 9, 0.1, np.nan)
        for split, mask, method in itertools.product(("members", "controls"), masks, methods)
    }
    make_run(tmp_path / "run", errors, unfinished=list(errors))
    tables = [path for path in mf.audit.export(tmp_path / "run", tmp_path) if path.suffix == ".tex"]
    inputs = "".join(rf"\input{{{path.name}}}\clearpage" for path in tables)
    start = r"\documentclass[a4paper,10pt]{article}\usepackage{booktabs}\begin{document}"
    (tmp_path / "article.tex").write_text(rf"{start}{inputs}\end{{document}}")
    command = ["pdflatex", "-halt-on-error", "article.tex"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert said.returncode == 0, said.stdout
    assert "Overfull" not in said.stdout
    assert "too large" not in said.stdout


def test_the_same_run_gives_the_same_files(tmp_path: Path) -> None:
    make_run(tmp_path / "run", ERRORS)
    first = {path.name: path.read_bytes() for path in mf.audit.export(tmp_path / "run", tmp_path / "out")}
    assert {path.name: path.read_bytes() for path in mf.audit.export(tmp_path / "run", tmp_path / "out")} == first


def test_an_unfinished_run_in_doubt_says_so_in_each_caption(tmp_path: Path) -> None:
    errors = {cell: np.where(np.arange(20) < 15, values, np.nan) for cell, values in ERRORS.items()}
    make_run(tmp_path / "run", errors, unfinished=list(errors))
    path = tmp_path / "run" / "audit.json"
    description = json.loads(path.read_text())
    description["sessions"][0]["doubts"] = ["the weights of the model were changed"]
    path.write_text(json.dumps(description))
    mf.audit.export(mf.audit.open(tmp_path / "run"), tmp_path / "out")
    for name in TABLES:
        caption = (tmp_path / "out" / f"{name}.md").read_text().splitlines()[0]
        assert "in doubt: the weights of the model were changed." in caption
        assert "Unfinished: 40 of 160 recoveries are missing (20 of accelerated, 20 of iterate)." in caption
    assert (
        "| members, number | members, accurate |" in (tmp_path / "out" / "rates.md").read_text()
    )  # as they are not all


def test_without_controls_there_is_a_histogram_and_without_originals_what_is_recognized(tmp_path: Path) -> None:
    members = {cell: values for cell, values in ERRORS.items() if cell.split == "members"}
    make_run(tmp_path / "members", members)
    found = {path.name for path in mf.audit.export(tmp_path / "members", tmp_path / "out")}
    assert {"psnr.svg", "psnr.pdf"} <= found
    assert not [name for name in found if "controls" in name or "roc" in name]

    degraded = {Cell("members", "given", "accelerated"): [1e-8, 1e-8, 0.5, 0.5]}
    make_run(tmp_path / "degraded", degraded, degraded=True)
    mf.audit.export(tmp_path / "degraded", tmp_path / "other")
    text = (tmp_path / "other" / "rates.md").read_text()
    assert "members, recognized" in text
    assert "| given | accelerated | 50.0 (15.0–85.0) |" in text
    assert "accurate" not in text


def test_a_folder_that_holds_a_run_or_is_a_file_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "run", ERRORS)
    (tmp_path / "file").touch()
    before = sorted((tmp_path / "run").rglob("*"))
    with pytest.raises(ValueError, match="run is the folder of a run; give another one"):
        mf.audit.export(tmp_path / "run", tmp_path / "run")
    with pytest.raises(ValueError, match="file is a file; expected a folder"):
        mf.audit.export(tmp_path / "run", tmp_path / "file")
    with pytest.raises(ValueError, match="is not the folder of a run"):
        mf.audit.export(tmp_path, tmp_path / "out")
    assert sorted((tmp_path / "run").rglob("*")) == before
