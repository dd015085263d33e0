from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from memrecon_fast.autoencoders import PRESETS, FullyConnected, Tied, UNet, build


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("activation", ["leaky_relu", "softplus"])
def test_every_preset_builds(name: str, activation: str) -> None:
    model = build(name, (3, 8, 8), activation=activation, width=4)
    assert model.activation == activation
    assert model(torch.rand(2, 3, 8, 8)).shape == (2, 3, 8, 8)


def test_presets_are_what_they_are_called() -> None:
    ten, twenty, unet, tied = (build(name, (3, 8, 8), width=4) for name in ("fc-10", "fc-20", "unet", "tied"))
    assert isinstance(ten, FullyConnected)
    assert isinstance(twenty, FullyConnected)
    assert isinstance(unet, UNet)
    assert isinstance(tied, Tied)
    assert (ten.depth, twenty.depth, unet.skips) == (10, 20, "none")


@pytest.mark.parametrize(
    ("side", "widths"), [(8, (4, 8)), (16, (4, 8, 16)), (32, (4, 8, 16, 32)), (28, (4, 8, 16)), (30, (4, 8))]
)
def test_a_unet_has_as_many_levels_as_the_image_can_be_halved(side: int, widths: tuple[int, ...]) -> None:
    unet = build("unet", (1, side, 32), width=4)
    assert isinstance(unet, UNet)
    assert unet.widths == widths
    assert unet(torch.rand(1, 1, side, 32)).shape == (1, 1, side, 32)


@pytest.mark.parametrize(
    ("shape", "widths"),
    [
        ((3, 16, 16), (48, 96, 192)),
        ((1, 28, 28), (48, 96, 192)),
        ((3, 32, 32), (48, 96, 192, 384)),
        ((3, 8, 8), (48, 96)),
    ],
)
def test_a_unet_of_its_own_width_doubles_it_from_level_to_level(
    shape: tuple[int, int, int], widths: tuple[int, ...]
) -> None:
    unet = build("unet", shape)
    assert isinstance(unet, UNet)
    assert unet.widths == widths


def test_a_unet_says_that_sides_must_be_even() -> None:
    with pytest.raises(ValueError, match="both sides must be divisible by 2, not 8×9"):
        build("unet", (3, 8, 9))


def test_unknown_presets_are_named() -> None:
    with pytest.raises(ValueError, match="architecture must be one of 'fc-10', 'fc-20', 'unet', 'tied', not 'vae'"):
        build("vae", (3, 8, 8))


def test_importing_takes_torch_and_numpy_only() -> None:
    code = "import sys, memrecon_fast.autoencoders; print({'safetensors', 'rich', 'skimage'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_a_unet_has_prelu_where_no_activation_is_given() -> None:
    assert build("unet", (3, 8, 8), width=4).activation == "prelu"
    assert build("fc-10", (3, 8, 8), width=4).activation == "leaky_relu"
