from __future__ import annotations

import copy
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from memrecon_fast.autoencoders import FullyConnected, UNet, evaluate, load, recipes, train
from memrecon_fast.autoencoders import training as training_module
from memrecon_fast.autoencoders.layers import ACTIVATIONS
from memrecon_fast.autoencoders.tensors import read_tensors, write_tensors
from memrecon_fast.autoencoders.training_state import FILE_NAME
from tests.helpers.memorised import Memorised

SHAPE = (3, 8, 8)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # bit-exactness is promised for one thread
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def images(memorised: Memorised) -> Tensor:
    return memorised.members


def _model(seed: int = 42) -> FullyConnected:
    return FullyConnected(SHAPE, 64, 4, seed=seed)


def _same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("depth", [4, 10])
def test_every_fully_connected_net_gets_far_below_the_mean_image(images: Tensor, activation: str, depth: int) -> None:
    mean_image = (images - images.mean(0)).square().mean().item()
    assert train(FullyConnected(SHAPE, 128, depth, activation), images, 1e-9, max_steps=400).loss < 0.2 * mean_image


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_unet_gets_far_below_the_mean_image(images: Tensor, activation: str) -> None:
    mean_image = (images - images.mean(0)).square().mean().item()
    model = UNet(SHAPE, (16, 32, 64), activation)
    assert train(model, images, 1e-9, max_steps=300, learning_rate=3e-3).loss < 0.5 * mean_image


def test_stops_at_the_target_and_reports_the_loss_in_eval_mode(images: Tensor) -> None:
    model = _model()
    result = train(model, images, 1e-2, max_steps=2000)
    assert result.reached_target
    assert result.steps < 2000
    assert not model.training
    with torch.inference_mode():
        assert result.loss == pytest.approx((model(images) - images).double().square().mean().item(), rel=1e-5)
    assert 5e-3 < result.loss <= 1e-2


def test_makes_no_more_steps_than_it_may(images: Tensor) -> None:
    model = FullyConnected(images.shape[1:], 32, 3)
    result = train(model, images, 1e-12, batch_size=1, max_steps=len(images) + 1)
    assert result.steps == len(images) + 1
    assert result.loss == evaluate(model, images)


def test_says_when_the_target_was_not_reached(images: Tensor) -> None:
    result = train(_model(), images, 1e-12, max_steps=3)
    assert (result.reached_target, result.steps) == (False, 3)


def test_a_target_already_reached_takes_no_step(images: Tensor) -> None:
    model = _model()
    assert train(model, images, 10.0).steps == 0
    assert _same(model, _model())


@pytest.mark.parametrize("batch_size", [None, 5])
def test_is_deterministic_and_leaves_the_global_random_state_alone(images: Tensor, batch_size: int | None) -> None:
    models = [_model(), _model()]
    state = torch.get_rng_state()
    for model in models:
        train(model, images, 1e-9, max_steps=20, batch_size=batch_size)
    assert torch.equal(torch.get_rng_state(), state)
    assert _same(*models)


def test_the_seed_decides_the_batches(images: Tensor) -> None:
    models = [_model(), _model()]
    for seed, model in enumerate(models):
        train(model, images, 1e-9, max_steps=20, batch_size=5, seed=seed)
    assert not _same(*models)


def test_evaluates_more_images_than_fit_a_batch(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluate(_model(), images)
    monkeypatch.setattr(training_module, "_EVALUATION_BATCH", 5)
    assert evaluate(_model(), images) == pytest.approx(whole, rel=1e-6)


def test_saves_the_model_at_each_level_it_crosses(images: Tensor, tmp_path: Path) -> None:
    levels = (5e-2, 2.5e-2, 2e-2, 1e-12)
    result = train(_model(), images, 1e-2, max_steps=1000, checkpoints=levels, checkpoint_folder=tmp_path)
    assert {level: path.name if path else None for level, path in result.checkpoints.items()} == {
        5e-2: "loss-5e-02.safetensors",
        2.5e-2: "loss-2.5e-02.safetensors",
        2e-2: "loss-2e-02.safetensors",
    }
    for level, path in result.checkpoints.items():
        assert path is not None
        model = load(path)
        assert isinstance(model, nn.Module)
        assert 0.5 * level < evaluate(model, images) <= level


def test_levels_are_reported_without_a_folder(images: Tensor) -> None:
    assert train(_model(), images, 1e-2, max_steps=500, checkpoints=(2e-2,)).checkpoints == {2e-2: None}


class Interruption(Exception):
    """Stands for Ctrl-C."""


@pytest.mark.parametrize("batch_size", [None, 5])
@pytest.mark.parametrize("architecture", ["fc", "unet", "unet by adam"])
def test_resume_continues_bit_for_bit(
    images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int | None, architecture: str
) -> None:
    def build() -> nn.Module:
        return _model() if architecture == "fc" else UNet(SHAPE, (4, 6), "prelu")

    arguments: dict[str, Any] = {"max_steps": 60, "batch_size": batch_size, "save_every": 10, "checkpoints": (7e-2,)}
    if architecture == "unet by adam":
        arguments["optimizer"] = "adam"
    straight = build()
    expected = train(straight, images, 1e-9, **arguments)

    taken = 0
    step = training_module._step

    def interrupted(*parts: Any) -> float:
        nonlocal taken
        taken += 1
        if taken == 37:
            raise Interruption
        return step(*parts)

    monkeypatch.setattr(training_module, "_step", interrupted)
    with pytest.raises(Interruption):
        train(build(), images, 1e-9, checkpoint_folder=tmp_path, **arguments)
    monkeypatch.undo()
    before = {path.name: path.read_bytes() for path in tmp_path.glob("loss-*")}

    resumed = build()
    result = train(resumed, images, 1e-9, checkpoint_folder=tmp_path, resume=True, **arguments)
    assert _same(resumed, straight)
    assert (result.loss, result.steps) == (expected.loss, expected.steps)
    assert set(result.checkpoints) == set(expected.checkpoints)
    assert all((tmp_path / name).read_bytes() == content for name, content in before.items())


def test_resume_of_a_finished_training_changes_nothing(images: Tensor, tmp_path: Path) -> None:
    first = train(_model(), images, 1e-9, max_steps=20, checkpoint_folder=tmp_path)
    again = train(_model(), images, 1e-9, max_steps=20, checkpoint_folder=tmp_path, resume=True)
    assert dataclasses.replace(again, seconds=0) == dataclasses.replace(first, seconds=0)


def test_resume_needs_a_state(images: Tensor, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no training to resume"):
        train(_model(), images, 1e-9, checkpoint_folder=tmp_path, resume=True)
    with pytest.raises(ValueError, match="resume needs the checkpoint_folder"):
        train(_model(), images, 1e-9, resume=True)


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"max_steps": 30}, "max_steps"),
        ({"optimizer": "soap"}, "optimizer"),
        ({"learning_rate": 1e-2}, "learning_rate"),
        ({"batch_size": 3}, "batch_size"),
        ({"seed": 1}, "seed"),
        ({"images": torch.zeros(16, *SHAPE)}, "images"),
        ({"model": FullyConnected(SHAPE, 65, 4)}, "architecture"),
    ],
)
def test_resume_refuses_the_state_of_another_training(
    images: Tensor, tmp_path: Path, changed: dict[str, Any], name: str
) -> None:
    arguments: dict[str, Any] = {"model": _model(), "images": images, "target_loss": 1e-9, "max_steps": 5}
    train(**arguments, checkpoint_folder=tmp_path)
    with pytest.raises(ValueError, match=f"belongs to another training: its {name} is"):
        train(**(arguments | changed), checkpoint_folder=tmp_path, resume=True)


def test_resume_refuses_the_state_of_another_recipe(
    images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(_model(), images, 1e-9, max_steps=5, checkpoint_folder=tmp_path)
    other = dataclasses.replace(recipes.RECIPES["adam"], edges=True)
    monkeypatch.setitem(recipes.RECIPES, "adam", other)
    with pytest.raises(ValueError, match="belongs to another training: its recipe is"):
        train(_model(), images, 1e-9, max_steps=5, checkpoint_folder=tmp_path, resume=True)


def test_resume_refuses_another_file(images: Tensor, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no state")
    with pytest.raises(ValueError, match="cannot be read as a safetensors file"):
        train(_model(), images, 1e-9, checkpoint_folder=tmp_path, resume=True)


def test_resume_says_that_a_state_is_of_an_earlier_version(images: Tensor, tmp_path: Path) -> None:
    train(_model(), images, 1e-9, max_steps=5, checkpoint_folder=tmp_path)
    tensors, metadata = read_tensors(tmp_path / FILE_NAME)
    content = json.loads(metadata["memrecon_fast.training"])
    del content["optimizer"]
    write_tensors(tmp_path / FILE_NAME, tensors, {"memrecon_fast.training": json.dumps(content)})
    with pytest.raises(ValueError, match="was written by an earlier version"):
        train(_model(), images, 1e-9, max_steps=5, checkpoint_folder=tmp_path, resume=True)


def test_soap_takes_a_unet_further_than_adam(images: Tensor) -> None:
    def loss(**how: Any) -> float:
        return train(UNet(SHAPE, (16, 32), "prelu"), images[:4], 1e-9, max_steps=300, **how).loss

    # 0.06 to 0.12 times as much, by the processor's instructions
    assert loss() < 0.25 * loss(optimizer="adam", learning_rate=3e-3)


def test_the_model_is_the_average_of_the_weights_and_has_their_buffers(images: Tensor) -> None:
    """After one step from w₀ to w₁: 0.98 w₀ + 0.02 w₁; SOAP's first step does not move the weights yet."""
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3))
    before = copy.deepcopy(model)
    seen: list[nn.Module] = []
    step = training_module._step

    def watched(weights: nn.Module, *parts: Any) -> float:
        loss = step(weights, *parts)
        seen.append(copy.deepcopy(weights))
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_module, "_step", watched)
        train(model, images, 1e-9, optimizer="soap", max_steps=2)
    assert len(seen) == 2
    expected = before
    for weights in seen:
        for mean, moved in zip(expected.parameters(), weights.parameters(), strict=True):
            mean.data.lerp_(moved.data, 0.02)
    for one, mean in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, mean, rtol=1e-6, atol=1e-7)
    for buffer, newest in zip(model.buffers(), seen[-1].buffers(), strict=True):
        assert torch.equal(buffer, newest)
    assert not _same(seen[0], seen[1])


def test_without_its_library_soap_says_what_to_install(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(ImportError, match=r"needs pytorch-optimizer: pip install .* or take the optimizer 'adam'"):
        train(UNet(SHAPE, (4, 6)), images, 1e-9)
    assert train(UNet(SHAPE, (4, 6)), images, 1e-9, optimizer="adam", max_steps=2).steps == 2


@pytest.mark.parametrize("name", recipes.RECIPES)
@pytest.mark.parametrize("steps", [1, 2, 3, 50, 1000])
def test_learning_rates_rise_and_fall_within_their_peak(name: str, steps: int) -> None:
    rates = [recipes.RECIPES[name].schedule(step, steps) for step in range(steps)]
    peak = rates.index(max(rates))
    assert max(rates) == 1
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert min(rates) >= 0
    assert steps < 50 or rates[-1] < 0.03


def test_polish_drops_the_loss_and_keeps_the_steps(images: Tensor) -> None:
    plain, polished = _model(), _model()
    before = train(plain, images, 1e-9, max_steps=200)
    after = train(polished, images, 1e-9, max_steps=200, polish=True)
    assert before.loss > 1e-6
    assert after.loss < 1e-11
    assert after.reached_target
    assert after.steps == before.steps
    assert 1e-8 in after.checkpoints


def test_polish_with_more_images_than_hidden_units_does_not_raise_the_loss(images: Tensor) -> None:
    plain, polished = FullyConnected(SHAPE, 6, 3), FullyConnected(SHAPE, 6, 3)
    before = train(plain, images, 1e-9, max_steps=100)
    assert train(polished, images, 1e-9, max_steps=100, polish=True).loss <= before.loss


def test_polish_is_for_fully_connected_nets(images: Tensor) -> None:
    with pytest.raises(TypeError, match="polish solves the last layer of a FullyConnected, which UNet is not"):
        train(UNet(SHAPE, (4, 4)), images, 1e-9, polish=True)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.rand(2, *SHAPE, dtype=torch.float64), TypeError, "float32 tensor, not torch.float64"),
        ([1.0], TypeError, "float32 tensor, not list"),
        (torch.rand(2, 3, 8, 9), ValueError, r"shape \(B, 3, 8, 8\), not \(2, 3, 8, 9\)"),
        (torch.rand(0, *SHAPE), ValueError, r"not \(0, 3, 8, 8\)"),
        (torch.full((2, *SHAPE), 1.5), ValueError, r"in \[0, 1\]; they span 1.5"),
        (torch.full((2, *SHAPE), torch.nan), ValueError, r"finite and in \[0, 1\]"),
    ],
)
def test_refuses_images_that_are_none(images: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        train(_model(), images, 1e-9)


@pytest.mark.parametrize(
    "arguments",
    [
        {"target_loss": 0.0},
        {"max_steps": 0},
        {"batch_size": 0},
        {"learning_rate": -1.0},
        {"seed": -1},
        {"checkpoints": (1e-3, 0.0)},
        {"save_every": 0},
    ],
)
def test_refuses_arguments_out_of_range(images: Tensor, arguments: dict[str, Any]) -> None:
    name = next(iter(arguments)).removesuffix("s")
    with pytest.raises(ValueError, match=name):
        train(_model(), images, **({"target_loss": 1e-9} | arguments))


def test_the_progress_bar_shows_the_loss(images: Tensor, capsys: pytest.CaptureFixture[str]) -> None:
    train(_model(), images, 1e-9, max_steps=3, progress=True)
    assert "3/3 loss" in capsys.readouterr().out


def test_with_edges_fine_detail_counts_for_more_and_nothing_else_does() -> None:
    soap, adam = recipes.RECIPES["soap"], recipes.RECIPES["adam"]
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    fine = (1 - 2 * ((rows + columns) % 2)).float().expand(2, 3, 8, 8)
    padded = torch.nn.functional.pad(fine.double(), (1, 1, 1, 1))
    neighbours = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1] + padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
    expected = 1 + (4 * fine.double() - neighbours).square().mean()
    assert soap.objective(fine).item() == pytest.approx(expected.item(), rel=1e-6)
    assert adam.objective(fine).item() == 1
    assert soap.objective(torch.ones(2, 3, 8, 8)) < 0.1 * expected  # of the same size, without detail
    assert soap.objective(torch.ones(2, 5)).item() == 1  # no images: there is no detail
