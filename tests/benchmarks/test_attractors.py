"""The benchmark of attractors still runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.experiments import attractors


def test_quick(tmp_path: Path) -> None:
    attractors.main(["--quick", "--out", str(tmp_path / "attractors")])
    (row,) = json.loads((tmp_path / "attractors.json").read_text())["rows"]
    assert sum(row["verdicts"].values()) == row["images"] == 4
    assert [cell["method"] for cell in row["cells"]] == ["accelerated", "iterate"]
    assert "Means over the cells" in (tmp_path / "attractors.md").read_text()


def test_areas_under_roc_curves() -> None:
    came = np.arange(20) >= 10
    assert attractors.auc(np.arange(20.0), came) == {"auc": 1.0, "low": 1.0, "high": 1.0}
    chance = attractors.auc(np.zeros(20), came)
    assert chance is not None
    assert chance["auc"] == 0.5
    half = attractors.auc(np.tile([0.0, 1.0], 10), came)
    assert half is not None
    assert half["auc"] == pytest.approx(0.5)
    assert half["low"] < 0.4 < 0.6 < half["high"]
    assert attractors.auc(np.arange(20.0), np.arange(20) >= 17) is None
