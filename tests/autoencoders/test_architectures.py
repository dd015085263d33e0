"""A new architecture is one module and one line of `ARCHITECTURES`: here a module that is not the package's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import memrecon_fast as mf
from memrecon_fast.autoencoders import ARCHITECTURES, Architecture, FullyConnected, UNet, build, load, save, train
from memrecon_fast.autoencoders.files import describe

SHAPE = (1, 4, 4)


class Bottleneck(nn.Module):
    """A linear map to `width` numbers, and another one back."""

    def __init__(self, image_shape: Sequence[int], width: int, *, seed: int = 42) -> None:
        super().__init__()
        self.image_shape, self.width = tuple(image_shape), width
        size = math.prod(image_shape)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.encoder, self.decoder = nn.Linear(size, width), nn.Linear(width, size)

    def arguments(self) -> dict[str, Any]:
        return {"image_shape": list(self.image_shape), "width": self.width}

    def forward(self, images: Tensor) -> Tensor:
        reconstructions: Tensor = self.decoder(self.encoder(images.flatten(1)))
        return reconstructions.view(images.shape)


def preset(image_shape: Sequence[int], activation: str, width: int | None, seed: int) -> nn.Module:
    return Bottleneck(image_shape, 12 if width is None else width, seed=seed)


def last_layer(model: Bottleneck) -> tuple[Callable[[Tensor], Tensor], nn.Linear]:
    return lambda images: model.encoder(images.flatten(1)), model.decoder


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    architecture = Architecture(Bottleneck, presets={"bottleneck": preset}, last_layer=last_layer)
    monkeypatch.setitem(ARCHITECTURES, "Bottleneck", architecture)


@pytest.mark.usefixtures("registered")
def test_an_architecture_of_ones_own_is_built_trained_saved_and_loaded(tmp_path: Path) -> None:
    images = torch.rand(6, *SHAPE)
    model = build("bottleneck", SHAPE, seed=7)
    assert describe(model) == {"name": "Bottleneck", "arguments": {"image_shape": [1, 4, 4], "width": 12}}
    result = train(model, images, 1e-12, max_steps=50, checkpoints=(1.0,), checkpoint_folder=tmp_path, polish=True)
    assert result.loss < 1e-10  # six images, twelve features: the last layer fits them exactly
    save(model, tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors")
    assert isinstance(loaded, Bottleneck)
    torch.testing.assert_close(loaded(images), model(images), rtol=0, atol=0)
    assert isinstance(load(tmp_path / "loss-1e+00.safetensors"), Bottleneck)
    recovery = mf.recover(loaded, images, settings=mf.Settings(max_outer_iterations=2))
    assert recovery.images.shape == images.shape


@pytest.mark.usefixtures("registered")
def test_it_is_named_where_the_others_are() -> None:
    with pytest.raises(ValueError, match="must be one of 'fc-10', 'fc-20', 'unet', 'tied', 'bottleneck', not 'vae'"):
        build("vae", SHAPE)
    with pytest.raises(TypeError, match="FullyConnected and UNet and Tied and Bottleneck can be saved, not Linear"):
        describe(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="last layer of a FullyConnected or a Bottleneck, which UNet is not"):
        train(UNet(SHAPE, (2, 2)), torch.rand(2, *SHAPE), 1e-9, polish=True)


def test_a_file_of_an_architecture_that_is_not_registered_is_refused(
    registered: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(build("bottleneck", SHAPE), tmp_path / "model.safetensors")
    monkeypatch.delitem(ARCHITECTURES, "Bottleneck")
    with pytest.raises(ValueError, match="cannot be built by this version"):
        load(tmp_path / "model.safetensors")


def test_what_is_derived_from_an_architecture_is_another_one() -> None:
    class Derived(FullyConnected):
        pass

    with pytest.raises(TypeError, match="not Derived"):
        describe(Derived(SHAPE, 4, 2))
