from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from typer.testing import CliRunner, Result

from memrecon_fast import experiments
from memrecon_fast.cli import app
from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Pictures, Scale
from memrecon_fast.experiments.figures import new_figure, tile
from memrecon_fast.experiments.running import Plan, make_plan, reproduce

MEASURED: list[str] = []


class Stop:
    """Where the work is to be interrupted."""

    at = ""
    error: type[BaseException] = KeyboardInterrupt


def measure(given: Given, letter: str) -> Outcome:
    if letter == Stop.at:
        raise Stop.error("in the middle")
    MEASURED.append(letter)
    mean = float("nan") if given.members is None else given.members.mean().item()
    row = {"letter": letter, "drawn": torch.rand(1).item(), "mean": mean}
    return Outcome([row], {"square": np.arange(4).reshape(2, 2)})


def draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    figure = new_figure(2, 2)
    for outcome in outcomes.values():
        assert outcome.arrays["square"].tolist() == [[0, 1], [2, 3]]
    figure.subplots().plot([1, 2])
    return {"letters": figure}


def tiny(pictures: Pictures | None = None) -> Experiment:
    return Experiment(
        name="tiny",
        what="three letters",
        reproduces="Table 0",
        differs=("Nothing is as it was.",),
        scales={"small": Scale({"first": {"letter": "a"}, "the second": {"letter": "b"}, "c": {"letter": "c"}}, 0.1)},
        measure=measure,
        columns=("letter", "mean"),
        draw=draw,
        pictures=pictures,
    )


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    MEASURED.clear()
    monkeypatch.setattr(Stop, "at", "")
    monkeypatch.setattr(Stop, "error", KeyboardInterrupt)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """The experiment, as the command finds it."""
    experiment = tiny()
    find = experiments.find
    monkeypatch.setattr(experiments, "find", lambda name: experiment if name == "tiny" else find(name))
    return experiment


def memrecon(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["reproduce", *map(str, arguments)])


def plan_of(pictures: Pictures | None = None, **given: Any) -> Plan:
    return make_plan(tiny(pictures), **given)


def test_numbers_and_figures(tmp_path: Path) -> None:
    made = reproduce(plan_of(), tmp_path / "out", command="memrecon reproduce tiny")
    assert {path.name for path in made.paths} == {"numbers.json", "numbers.csv", "letters.png", "letters.svg"}
    assert all(path.stat().st_size for path in made.paths)
    numbers = json.loads((tmp_path / "out/numbers.json").read_text())
    assert [row["letter"] for row in numbers["rows"]] == ["a", "b", "c"]
    assert numbers["rows"][1]["cell"] == "the second"
    assert numbers["rows"][0]["mean"] is None  # NaN, which JSON has not
    assert (numbers["reproduces"], numbers["differs"]) == ("Table 0", ["Nothing is as it was."])
    (session,) = numbers["sessions"]
    assert session["command"] == "memrecon reproduce tiny"
    assert session["versions"]["torch"] == torch.__version__
    assert session["machine"]["threads"] == 1
    assert session["cells"] == ["first", "the second", "c"]
    with open(tmp_path / "out/numbers.csv", encoding="utf-8") as stream:
        assert [row["letter"] for row in csv.DictReader(stream)] == ["a", "b", "c"]


def test_an_interrupted_experiment_goes_on_and_ends_as_one_that_was_not(
    tmp_path: Path, registered: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    assert memrecon("tiny", "--out", whole).exit_code == 0
    MEASURED.clear()
    Stop.at = "b"
    interrupted = memrecon("tiny", "--out", parted)
    assert interrupted.exit_code == 130
    assert interrupted.stderr.strip() == (
        f"memrecon: interrupted; 1 of 3 parts are done in {parted}: the same command goes on from there"
    )
    Stop.error = RuntimeError
    failed = memrecon("tiny", "--out", parted)
    assert failed.exit_code == 1
    assert failed.stderr.startswith("memrecon: RuntimeError: in the middle; 1 of 3 parts are done")
    Stop.at = ""
    unfinished = [parted / ".numbers.csv.123.tmp", parted / "cells/.c.npz.123.tmp"]  # as a killed process leaves them
    for path in unfinished:
        path.write_text("half of it")
    assert memrecon("tiny", "--out", parted).exit_code == 0
    assert MEASURED == ["a", "b", "c"]
    assert not any(path.exists() for path in unfinished)
    rows = [json.loads((folder / "numbers.json").read_text())["rows"] for folder in (whole, parted)]
    assert rows[0] == rows[1]
    assert len(json.loads((parted / "experiment.json").read_text())["sessions"]) == 3
    again = memrecon("tiny", "--out", parted)
    assert again.exit_code == 0
    assert MEASURED == ["a", "b", "c"]  # nothing is measured twice


def test_another_experiment_in_the_folder_is_not_gone_on_with(tmp_path: Path, registered: Experiment) -> None:
    out = tmp_path / "out"
    assert memrecon("tiny", "--out", out).exit_code == 0
    refused = memrecon("tiny", "--out", out, "--seed", 7)
    assert refused.exit_code == 2
    assert refused.stderr.strip() == f"memrecon: {out} holds something else (seed: 42 there, 7 now); give another --out"


def test_cells_measured_by_other_rules_are_not_mixed(tmp_path: Path, registered: Experiment) -> None:
    out = tmp_path / "out"
    assert memrecon("tiny", "--out", out).exit_code == 0
    described = json.loads((out / "experiment.json").read_text())
    assert described.pop("stopping") == [1e-8, 1, 16, 8]
    (out / "experiment.json").write_text(json.dumps(described))
    refused = memrecon("tiny", "--out", out)
    assert refused.exit_code == 2
    assert "holds something else (stopping: " in refused.stderr
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("mine")
    refused = memrecon("tiny", "--out", tmp_path / "full")
    assert refused.exit_code == 2
    assert "is not empty, and holds no experiment" in refused.stderr


def test_a_damaged_part_is_named(tmp_path: Path, registered: Experiment) -> None:
    out = tmp_path / "out"
    assert memrecon("tiny", "--out", out).exit_code == 0
    (out / "cells/c.npz").write_bytes(b"PK")
    refused = memrecon("tiny", "--out", out)
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 1
    assert "c.json or its .npz is damaged, remove it and it is made again" in refused.stderr
    (out / "cells/c.json").unlink()
    assert memrecon("tiny", "--out", out).exit_code == 0


def test_images_are_photographs_or_those_that_are_given(tmp_path: Path) -> None:
    pictures = Pictures(members=3, controls=2, size=8)
    assert plan_of(pictures).inputs.said["members"] == "3 of photographs of scikit-image, 3×8×8"
    own = np.random.default_rng(0).integers(0, 256, (5, 1, 6, 6), dtype=np.uint8)
    np.save(tmp_path / "own.npy", own)
    given = {"members": [str(tmp_path / "own.npy")], "controls": [str(tmp_path / "own.npy")]}
    inputs = plan_of(pictures, **given).inputs
    assert inputs.members is not None
    assert torch.equal(inputs.members, torch.from_numpy(own[:3]).float() / 255)
    assert inputs.controls is not None
    assert len(inputs.controls) == 2
    assert inputs.digest != plan_of(pictures).inputs.digest


@pytest.mark.parametrize(
    ("pictures", "given", "message"),
    [
        (None, {"members": ["own.npy"]}, "tiny makes its own data"),
        (Pictures(3, 2, 8), {"controls": ["own.npy"]}, "--controls needs --members"),
        (Pictures(3, 2, 8), {"members": ["own.npy"]}, "tiny needs --controls"),
        (Pictures(9, 2, 8), {"members": ["own.npy"], "controls": ["own.npy"]}, "--members must have at least 9 images"),
        (Pictures(3, 2, 8), {"members": ["own.npy"], "controls": ["other.npy"]}, "expected"),
        (None, {"scale": "papr"}, "--scale of tiny must be one of 'small', not 'papr'"),
        (None, {"seed": -1}, "seed must be at least 0"),
    ],
)
def test_what_is_given_wrongly_is_said_before_work_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: Pictures | None, given: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("own.npy", np.zeros((5, 1, 6, 6), np.uint8))
    np.save("other.npy", np.zeros((5, 1, 7, 7), np.uint8))
    with pytest.raises(ValueError, match=message):
        plan_of(pictures, **given)


def test_tiles_are_side_by_side_and_grey_ones_have_three_equal_channels() -> None:
    images = np.linspace(0, 1, 2 * 3 * 4 * 5).reshape(2, 3, 1, 4, 5)
    page = tile(images)
    assert page.shape == (2 * 4 + 1, 3 * 5 + 2, 3)
    np.testing.assert_array_equal(page[5:9, 6:11, 0], images[1, 1, 0])
    np.testing.assert_array_equal(page[..., 0], page[..., 2])
    assert (page[4] == 1).all()
