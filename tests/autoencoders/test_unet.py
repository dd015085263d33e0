from __future__ import annotations

import pytest
import torch

from memrecon_fast.autoencoders import UNet
from memrecon_fast.autoencoders.layers import ACTIVATIONS
from memrecon_fast.autoencoders.unet import SKIPS


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("skips", SKIPS)
def test_keeps_the_shape_and_leaves_the_input_alone(activation: str, skips: str) -> None:
    images = torch.rand(3, 2, 8, 12)
    before = images.clone()
    with torch.inference_mode():
        output = UNet((2, 8, 12), (4, 5, 6), activation, skips).eval()(images)
    assert output.shape == images.shape
    assert output.is_contiguous()
    assert torch.equal(images, before)


def test_skips_join_the_levels_they_name() -> None:
    inputs = {
        skips: [block.state_dict()["0.weight"].shape[1] for block in UNet((1, 8, 8), (4, 5, 6), skips=skips).up]
        for skips in SKIPS
    }
    assert inputs == {"none": [5, 6], "lower": [5, 6 + 5], "all": [5 + 4, 6 + 5]}


def test_says_which_sides_it_needs() -> None:
    with pytest.raises(ValueError, match="both sides must be divisible by 4, not 8×10"):
        UNet((3, 8, 10), (4, 4, 4))


@pytest.mark.parametrize(
    ("widths", "activation", "skips", "message"),
    [
        ((4,), "prelu", "all", "at least 2 levels"),
        ((4, 0), "prelu", "all", "each entry of widths"),
        ((4, 4), "tanh", "all", "activation must be one of"),
        ((4, 4), "prelu", "some", "skips must be one of 'none', 'lower', 'all'"),
    ],
)
def test_refuses_arguments_out_of_range(widths: tuple[int, ...], activation: str, skips: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNet((3, 8, 8), widths, activation, skips)
