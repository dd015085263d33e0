"""The examples of the documentation run as they are, with the commands that they name."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

import memrecon_fast as mf
from memrecon_fast.images.photographs import make_photographs
from memrecon_fast.methods import METHODS

DOCS = Path(__file__).parents[1] / "docs"
MAX_LINES = 60
OWN_MODELS = ("plain", "batchnorm", "vae", "autoencoder_kl", "lightning_checkpoint", "torchscript")
AT_LEAST = 0.75
"""The share of members that comes back of each of these, but for "autoencoder_kl", which is hardly trained."""


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pictures = _load(DOCS / "pictures.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all examples are; what the first one trains the others use."""
    place = tmp_path_factory.mktemp("examples")
    for script in (DOCS / "examples").glob("*.py"):
        shutil.copy(script, place)
    return place


class CIFAR10:
    """Stands in for the class of torchvision, with 16 pictures of the same size."""

    def __init__(self, root: str, download: bool = True) -> None:
        assert Path(root).is_dir()
        assert not download
        pixels = torch.cat(make_photographs(8, 8, size=32)).permute(0, 2, 3, 1)
        self._pixels = (255 * pixels).round().numpy().astype(np.uint8)

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self._pixels[index]), 0


def test_public_data_is_what_torchvision_gives(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = ModuleType("torchvision.datasets")
    module.__dict__.update(__all__=("CIFAR10",), CIFAR10=CIFAR10)
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    (folder / "data").mkdir()
    pictures.run_example("public_data")
    assert "controls: 0% recovered approximately" in capsys.readouterr().out
    assert Path("public_data.png").exists()


@pytest.mark.parametrize("name", [name for name in pictures.ORDER if name != "public_data"])
def test_an_example_runs_and_does_what_it_says(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    with mock.patch.dict(METHODS):  # "own_method" adds one
        pictures.run_example(name)
    said = capsys.readouterr().out
    assert said
    if name == "recover":
        assert "100% of the members recovered approximately" in said
        assert "0% of the controls approximately" in said
    if name == "own_method":
        assert "grey" in said
    if name == "degraded":
        assert "controls: 0 of 8 recognised" in said
    commands = pictures.commands_of(Path(f"{name}.py"))
    assert Path(f"{name}.png").exists() or commands
    for command in commands:
        run = folder / command.split("--out ")[1]
        assert (run / "report.html").stat().st_size > 10_000
        if name in OWN_MODELS:
            for row in mf.audit.open(run).summary["rows"]:
                expected = row["split"] == "members" and name != "autoencoder_kl"
                assert row["approximate_rate"] >= AT_LEAST if expected else row["approximate_rate"] == 0
    assert commands or name not in (*OWN_MODELS, "harvest", "degraded", "own_mask")


def test_the_examples_are_all_tried_short_and_shown() -> None:
    scripts = sorted((DOCS / "examples").glob("*.py"))
    assert {script.stem for script in scripts} == set(pictures.ORDER)
    gallery = (DOCS / "gallery.md").read_text(encoding="utf-8")
    for script in scripts:
        assert len(script.read_text(encoding="utf-8").splitlines()) <= MAX_LINES
        assert f"\n[docs/examples/{script.name}](examples/{script.name})\n" in gallery
