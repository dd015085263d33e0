"""The examples of the documentation run as they are, with the commands that they name."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[1] / "docs"
MAX_LINES = 60


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


@pytest.mark.parametrize("name", pictures.ORDER)
def test_an_example_runs_and_does_what_it_says(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    try:
        pictures.run_example(name)
    except pictures.SkippedError as skipped:
        if name != "public_data":
            raise
        pytest.skip(str(skipped))
    said = capsys.readouterr().out
    assert said
    if name == "recover":
        assert "100% of the members recovered approximately" in said
        assert "0% of the controls approximately" in said
    if name == "degraded":
        assert "controls: 0 of 8 recognised" in said
    commands = pictures.commands_of(Path(f"{name}.py"))
    assert Path(f"{name}.png").exists() or commands
    for command in commands:
        assert (folder / command.split("--out ")[1] / "report.html").stat().st_size > 10_000


def test_the_examples_are_all_tried_short_and_shown() -> None:
    scripts = sorted((DOCS / "examples").glob("*.py"))
    assert {script.stem for script in scripts} == set(pictures.ORDER)
    gallery = (DOCS / "gallery.md").read_text(encoding="utf-8")
    for script in scripts:
        assert len(script.read_text(encoding="utf-8").splitlines()) <= MAX_LINES
        assert f"\n[docs/examples/{script.name}](examples/{script.name})\n" in gallery
