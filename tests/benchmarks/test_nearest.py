"""The benchmark of nearest images still runs."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.speed import nearest


def test_quick(tmp_path: Path) -> None:
    nearest.main(["--quick", "--out", str(tmp_path / "nearest")])
    results = json.loads((tmp_path / "nearest.json").read_text())
    assert results["members"] == 500
    assert len(results["milliseconds"]) == 6
    assert all(one["p50"] > 0 for one in results["milliseconds"].values())
    page = (tmp_path / "nearest.md").read_text()
    assert "members, recovered" in page
    assert "Set-up" in page
