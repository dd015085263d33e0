"""The benchmark of the memory of a reconstruction still runs."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.speed import reconstruction_memory


def test_quick(tmp_path: Path) -> None:
    reconstruction_memory.main(["--quick", "--out", str(tmp_path / "memory")])
    found = json.loads((tmp_path / "memory.json").read_text())
    assert [one["V"] for one in found["rows"]] == ["stored", "drawn"]
    assert all(one["back"] == 2 for one in found["rows"])
    assert "| drawn | 2 | 20 | 400 |" in (tmp_path / "memory.md").read_text()
