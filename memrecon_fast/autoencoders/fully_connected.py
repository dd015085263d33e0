"""Fully connected autoencoders."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from memrecon_fast.autoencoders.architecture import Architecture
from memrecon_fast.autoencoders.layers import (
    check_activation,
    check_image_shape,
    layer_gain,
    make_activation,
    make_linear,
    seeded_generator,
)
from memrecon_fast.common.checks import check_integer

_WIDTH = 512  # of the presets; the paper gives depths, not widths


class FullyConnected(nn.Module):
    """`depth` linear layers of `width` hidden units, with an activation between them and none after the last.

    image_shape: (channels, height, width); width ≥ 1; depth ≥ 2.
    activation: "leaky_relu", "prelu" or "softplus".
    seed: of the initial weights, which depend on nothing else.

    Maps float32 (B, *image_shape) to the same; the input is left as it was. Raises ValueError or TypeError for
    arguments outside these ranges.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        width: int,
        depth: int,
        activation: str = "leaky_relu",
        *,
        seed: int = 42,
    ) -> None:
        super().__init__()
        self.image_shape = _checked(image_shape, width, depth, activation)
        self.width, self.depth, self.activation = width, depth, activation
        gain, centred, generator = layer_gain(activation, depth), activation == "softplus", seeded_generator(seed)
        layers: list[nn.Module] = []
        for inputs, outputs in _sizes(self.image_shape, width, depth):
            layers += [make_linear(inputs, outputs, gain, centred=centred, generator=generator)]
            layers += [make_activation(activation)]
        self.layers = nn.Sequential(*layers[:-1])

    def arguments(self) -> dict[str, Any]:
        """What builds this architecture again: the arguments of the class, for JSON."""
        return {
            "image_shape": list(self.image_shape),
            "width": self.width,
            "depth": self.depth,
            "activation": self.activation,
        }

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The reconstructions, (B, *image_shape)."""
        reconstructions: torch.Tensor = self.layers(images.flatten(1))
        return reconstructions.view(images.shape)

    def split_last_layer(self) -> tuple[Callable[[torch.Tensor], torch.Tensor], nn.Linear]:
        """The features (B, width) of images (B, *image_shape), as a function, and the linear layer behind them."""
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        before = self.layers[:-1]
        return lambda images: before(images.flatten(1)), last


def _checked(image_shape: Sequence[int], width: int, depth: int, activation: str) -> tuple[int, int, int]:
    """The image shape. Raises as `FullyConnected`."""
    shape = check_image_shape(image_shape)
    check_integer("width", width, low=1)
    check_integer("depth", depth, low=2)
    check_activation(activation)
    return shape


def _sizes(image_shape: Sequence[int], width: int, depth: int) -> Iterator[tuple[int, int]]:
    """Inputs and outputs of each layer."""
    size = math.prod(image_shape)
    return itertools.pairwise(itertools.chain([size], itertools.repeat(width, depth - 1), [size]))


def _shapes(
    image_shape: Sequence[int], width: int, depth: int, activation: str = "leaky_relu", *, seed: int = 42
) -> Iterator[tuple[int, ...]]:
    """See `Architecture.shapes`."""
    shape = _checked(image_shape, width, depth, activation)
    for layer, (inputs, outputs) in enumerate(_sizes(shape, width, depth)):
        if layer > 0 and activation == "prelu":
            yield (1,)
        yield (outputs, inputs)
        yield (outputs,)


def _preset(depth: int, image_shape: Sequence[int], activation: str, width: int | None, seed: int) -> FullyConnected:
    return FullyConnected(image_shape, _WIDTH if width is None else width, depth, activation, seed=seed)


ARCHITECTURE = Architecture(
    FullyConnected,
    presets={"fc-10": partial(_preset, 10), "fc-20": partial(_preset, 20)},
    shapes=_shapes,
    last_layer=FullyConnected.split_last_layer,
)
