"""The experiments of attractors run, from the command, and their numbers are right where they are known."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from memrecon_fast import experiments
from memrecon_fast.attractors.theory import linear
from memrecon_fast.autoencoders import FullyConnected, UNet
from memrecon_fast.cli import app
from memrecon_fast.experiments.attractors.nets import Chain, descend, from_span
from memrecon_fast.experiments.attractors.nonlinear import begin
from memrecon_fast.experiments.attractors.one_step import look_at_steps
from memrecon_fast.experiments.attractors.plane import swiss_roll
from memrecon_fast.experiments.attractors.strided import strided_net
from memrecon_fast.experiments.experiment import Given, Scale
from memrecon_fast.experiments.running import make_plan, reproduce
from memrecon_fast.images.photographs import make_photographs

DATA = os.environ.get("MEMRECON_DATA", "")
"""A folder with mnist-1000.npy and mnist-1000-controls.npy, for the test that reads them."""

QUICK: dict[str, tuple[str, dict[str, Any]]] = {
    "attractors-table1": ("2-layers-1-filters", {"max_steps": 20, "starts": 2}),
    "attractors-table2": ("s2-n1-3", {}),
    "attractors-strided": ("down to 1×1, 2 images", {"channels": 8, "max_steps": 20}),
    "attractors-initialisation": ("xavier-normal", {"max_steps": 20}),
    "attractors-line": ("construction", {}),
    "attractors-plane": ("6 layers × 128", {"width": 16, "depth": 2, "points": 4, "max_steps": 20}),
    "attractors-capacity": ("width-32", {"max_steps": 20}),
    "attractors-one-step": ("6×256", {"max_steps": 20}),
    "attractors-one-filter": ("3 layers", {"nets": 2, "max_steps": 20}),
    "attractors-convolutional": ("3 levels, 10 images", {"widths": (4, 8), "max_steps": 20}),
    "attractors-reconstruction": ("20 images", {"width": 16, "depth": 2, "max_steps": 20}),
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
        (["picture", "--out", "x"], "there is no experiment 'picture'; --list shows all"),
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
    deep = measure(Given(42, tmp_path), size=2, images=1, net={"layers": 3, "filters": 1, "spread": 0.01}).rows[0]
    shallow = measure(Given(42, tmp_path), size=2, images=1, net={"layers": 1, "filters": 1, "spread": 0.01}).rows[0]
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


def test_skip_connections_go_round_layers_but_for_the_first() -> None:
    chain = Chain(7, 1, 0.2, seed=0, skip=2)
    layers = [linear.convolution_matrix(weight.detach(), (3, 3)) for weight in chain.parameters()]
    expected = layers[1] @ layers[0]
    for first, second in ((2, 3), (4, 5)):
        expected = expected + layers[second] @ layers[first] @ expected
    torch.testing.assert_close(linear.matrix_of(chain, (1, 3, 3)), layers[6] @ expected, rtol=0, atol=1e-12)


def test_a_chain_with_skip_connections_trains_and_has_its_image_as_eigenvector(tmp_path: Path) -> None:
    net = {"layers": 24, "filters": 1, "spread": 0.3, "skip": 10}
    measured = experiments.find("attractors-table2").measure(
        Given(42, tmp_path), size=2, images=1, net=net, max_steps=2000, starts=1
    )
    row = measured.rows[0]
    assert (row["converged"], row["skip"], row["parameters"]) == ("1 of 1", 10, 216)
    assert row["distance_of_ones"] < 1e-2


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


def test_one_filter_and_leaky_relus_memorise_in_many_layers_and_not_in_one(tmp_path: Path) -> None:
    measure = experiments.find("attractors-one-filter").measure
    (shallow,), (deep,) = (
        measure(Given(42, tmp_path), layers=layers, spread=spread, nets=1).rows
        for layers, spread in ((1, 0.05), (29, 0.2))
    )
    assert max(shallow["loss"], deep["loss"]) < 1e-8
    assert deep["from_image"] < 0.1 < 0.5 < shallow["from_image"]


def test_what_is_in_the_span_is_at_no_distance_from_it() -> None:
    images = torch.tensor([[1.0, 0, 0, 0], [1.0, 1, 0, 0]])
    outputs = torch.tensor([[3.0, -4, 0, 0], [0, 3, 4, 0], [0, 0, 0, 2]])
    torch.testing.assert_close(from_span(images, outputs), torch.tensor([0, 0.8, 1.0], dtype=torch.float64))


class Drawn(nn.Module):
    """Halves the distance to one image: an attractor, whose eigenvalues are all 1/2."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.image = nn.Parameter(image)

    def forward(self, images: Tensor) -> Tensor:
        drawn: Tensor = (images + self.image) / 2
        return drawn


def test_what_a_net_does_in_1_10_and_100_steps() -> None:
    generator = torch.Generator().manual_seed(0)
    members, controls = torch.rand(2, 1, 4, 4, generator=generator), torch.rand(5, 1, 4, 4, generator=generator)
    row, kept = look_at_steps(Drawn(members[1]).eval(), members, controls, seed=0)
    assert row["attractors"] == 1
    assert row["radius"] == pytest.approx(0.5)
    assert [row[f"pi_images_{time}"] for time in (1, 10, 100)] == [0, 1, 1]  # the MSE falls to a quarter in each step
    assert row["pi_noise_members"] == 1
    pictures = kept["pictures"]
    torch.testing.assert_close(pictures[1, :4], (controls[:4] + members[1]) / 2)
    assert torch.equal(pictures[4], members[1].expand(8, 1, 4, 4))


def test_the_convolutional_nets_are_what_their_rows_say(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    members, controls = torch.rand(4, 1, 28, 28, generator=generator), torch.rand(3, 1, 28, 28, generator=generator)
    measured = experiments.find("attractors-convolutional").measure(
        Given(42, tmp_path, members, controls), widths=(2, 3), images=2, max_steps=1
    )
    row = measured.rows[0]
    count = sum(isinstance(layer, nn.Conv2d) for layer in UNet((1, 8, 8), (2, 3)).modules())
    assert (row["layers"], row["members"]) == (count, 2)
    assert row["net"] == "7 convolutions, down to 4 pixels a side"
    start = measured.arrays["pictures"][0, 0]
    assert start.shape == (1, 8, 8)
    assert start.mean() == pytest.approx(controls[0].mean().item(), abs=0.02)  # windows overlap: 28 is no multiple of 8


def test_initialisation_draws_fully_connected_and_convolutional_nets_apart(tmp_path: Path) -> None:
    members, controls = make_photographs(3, 5, 8)
    experiment = experiments.find("attractors-initialisation")
    given = Given(42, tmp_path, members, controls)
    outcomes = {
        kind: experiment.measure(given, kind=kind, start="xavier normal", images=2, max_steps=1)
        for kind in ("fully connected", "convolutional")
    }
    rows = {kind: outcome.rows[0] for kind, outcome in outcomes.items()}
    assert [row["members"] for row in rows.values()] == [3, 2]
    assert ["linear_from_span" in row for row in rows.values()] == [True, False]
    names = {"initialisation", "initialisation-convolutional"}
    assert set(experiment.draw(outcomes)) == names | {f"{name}-pictures" for name in names}


@pytest.mark.parametrize(("start", "gain"), [("near zero", 0.4), ("kaiming normal", 2**0.5)])
@pytest.mark.parametrize("net", [UNet((3, 8, 8), (32, 64)), FullyConnected((3, 8, 8), 256, 3)])
def test_first_weights_of_all_layers_are_those_of_the_scheme(net: nn.Module, start: str, gain: float) -> None:
    begin(net, start)
    layers = [layer for layer in net.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    assert len(layers) in (3, 7)
    for layer in layers:
        fan_in = layer.weight[0].numel()
        assert layer.weight.std().item() == pytest.approx(gain / fan_in**0.5, rel=0.15)  # of 864 weights at least
        assert layer.bias is not None
        assert not layer.bias.any()


def test_more_images_reconstruct_others_better_and_few_come_out(tmp_path: Path) -> None:
    """Figure 11's two ends, in 4 × 4 pixels."""
    members, controls = make_photographs(60, 30, 4)
    measure = experiments.find("attractors-reconstruction").measure
    few, many = (
        measure(Given(42, tmp_path, members, controls), images=images, width=64, depth=4, max_steps=600).rows[0]
        for images in (3, 60)
    )
    assert many["of_variance"] < 0.8 < 1 < few["of_variance"]
    assert few["loss"] < 5e-4 < many["loss"]
    assert few["pi_noisy_members_1"] == 1
    assert many["pi_noisy_members_1"] == 0


@pytest.mark.skipif(not DATA, reason="MEMRECON_DATA names no folder with MNIST")
def test_one_step_on_mnist(tmp_path: Path) -> None:
    experiment = experiments.find("attractors-one-step")
    cell = {"6×256": {"width": 256, "depth": 6, "max_steps": 300}}
    experiment = dataclasses.replace(experiment, scales={"small": Scale(cell, 0.1)})
    given = {"members": f"{DATA}/mnist-1000.npy", "controls": f"{DATA}/mnist-1000-controls.npy"}
    made = reproduce(make_plan(experiment, **given), tmp_path / "out")  # type: ignore[arg-type]
    assert made.rows[0]["pi_images_100"] > 0.5
