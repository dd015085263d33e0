"""The pictures of what came out of noise."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from benchmarks.experiments import harvest_picture
from memrecon_fast.attractors.opened import Run
from memrecon_fast.attractors.session import run
from tests.helpers.memorised import Memorised
from tests.helpers.surveying import small_survey


@pytest.fixture(scope="module")
def finished(memorised: Memorised, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(
        small_survey(memorised, harvest=64), memorised.autoencoder, tmp_path_factory.mktemp("s") / "run", progress=False
    )


def test_each_member_that_was_found_is_drawn_once_by_falling_share(finished: Run) -> None:
    rows, starts = harvest_picture.chosen(finished.path, others=False)
    assert starts == finished.summary["harvest"]["starts"]
    assert len({row["member"] for row in rows}) == len(rows) == finished.summary["harvest"]["found"]["members"]
    assert [row["starts"] for row in rows] == sorted((row["starts"] for row in rows), reverse=True)
    others, _ = harvest_picture.chosen(finished.path, others=True)
    assert others
    assert all(row["member_mse"] >= 5e-4 for row in others)
    harvest_picture.main([str(finished.path), "--out", str(finished.path.parent / "others.png"), "--others"])


def test_draws_as_many_columns_as_are_asked_for(finished: Run, tmp_path: Path) -> None:
    widths = []
    for columns in (1, 3):
        harvest_picture.main([str(finished.path), "--out", str(tmp_path / "x.png"), "--columns", str(columns)])
        widths.append(Image.open(tmp_path / "x.png").width)
    assert widths[0] < widths[1]
