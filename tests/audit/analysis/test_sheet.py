"""The order of the contact sheet, and that the thumbnails that it needs are among those that are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from memrecon_fast.audit.analysis import sheet
from memrecon_fast.audit.analysis.sheet import Leaders, best_first, leading
from memrecon_fast.audit.store.records import Cell
from tests.helpers.made_run import make_run

MASKS = ("center", "half", "corner")
COUNT = 60


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sheet, "MAX_SHOWN", 7)
    return 7


@pytest.mark.parametrize("degraded", [False, True])
def test_the_first_of_the_sheet_are_kept_under_the_mask_that_they_stand_under(
    few: int, tmp_path: Path, degraded: bool
) -> None:
    random = np.random.default_rng(0)
    for seed, easier in enumerate((0.0, 3.0, -4.0)):  # mostly accurate, mostly lost, few that differ
        masks = ("given",) if degraded else MASKS
        errors = {
            Cell("members", mask, "paper"): 10.0 ** random.normal(-5 + easier + number, 2, COUNT).round(1)
            for number, mask in enumerate(masks)
        }
        for found in errors.values():
            found[random.choice(COUNT, 5, replace=False)] = np.inf
        results = make_run(tmp_path / str(seed), errors, degraded=degraded)
        standings, _ = best_first(results)
        assert sorted(one.index for one in standings) == list(range(COUNT))
        for one in standings[:few]:
            assert one.index in leading(results.cells[Cell("members", one.mask, "paper")])
        ranks = [[*results.verdicts, results.otherwise, "diverged"].index(one.verdict) for one in standings]
        assert ranks == sorted(ranks)


def test_leaders_are_those_of_all_images_in_whatever_order(few: int) -> None:
    random = np.random.default_rng(1)
    errors = random.choice([1e-9, 1e-8, 1e-3, np.inf], COUNT)
    columns = {"index": np.arange(COUNT), "mse": errors, "score": errors, "diverged": np.isinf(errors),
               "erased_mse": np.full(COUNT, 0.1)}  # fmt: skip
    columns["erased_mse"][:20] = 0.0  # these do not count
    assert len(leading(columns)) == few
    for _ in range(10):
        leaders = Leaders()
        kept = {int(index) for index in 20 + random.permutation(40) if leaders.add(float(errors[index]), int(index))}
        assert {*leading(columns)} <= kept
        assert len(kept) < 40
