from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from memrecon_fast.autoencoders import PRESETS, FullyConnected, UNet, build


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("activation", ["leaky_relu", "softplus"])
def test_every_preset_builds(name: str, activation: str) -> None:
    model = build(name, (3, 8, 8), activation=activation, width=4)
    assert model.activation == activation
    assert model(torch.rand(2, 3, 8, 8)).shape == (2, 3, 8, 8)


def test_presets_are_what_they_are_called() -> None:
    ten, twenty, unet = (build(name, (3, 8, 8), width=4) for name in ("fc-10", "fc-20", "unet"))
    assert isinstance(ten, FullyConnected)
    assert isinstance(twenty, FullyConnected)
    assert isinstance(unet, UNet)
    assert (ten.depth, twenty.depth, unet.skips) == (10, 20, "none")


def test_unknown_presets_are_named() -> None:
    with pytest.raises(ValueError, match="architecture must be one of 'fc-10', 'fc-20', 'unet', not 'vae'"):
        build("vae", (3, 8, 8))


def test_importing_takes_torch_and_numpy_only() -> None:
    code = "import sys, memrecon_fast.autoencoders; print({'safetensors', 'rich', 'skimage'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
