"""What the report and the tables of a survey say."""

from __future__ import annotations

import base64
import csv
import io
import json
import re

import pytest
from rich.console import Console

from memrecon_fast.attractors.opened import Run
from memrecon_fast.attractors.session import run
from tests.helpers.memorised import Memorised
from tests.helpers.surveying import small_survey


@pytest.fixture(scope="module")
def finished(memorised: Memorised, tmp_path_factory: pytest.TempPathFactory) -> Run:
    survey = small_survey(memorised, curve=20, basins=("noise", "missing"))
    return run(survey, memorised.autoencoder, tmp_path_factory.mktemp("s") / "run", progress=False)


def test_the_headlines_are_the_numbers_of_the_summary(finished: Run) -> None:
    page = " ".join(finished.report.read_text().split())
    summary = json.loads((finished.path / "summary.json").read_text())
    members, controls = summary["stability"]
    found = summary["harvest"]["found"]
    assert f"<strong>{members['attractor']} of 16 training images</strong> are attractors" in page
    assert controls["attractor"] == 0
    assert "none of 6 controls, which it never saw" in page
    assert f"<strong>{found['members']} of 16 training images</strong> came out of nothing" in page
    assert found["others"]
    assert f"from 64 random starts; of 6 controls none; and {found['others']} more image" in page


def test_the_gallery_has_each_member_that_was_found_beside_member_and_control(finished: Run) -> None:
    page = finished.report.read_text()
    found = finished.summary["harvest"]["found"]
    rows = found["fixed_points"] - (len(finished.table("harvest")) - found["members"] - found["others"])
    steps = len(finished.table("curve")["start_picture"].drop_null())
    assert page.count('class="pixels"') == 3 * (rows + steps) > 3 * rows
    assert page.count("nearest member</th>") - 1 == page.count("nearest control</th>") == 1 + (found["others"] > 0)


def test_charts_have_labels_that_can_be_read_and_nothing_is_loaded(finished: Run) -> None:
    page = finished.report.read_text()
    charts = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)
    assert len(charts) == 5
    for chart in charts:
        assert "mathdefault" not in base64.b64decode(chart).decode()
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_csv_files_have_a_line_for_each_image_and_each_fixed_point(finished: Run) -> None:
    for name, count in (("verdicts.csv", 22), ("harvest.csv", len(finished.table("harvest")))):
        rows = list(csv.DictReader((finished.path / name).read_text(encoding="utf-8").splitlines()))
        assert len(rows) == count
        assert {"verdict", "radius"} <= rows[0].keys()


def test_tables_fit_on_a_terminal_and_say_what_the_summary_says(finished: Run) -> None:
    stream = io.StringIO()
    finished.write_report(Console(file=stream, width=80))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    assert any(re.search(r"different members among them +\d+ of 16", line) for line in lines)
    assert any(re.search(r"1000 +\d+\.\d% \(\d+\.\d–\d+\.\d %\) +\d+ +\d+", line) for line in lines)
    assert any(re.search(r"95% +\d+ of 16", line) for line in lines)
    assert any(re.search(r"no fixed point near +0 +6", line) for line in lines)
