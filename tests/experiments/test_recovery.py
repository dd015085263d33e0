"""The experiments of recovery run, say what they should, and go on after an interruption."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from memrecon_fast import experiments
from memrecon_fast.audit import open as open_run
from memrecon_fast.autoencoders import load
from memrecon_fast.common.latex import latex_table
from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Pictures, Row, Scale, Table
from memrecon_fast.experiments.recovery import nets
from memrecon_fast.experiments.recovery.audits import OURS, Task
from memrecon_fast.experiments.recovery.fig3 import compared
from memrecon_fast.experiments.recovery.nets import Net
from memrecon_fast.experiments.recovery.rates import controls_table, rates_table
from memrecon_fast.experiments.running import Reproduction, make_plan, reproduce

MEMORISES = Net(
    "FC 4", "fc-10", "leaky_relu", 0.5, width=96, side=8, max_outer_iterations=10, training={"max_steps": 1500}
)
SHORT = dataclasses.replace(MEMORISES, title="FC short", training={"max_steps": 330})
TASK = Task((1e-3, 1e-7), masks=("center", "half"), methods=(OURS, "paper", "iterate"), borderline=True)
audits = importlib.import_module("memrecon_fast.experiments.recovery.audits")


def small(name: str, **cells: Any) -> Experiment:
    scale = Scale({cell: {"net": net, "task": task} for cell, (net, task) in cells.items()}, 0.1)
    return dataclasses.replace(experiments.find(name), scales={"small": scale}, pictures=Pictures(6, 6, 8))


def made(name: str, folder: Path, **cells: Any) -> Reproduction:
    return reproduce(make_plan(small(name, **cells)), folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of Figure 3, with one net that memorises, and one that does not."""
    folder = tmp_path_factory.mktemp("fig3") / "out"
    made("fig3", folder, memorises=(MEMORISES, TASK), short=(SHORT, TASK))
    return folder


@pytest.fixture(scope="module")
def fig3(folder: Path) -> Reproduction:
    return made("fig3", folder, memorises=(MEMORISES, TASK), short=(SHORT, TASK))


def rates(rows: list[Row], measure: str, **wanted: object) -> list[float]:
    return [row[measure] for row in rows if all(row[name] == value for name, value in wanted.items())]


def rates_of_cell(rows: list[Row], net: Any, level: float | None, mask: Any, method: Any) -> list[float]:
    return rates(rows, "accurate", net=net, level=level, mask=mask, method=method, split="members")


def test_what_is_memorised_comes_back(fig3: Reproduction) -> None:
    accelerated = rates(fig3.rows, "accurate", cell="memorises", level=1e-7, split="members", method=OURS)
    alone = rates(fig3.rows, "accurate", cell="memorises", level=1e-7, split="members", method="iterate")
    assert len(accelerated) == 2
    assert np.mean(accelerated) >= 0.8
    assert np.mean(alone) < np.mean(accelerated)
    assert max(rates(fig3.rows, "approximate", split="controls")) == 0
    assert max(rates(fig3.rows, "accurate", cell="short")) == 0


def test_controls_are_tried_with_the_lowest_loss_alone(fig3: Reproduction) -> None:
    tried = {(row["cell"], row["level"]) for row in fig3.rows if row["split"] == "controls"}
    assert tried == {("memorises", 1e-7), ("short", None)}
    assert {row["method"] for row in fig3.rows if row["split"] == "controls"} == {OURS, "paper", "iterate"}


def test_a_net_that_reaches_no_level_is_audited_where_it_ended(fig3: Reproduction, folder: Path) -> None:
    (loss,) = set(rates(fig3.rows, "loss", cell="short"))
    assert loss > 1e-3
    assert (folder / "runs/short/models/end.safetensors").exists()
    assert load(folder / "runs/short/models/end.safetensors") is not None


def test_rates_are_those_of_the_audits(fig3: Reproduction, folder: Path) -> None:
    for solver in (OURS, "paper"):
        summary = open_run(folder / "runs" / "memorises" / f"1e-07-{solver}").summary
        for row in summary["rows"]:
            found = rates(fig3.rows, "approximate", cell="memorises", level=1e-7, **{
                name: row[name] for name in ("split", "mask", "method")
            })  # fmt: skip
            assert found == [row["approximate_rate"]]


def test_the_files(fig3: Reproduction, folder: Path) -> None:
    with open(folder / "fig3.csv", encoding="utf-8", newline="") as stream:
        header, *lines = csv.reader(stream)
    assert header == ["net", "train loss", "method", "center", "half"]
    assert len(lines) == (2 + 1) * 3  # levels, methods
    assert (folder / "fig3.tex").read_text(encoding="utf-8").count(r"\\") == len(lines) + 1
    assert fig3.tables["fig3-compared"].rows[0][1] == "U-Net: 78 (its mask 6)"
    assert (folder / "fig3.svg").stat().st_size > 5000


@pytest.mark.parametrize(("name", "files"), [
    ("figF1", ["figF1.png"]),
    ("figF2", ["figF2.svg", "figF2.csv", "figF2.tex"]),
    ("figF3", ["figF3.svg", "figF3.csv"]),
    ("figF4", ["figF4.svg", "figF4.csv"]),
    ("controls", ["controls.csv", "controls.tex"]),
])  # fmt: skip
def test_the_same_cells_are_shown_in_other_ways(
    name: str, files: list[str], fig3: Reproduction, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("it is there already")

    monkeypatch.setattr(audits, "run", never)
    again = made(name, folder, memorises=(MEMORISES, TASK), short=(SHORT, TASK))
    assert again.rows == fig3.rows
    assert json.loads((folder / "numbers.json").read_text())["experiment"] == name
    assert all((folder / file).stat().st_size for file in files)
    if name == "figF4":
        for net, mask, method, *rates in again.tables["figF4"].rows:
            level = 1e-7 if net == MEMORISES.title else None
            (accurate,) = rates_of_cell(fig3.rows, net, level, mask, method)
            assert rates[-1] == f"{100 * accurate:.3g}"  # the threshold of accurate recovery
    if name == "controls":
        assert [row[3:6] for row in again.tables["controls"].rows] == [[12, 0, 0]] * 6


def test_it_goes_on_after_an_interruption(fig3: Reproduction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Path] = []
    run = audits.run

    def once(plan: Any, model: Any, out: Path, **how: Any) -> Any:
        if done:
            raise KeyboardInterrupt
        done.append(out)
        return run(plan, model, out, **how)

    monkeypatch.setattr(audits, "run", once)
    with pytest.raises(KeyboardInterrupt):
        made("fig3", tmp_path / "out", memorises=(MEMORISES, TASK))
    before = [(path, path.stat().st_mtime_ns) for path in (tmp_path / "out/runs/memorises/models").glob("loss-*")]
    assert len(before) == 2
    monkeypatch.setattr(audits, "run", run)
    again = made("fig3", tmp_path / "out", memorises=(MEMORISES, TASK))
    assert again.rows == [row for row in fig3.rows if row["cell"] == "memorises"]
    assert [(path, path.stat().st_mtime_ns) for path, _ in before] == before


def test_noise(tmp_path: Path) -> None:
    net = dataclasses.replace(MEMORISES, gamma=0.1)
    task = Task((1e-7,), ("center",), (OURS, "iterate"), noise_std=0.02, controls=(OURS,))
    noisy = made("figG1", tmp_path / "noisy", fc=(net, task))
    (ours,) = rates(noisy.rows, "approximate", split="members", method=OURS)
    assert ours >= 0.8
    assert max(rates(noisy.rows, "approximate", split="controls")) == 0
    description = open_run(tmp_path / "noisy/runs/fc" / f"1e-07-{OURS}").summary["noise_std"]
    assert description == 0.02
    assert (tmp_path / "noisy/figG1.png").exists()
    with np.load(tmp_path / "noisy/cells/fc.npz") as arrays:
        original, *shown = arrays["pictures"]
        for picture, method in zip((shown[1], shown[3]), ("iterate", OURS), strict=True):  # those that the audit has
            errors = np.square(picture - original).mean(axis=(1, 2, 3))
            np.testing.assert_allclose(errors, arrays[f"1e-07 center {method}"][: len(errors)], rtol=1e-3)


@pytest.mark.parametrize("name", ["table1", "table2"])
def test_the_tables(name: str, tmp_path: Path) -> None:
    task = Task((1e-3,), ("center",), (OURS, "paper"), controls=(OURS,))
    found = made(name, tmp_path, net=(MEMORISES, task))
    assert set(found.tables) == {name, f"{name}-controls", f"{name}-compared"}
    compared = {row[0]: row for row in found.tables[f"{name}-compared"].rows}
    (measured,) = rates(found.rows, "approximate", split="members", method="paper")
    assert compared["blind, the paper's method"][2:5:2] == [MEMORISES.title, f"{100 * measured:.3g}"]
    assert compared["mask known"][4] == "not measured"


def test_some_of_the_members_are_tried(tmp_path: Path) -> None:
    task = Task((1e-3,), ("center",), (OURS,), controls=(OURS,), tried=2)
    found = made("table1", tmp_path, net=(MEMORISES, task))
    assert {(row["split"], row["images"]) for row in found.rows} == {("members", 2), ("controls", 2)}


def test_images_that_a_net_cannot_take() -> None:
    experiment = dataclasses.replace(experiments.find("table2"), pictures=Pictures(2, 2, 9))
    with pytest.raises(ValueError, match=r"unet, U-Net, Softplus: .*divisible by 2, not 9×9"):
        make_plan(experiment)


def test_nets_are_compared_one_by_one() -> None:
    def row(net: str, loss: float, split: str, mask: str, method: str, accurate: float, approximate: float) -> Row:
        about = {"net": net, "loss": loss, "split": split, "mask": mask, "method": method, "images": 50}
        return about | {"accurate": accurate, "approximate": approximate}

    outcomes = {
        "fc": Outcome([
            row("FC", 1e-9, "members", "center", "paper", 0.9, 0.9),
            row("FC", 1e-9, "controls", "center", "paper", 0.0, 0.02),
            row("FC", 1e-9, "controls", "half", "paper", 0.02, 0.04),
        ]),
        "unet": Outcome([
            row("U-Net, PReLU", 1e-4, "members", "center", "paper", 0.1, 0.2),
            row("U-Net, PReLU", 1e-8, "members", "center", "paper", 0.5, 0.8),
            row("U-Net, PReLU", 1e-8, "members", "half", "paper", 0.3, 0.8),
        ]),
        "other": Outcome([row("U-Net, Softplus", 3e-5, "members", "center", "paper", 0.0, 0.6)]),
    }  # fmt: skip
    lines = {(line[0], line[2]): line for line in compared(outcomes).rows}
    assert lines["blind, the paper's method", "U-Net, PReLU"][3:] == ["1.0e-08", "40", "center 50, half 30"]
    assert lines["blind, the paper's method", "U-Net, Softplus"][3:] == ["3.0e-05", "0", "center 0"]
    assert ("blind, the paper's method", "FC") not in lines
    assert lines["autoencoder alone", "–"][4] == "not measured"
    assert lines["controls, accurately", "FC"][3:] == ["1.0e-09", "1", "center 0, half 2"]
    assert controls_table(outcomes).rows == [["FC", "1.0e-09", "paper", 100, 1, 3, "2 of 50 (half)"]]
    table = rates_table(outcomes, "approximate", "")
    assert table.rows[1] == ["U-Net, PReLU", "1.0e-04", "paper", "20", "–"]
    assert table.rows[2] == ["U-Net, PReLU", "1.0e-08", "paper", "80", "80"]


def test_the_lowest_loss_is_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rises = SimpleNamespace(checkpoints={1e-3: tmp_path / "3", 1e-7: tmp_path / "7"}, reached_target=False, loss=2e-7)
    losses = {"3": 9e-4, "7": 9e-8}
    monkeypatch.setattr(nets, "train", lambda *_, **__: rises)
    monkeypatch.setattr(nets.Trained, "load", lambda self, device: self.path.name)
    monkeypatch.setattr(nets, "evaluate", lambda name, images: losses[name])
    given = Given(42, tmp_path, kept=tmp_path)
    found = nets.fit(given, MEMORISES, torch.rand(2, 3, 8, 8), (1e-3, 1e-7, 1e-9))
    assert [(one.level, one.loss) for one in found] == [(1e-3, 9e-4), (1e-7, 9e-8)]
    diverged = SimpleNamespace(checkpoints={}, reached_target=False, loss=float("nan"), steps=7)
    monkeypatch.setattr(nets, "train", lambda *_, **__: diverged)
    with pytest.raises(ValueError, match="the training of FC 4 diverged: its loss is nan after 7 steps"):
        nets.fit(given, MEMORISES, torch.rand(2, 3, 8, 8))


def test_images_are_reduced_never_enlarged() -> None:
    assert MEMORISES.images(torch.rand(2, 3, 16, 8)).shape == (2, 3, 8, 8)
    with pytest.raises(ValueError, match="net, FC 4: images are reduced to 8×8 pixels; these have 6×8"):
        nets.check_shape((3, 6, 8), {"net": {"net": MEMORISES}})


def test_other_arguments_are_refused(folder: Path) -> None:
    wider = dataclasses.replace(MEMORISES, width=97)
    with pytest.raises(ValueError, match=r"memorises\.json was measured with other nets, settings or masks than this"):
        made("fig3", folder, memorises=(wider, TASK), short=(SHORT, TASK))


def test_controls_where_there_are_none() -> None:
    with pytest.raises(ValueError, match="fig1 takes no --controls"):
        make_plan(experiments.find("fig1"), members="anything", controls="anything")


def test_photographs_that_there_are_not() -> None:
    with pytest.raises(ValueError, match=r"do not hold 1100 .* give --members and --controls, or fewer by --limit"):
        make_plan(experiments.find("table1"))


def test_latex() -> None:
    table = Table("50 % of f_x < 1 & more", ["mask", "rate"], [["random-50", 12.5], ["a_b", None]])
    lines = latex_table(table, "tab:x").splitlines()
    assert r"\caption{50 \% of f\_x $<$ 1 \& more}" in lines
    assert r"\label{tab:x}" in lines
    assert r"\begin{tabular}{lr}" in lines
    assert r"random-50 & 12.5 \\" in lines
    assert r"a\_b & -- \\" in lines


def test_iterations(tmp_path: Path) -> None:
    experiment = dataclasses.replace(
        experiments.find("fig1"),
        scales={"small": Scale({"fc": {"net": MEMORISES}}, 0.1)},
        pictures=Pictures(6, 0, 8),
    )
    found = reproduce(make_plan(experiment), tmp_path)
    (center,) = [row for row in found.tables["fig1"].rows if row[:2] == ["center", "paper"]]
    assert center[3] != "never"
    assert float(str(center[7])) > 33
    blind = [row for row in found.rows if (row["mask"], row["method"]) == ("center", "paper")]
    assert blind[0]["residual"] is None  # there is nothing to compare the first one with
    assert blind[0]["wrong_mask_share"] > blind[-1]["wrong_mask_share"]
    assert (tmp_path / "fig1-fc.png").stat().st_size > 5000
    masks = dataclasses.replace(experiments.find("fig2"), scales=experiment.scales, pictures=experiment.pictures)
    assert reproduce(make_plan(masks), tmp_path).rows == found.rows
    assert (tmp_path / "fig2-fc.svg").exists()
