"""The benchmark of reconstruction still runs."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.experiments import reconstruction


def test_quick(tmp_path: Path) -> None:
    reconstruction.main(["--quick", "--out", str(tmp_path / "reconstruction")])
    found = json.loads((tmp_path / "reconstruction.json").read_text())
    few, many = found["law"]
    assert few["whole"] == 0
    assert many["whole"] == 1
    (descent,) = found["descent"]
    assert descent["error"] < 1e-6
    assert descent["passes of descent"] > 0
    assert "Against the paper's optimiser" in (tmp_path / "reconstruction.md").read_text()
