from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("memrecon_fast._C", reason="built without the C++ kernels")


def test_both_ways_do_the_same_work(tmp_path: Path) -> None:
    from benchmarks.speed import reconstruction_passes

    reconstruction_passes.main(["--quick", "--out", str(tmp_path / "passes")])
    found = json.loads((tmp_path / "passes.json").read_text())
    assert {row["d"] for row in found["passes"]} == {2, 20}
    assert all(row["milliseconds"][way]["p50"] > 0 for row in found["whole"] for way in ("compiled", "in torch"))
    assert found["whole"][0]["passes"]["compiled"] == pytest.approx(found["whole"][0]["passes"]["in torch"], rel=0.5)
    page = (tmp_path / "passes.md").read_text()
    assert "| linearise | 3 | 20 | 300 |" in page
