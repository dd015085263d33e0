from __future__ import annotations

import pytest
import torch

from memrecon_fast.autoencoders import FullyConnected
from memrecon_fast.autoencoders.layers import ACTIVATIONS


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("batch", [0, 1, 5])
def test_keeps_the_shape_and_leaves_the_input_alone(activation: str, batch: int) -> None:
    images = torch.rand(batch, 3, 5, 7)
    before = images.clone()
    with torch.inference_mode():
        output = FullyConnected((3, 5, 7), 11, 4, activation).eval()(images)
    assert output.shape == images.shape
    assert output.is_contiguous()
    assert torch.equal(images, before)


def test_depth_counts_the_linear_layers_and_the_last_is_linear() -> None:
    model = FullyConnected((1, 2, 2), 3, 5)
    linear = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    assert [layer.out_features for layer in linear] == [3, 3, 3, 3, 4]
    assert model.layers[-1] is linear[-1]


def test_weights_depend_on_the_seed_alone() -> None:
    state = torch.get_rng_state()
    first = FullyConnected((1, 4, 4), 8, 3, seed=7).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert all(torch.equal(a, b) for a, b in zip(first.values(), _weights(7), strict=True))
    assert not torch.equal(first["layers.0.weight"], _weights(8)[0])


def _weights(seed: int) -> list[torch.Tensor]:
    return list(FullyConnected((1, 4, 4), 8, 3, seed=seed).state_dict().values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((4, 4), 8, 3, "prelu"), "image_shape must be"),
        (((1, 4, 0), 8, 3, "prelu"), "each entry of image_shape"),
        (((1, 4, 4), 0, 3, "prelu"), "width"),
        (((1, 4, 4), 8, 1, "prelu"), "depth"),
        (((1, 4, 4), 8, 3, "relu"), "activation must be one of 'leaky_relu', 'prelu', 'softplus'"),
    ],
)
def test_refuses_arguments_out_of_range(arguments: tuple[tuple[int, ...], int, int, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FullyConnected(*arguments)
