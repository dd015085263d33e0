"""The benchmark of spectra still runs."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.speed import spectra


def test_quick(tmp_path: Path) -> None:
    spectra.main(["--quick", "--out", str(tmp_path / "spectra")])
    results = json.loads((tmp_path / "spectra.json").read_text())
    assert results["row"]["products"] == 12
    assert results["row"]["spectra over bare"]["p50"] > 0
    assert [one["images"] for one in results["memory"]] == [10, 20]
    assert "over bare" in (tmp_path / "spectra.md").read_text()
