"""The experiments of attractors run, from the command, and their numbers are right where they are known."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from memrecon_fast import experiments
from memrecon_fast.attractors.theory import linear
from memrecon_fast.cli import app
from memrecon_fast.experiments.attractors.nets import Chain, descend
from memrecon_fast.experiments.attractors.plane import swiss_roll
from memrecon_fast.experiments.attractors.strided import strided_net
from memrecon_fast.experiments.experiment import Given, Scale
from memrecon_fast.experiments.running import make_plan, reproduce

DATA = os.environ.get("MEMRECON_DATA", "")
"""A folder with mnist-1000.npy and mnist-1000-controls.npy, for the test that reads them."""

QUICK = {
    "attractors-table1": ("2-layers-1-filters", {"max_steps": 20, "starts": 2}),
    "attractors-table2": ("s2-n1-3", {}),
    "attractors-strided": ("down to 1×1, 2 images", {"channels": 8, "max_steps": 20}),
    "attractors-initialisation": ("xavier-normal", {"max_steps": 20}),
    "attractors-line": ("construction", {}),
    "attractors-plane": ("6 layers × 128", {"width": 16, "depth": 2, "points": 4, "max_steps": 20}),
    "attractors-capacity": ("width-32", {"max_steps": 20}),
    "attractors-one-step": ("6×256", {"max_steps": 20}),
    "attractors-early-stopping": ("5 layers × 256", {"max_steps": 200}),
}
"""Of each experiment a cell, and what makes it quick."""


def memrecon(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["reproduce", *map(str, arguments)])


def test_the_list_names_all() -> None:
    listed = memrecon("--list")
    assert listed.exit_code == 0
    for one in experiments.every():
        assert one.name in listed.stdout
    assert [one.name for one in experiments.every()] == list(experiments.MODULES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["attractors-tabel1", "--out", "x"], "did you mean 'attractors-table1'?; --list shows all"),
        (["fig99", "--out", "x"], "there is no experiment 'fig99'; --list shows all"),
        (["attractors-table1"], "--out is missing"),
        ([], "name an experiment"),
        (["attractors-table1", "--out", "x", "--members", "x.npy"], "makes its own data"),
        (["attractors-capacity", "--out", "x", "--members", "x.npy", "--controls", "x.npy"], "x.npy"),
        (["attractors-capacity", "--out", "x", "--scale", "paper"], "must be one of 'small'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = memrecon(*arguments)
    assert refused.exit_code == 2
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", list(QUICK))
def test_each_experiment_runs_and_draws(tmp_path: Path, name: str) -> None:
    cell, quick = QUICK[name]
    experiment = experiments.find(name)
    arguments = {**experiment.scales["small"].cells[cell], **quick}
    experiment = dataclasses.replace(experiment, scales={"small": Scale({cell: arguments}, 0.1)})
    if experiment.pictures is not None:
        few = dataclasses.replace(experiment.pictures, members=4, controls=5)
        experiment = dataclasses.replace(experiment, pictures=few)
    made = reproduce(make_plan(experiment), tmp_path / "out")
    assert made.rows
    assert set(experiment.columns) <= set(made.rows[0])
    assert [path for path in made.paths if path.suffix == ".png"]
    assert all(path.stat().st_size for path in made.paths)


def test_an_experiment_from_the_command(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = memrecon("attractors-single-layer", "--out", out)
    assert done.exit_code == 0
    assert "Not as in the paper:" in done.stdout
    rows = json.loads((out / "numbers.json").read_text())["rows"]
    by_cell = {row["cell"]: row for row in rows}
    assert all(row["from_closed_form"] < 1e-11 for row in rows)  # the loss stops at 1e-26
    assert by_cell["sigmoid"]["rank"] == by_cell["sigmoid, adaptive"]["rank"] == 4
    assert by_cell["sigmoid, start 0.05"]["rank"] == 40
    assert by_cell["sigmoid"]["from_span"] < 1e-10 < by_cell["sigmoid, start 0.05"]["from_span"]
    assert {"single-layer.png", "single-layer.svg", "numbers.csv"} <= {path.name for path in out.iterdir()}


def test_a_deep_chain_memorises_one_image_and_a_shallow_one_does_not(tmp_path: Path) -> None:
    """Table 2's first row, and Theorem 4."""
    measure = experiments.find("attractors-table2").measure
    deep = measure(Given(42, tmp_path), size=2, images=1, layers=3, spread=0.01).rows[0]
    shallow = measure(Given(42, tmp_path), size=2, images=1, layers=1, spread=0.01).rows[0]
    assert deep["parameters"] == 27
    assert max(deep["loss"], shallow["loss"]) < 1e-8
    assert max(deep["distance_of_ones"], shallow["distance_of_ones"]) < 1e-2
    assert deep["largest_other"] < 0.15 < 0.3 < shallow["of_starts"][0]  # the median of five starts, and the least


@pytest.mark.parametrize(
    ("layers", "filters", "parameters"),
    [(3, 1, 27), (3, 16, 2592), (3, 128, 149760), (5, 16, 7200), (5, 128, 444672), (8, 1, 72), (8, 128, 887040)],
)
def test_the_nets_of_table_1_have_its_numbers_of_parameters(layers: int, filters: int, parameters: int) -> None:
    assert Chain(layers, filters, 0.1, seed=0).parameter_count == parameters


def test_a_chain_is_the_product_of_its_convolutions() -> None:
    chain = Chain(3, 1, 0.2, seed=0)
    first, second, third = (linear.convolution_matrix(weight.detach(), (3, 3)) for weight in chain.parameters())
    torch.testing.assert_close(linear.matrix_of(chain, (1, 3, 3)), third @ second @ first, rtol=0, atol=1e-12)


def test_descent_leaves_zero_and_comes_to_the_end_where_constant_steps_do_not_move() -> None:
    images = torch.rand(1, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    net = Chain(12, 1, 0.01, seed=0)
    before, _ = descend(net, images, 0.02, 0, 1e-8)
    constant = Chain(12, 1, 0.01, seed=0)
    optimizer = torch.optim.SGD(constant.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        loss = (constant(images) - images).square().mean()
        loss.backward()
        optimizer.step()
    after, steps = descend(net, images, 0.02, 3000, 1e-8)
    assert loss.item() == pytest.approx(before, rel=1e-6)
    assert after < 1e-8
    assert steps < 3000


def test_strided_nets_keep_the_shape_and_pass_their_smallest_size() -> None:
    net = strided_net((3, 16, 16), 4, 5, 3)
    sizes = []
    values = torch.rand(2, 3, 16, 16)
    for layer in net:
        values = layer(values)
        sizes.append(values.shape[-1])
    assert values.shape == (2, 3, 16, 16)
    assert min(sizes) == 4
    with pytest.raises(ValueError, match="images must be square"):
        strided_net((1, 28, 28), 1, 5, 0)


def test_images_that_an_experiment_cannot_take_are_refused_before_work_starts(tmp_path: Path) -> None:
    np.save(tmp_path / "digits.npy", np.zeros((60, 1, 28, 28), np.uint8))
    given = ["--members", tmp_path / "digits.npy", "--controls", tmp_path / "digits.npy"]
    refused = memrecon("attractors-strided", "--out", tmp_path / "out", *given)
    assert refused.exit_code == 2
    assert refused.stderr == "memrecon: images must be square, of 4 times a power of two pixels a side, not 28×28\n"
    assert not (tmp_path / "out").exists()


def test_the_swiss_roll_lies_in_the_square_and_turns() -> None:
    points = swiss_roll(50)[:, 0, 0]
    assert points.shape == (50, 2)
    assert points.min() == pytest.approx(0.05, abs=1e-6)
    assert points.max() == pytest.approx(0.95, abs=1e-6)
    middle = torch.linspace(1.5 * torch.pi, 4.5 * torch.pi, 50)
    assert np.corrcoef(points[:, 0], middle * middle.cos())[0, 1] == pytest.approx(1)


@pytest.mark.skipif(not DATA, reason="MEMRECON_DATA names no folder with MNIST")
def test_one_step_on_mnist(tmp_path: Path) -> None:
    experiment = experiments.find("attractors-one-step")
    cell = {"6×256": {"width": 256, "depth": 6, "max_steps": 300}}
    experiment = dataclasses.replace(experiment, scales={"small": Scale(cell, 0.1)})
    given = {"members": f"{DATA}/mnist-1000.npy", "controls": f"{DATA}/mnist-1000-controls.npy"}
    made = reproduce(make_plan(experiment, **given), tmp_path / "out")  # type: ignore[arg-type]
    assert made.rows[0]["pi_images_100"] > 0.5
