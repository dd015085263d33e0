"""`memrecon attractors`: what is wrong with its arguments is one line and exit code 2, before any work."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from memrecon_fast.cli import app
from tests.helpers.memorised import Memorised
from tests.test_cli import one_line

MODELS = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, images):
        return self.layer(images)

class Rounding(Net):
    def forward(self, images):
        return (self.layer(images) * 7).round() / 7

def net(): return Net().eval()
def half(): return Net().half().eval()
def rounding(): return Rounding().eval()
"""


@pytest.fixture
def folder(memorised: Memorised, tmp_path: Path) -> Path:
    (tmp_path / "models.py").write_text(MODELS)
    np.save(tmp_path / "members.npy", memorised.members[:4].numpy())
    np.save(tmp_path / "integers.npy", (255 * memorised.members[:4].numpy()).astype(np.int64))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models.py:rounding", "members.npy"], "models.py:rounding: autoencoder's gradients are not those of the"),
        (["models.py:half", "members.npy"], "autoencoder must be float32"),
        (["models.py:net", "integers.npy"], "int64"),
        (["models.py:net", "missing.npy"], "missing.npy"),
        (["models.py:net"], "harvest"),
        (["models.py:net", "--harvest", "10"], "shape"),
        (["models.py:net", "--harvest", "10", "--shape", "3x8"], "--shape"),
        (["models.py:net", "members.npy", "--harvest", "10", "--kind", "smoth"], "did you mean 'smooth'?"),
        (["models.py:net", "members.npy", "--harvest", "10", "--kind", "images"], "controls"),
        (["models.py:net", "members.npy", "--tolerance", "0"], "tolerance"),
        (["models.py:net", "members.npy", "--basins", "nois"], "did you mean 'noise'?"),
        (["models.py:net", "--harvest", "10", "--shape", "3x8x8", "--curve", "5"], "--curve and --basins are about"),
    ],
)
def test_what_is_wrong_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(app, ["attractors", *arguments, "--out", "run"])
    assert result.exit_code == 2
    assert message in one_line(result.stderr)
    assert not (folder / "run").exists()


def test_a_harvest_without_images(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    arguments = ["attractors", "models.py:net", "--harvest", "8", "--shape", "3x8x8", "--out", "run"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    summary = json.loads((folder / "run" / "summary.json").read_text())
    assert summary["harvest"]["starts"] == 8
    assert summary["stability"] == []
    assert (folder / "run" / "report.html").exists()
