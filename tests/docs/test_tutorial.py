"""The tutorial is executed from beginning to end, as a reader does it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

nbformat: Any = pytest.importorskip("nbformat", reason="nbformat is not installed")
NotebookClient: Any = pytest.importorskip("nbclient", reason="nbclient is not installed").NotebookClient

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.ipynb"


def read_tutorial() -> Any:
    return nbformat.read(TUTORIAL, as_version=4)


def text_of(cell: Any, kind: str = "text/plain") -> str:
    """What a cell has put out, as text or of another kind."""
    texts = [one["text"] if one.output_type == "stream" else one["data"].get(kind, "") for one in cell.outputs]
    return "".join(texts)


def test_the_tutorial_says_what_it_promises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "TMPDIR"):
        folder = tmp_path / name[:3].lower()
        folder.mkdir(exist_ok=True)
        monkeypatch.setenv(name, str(folder))
    notebook = read_tutorial()
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, kernel_name="python3", timeout=600, startup_timeout=600, resources=where).execute()

    _, training, recovering, plot, table, run, counts, back, rates = [
        cell for cell in notebook.cells if cell.cell_type == "code"
    ]
    assert "reached_target=True" in text_of(training)
    shown = text_of(recovering)
    assert "8/8 images" in shown
    assert "5 of 8 score below 1e-4" in shown
    assert text_of(recovering, "text/html").count("<img") == 3 * 8
    assert text_of(plot, "image/png")
    assert "fixed_point_mse" in text_of(table)
    assert "12 members and 12 controls, 2 masks, 2 methods" in text_of(run)
    assert text_of(run, "text/html").count("<img") == 4 * 8
    said = re.findall(r"(?m)^(controls|members)? +(accurate|approximate|not recovered) +(\d+)$", text_of(counts))
    assert said[0] == ("controls", "not recovered", "12")
    recovered = sum(int(count) for _, verdict, count in said[1:] if verdict != "not recovered")
    assert recovered >= 10
    assert text_of(back).count("members") == recovered
    by_mask = re.findall(r"(corner|half) +([01]\.\d+) +([01]\.\d+)", text_of(rates))  # of controls, then of members
    assert [mask for mask, *_ in by_mask] == ["corner", "half"] * 2
    assert [float(rate) for _, *both in by_mask[:2] for rate in both] == [0.0] * 4
    assert all(float(accelerated) > max(0.5, float(alone)) for _, accelerated, alone in by_mask[2:])


def test_it_is_kept_without_outputs() -> None:
    """What it shows depends on the machine and its versions: whoever runs it sees their own."""
    for cell in read_tutorial().cells:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
