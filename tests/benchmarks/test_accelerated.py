"""`benchmarks/experiments/accelerated.py` at a tiny size: its rows, what it measures again, and its page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("safetensors")
pytest.importorskip("skimage")

from benchmarks.experiments import accelerated
from benchmarks.experiments.accelerated_report import OURS, render

NET = accelerated.Net("tiny", "leaky_relu", 2, 8, (1e-1, 1e-2), depth=2, width=32, steps=300, sweeps=True)
MASKS = ("center", "stripes")


def rows_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "tiny.json").read_text())["rows"]  # type: ignore[no-any-return]


def test_what_is_there_with_these_settings_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("paper, γ = 1", OURS, "accelerated, noise")
    every = accelerated.methods
    monkeypatch.setattr(
        accelerated, "methods", lambda net, level: (one for one in every(net, level) if one.name in few)
    )
    accelerated.run(NET, tmp_path, MASKS)
    rows = rows_of(tmp_path)
    assert len(rows) == (2 + 3) * len(MASKS)  # noise at the lowest loss alone
    for row in rows.values():
        assert row["loss"] <= row["level"]
        assert row["members"]["images"] == row["controls"]["images"] == len(row["members"]["score"]) == 2
        assert row["pixels"] == 3 * 8 * 8
        assert row["settings"]["noise_std"] == (accelerated.NOISE if "noise" in row["method"] else 0)
    capsys.readouterr()
    accelerated.run(NET, tmp_path, MASKS)
    assert capsys.readouterr().out == ""
    content = json.loads((tmp_path / "tiny.json").read_text())
    content["rows"][f"0.01 | {OURS} | stripes"]["settings"]["stall"] = 3
    (tmp_path / "tiny.json").write_text(json.dumps(content))
    accelerated.run(NET, tmp_path, MASKS)
    assert capsys.readouterr().out.splitlines() == [f"tiny at {rows[f'0.01 | {OURS} | stripes']['loss']:.1e}: {OURS}"]
    assert rows_of(tmp_path) == rows


def test_every_method_is_on_the_page(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    accelerated.run(NET, folder, MASKS[:1])
    render({"tiny": json.loads((folder / "tiny.json").read_text())}, folder)
    page = (tmp_path / "accelerated.md").read_text()
    names = [method.name for level in NET.levels for method in accelerated.methods(NET, level)]
    assert len(names) == len(rows_of(folder))
    for name in names:
        assert f"| {name} |" in page
    for heading in (
        "Against the paper's method",
        "Several γ",
        "Recognised without the original",
        "Scores, image by image",
    ):
        assert f"## {heading}" in page
