"""The tutorial is executed from beginning to end, as a reader does it."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.ipynb"


def text_of(cell: Any, kind: str = "text/plain") -> str:
    """What a cell has put out, as text or of another kind."""
    texts = [one["text"] if one.output_type == "stream" else one["data"].get(kind, "") for one in cell.outputs]
    return "".join(texts)


def test_the_tutorial_says_what_it_promises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    notebook: Any = nbformat.read(TUTORIAL, as_version=4)  # type: ignore[no-untyped-call]
    kernel = AsyncKernelManager(kernel_name="python3", transport="ipc")  # no ports
    resources = {"metadata": {"path": str(tmp_path)}}
    with tempfile.TemporaryDirectory(prefix="mf-", dir="/tmp") as sockets:  # whose paths must be short
        monkeypatch.setenv("JUPYTER_RUNTIME_DIR", sockets)
        NotebookClient(notebook, km=kernel, timeout=300, startup_timeout=300, resources=resources).execute()

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
    notebook: Any = nbformat.read(TUTORIAL, as_version=4)  # type: ignore[no-untyped-call]
    for cell in notebook.cells:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
