"""What the architectures share: activations, initialisations, the checks of their arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.utils import skip_init

from memrecon_fast.common.checks import check_choice, check_integer

ACTIVATIONS = ("leaky_relu", "prelu", "softplus")

# The standard deviation of the weights, times √(fan in), that keeps the size of the signal from layer to layer:
# √(2 / (1 + slope²)) for LeakyReLU and PReLU (He et al.), 1 / std(softplus(z)) with z ~ N(0, 1) for Softplus.
_CRITICAL_GAIN = {"leaky_relu": math.sqrt(2), "prelu": math.sqrt(2 / (1 + 0.25**2)), "softplus": 1.92}
# The gain of a whole net at the start, whatever its depth. Nets of ten layers that start at 1 train as far, but fewer
# images are recovered from them; twenty under torch's own (1e-8) stay above 1e-3.
# Measured in benchmarks/results/training.md.
_NETWORK_GAIN = 0.004


def layer_gain(activation: str, depth: int) -> float:
    """Standard deviation of the weights times √(fan in), for each of `depth` layers in a row."""
    return _CRITICAL_GAIN[activation] * float(_NETWORK_GAIN ** (1 / depth))


def make_activation(name: str) -> nn.Module:
    """A new activation: LeakyReLU (slope 0.01, in place), PReLU (one slope per layer, 0.25 at first) or Softplus."""
    if name == "leaky_relu":
        return nn.LeakyReLU(inplace=True)
    return nn.PReLU() if name == "prelu" else nn.Softplus()


def make_linear(inputs: int, outputs: int, gain: float, *, centred: bool, generator: torch.Generator) -> nn.Linear:
    """A linear layer, initialised by `generator`; see `initialise`."""
    layer: nn.Linear = skip_init(nn.Linear, inputs, outputs)
    initialise(layer, gain, centred=centred, generator=generator)
    return layer


def make_convolution(inputs: int, outputs: int, gain: float, *, centred: bool, generator: torch.Generator) -> nn.Conv2d:
    """A 3×3 convolution with stride and padding 1, initialised by `generator`; see `initialise`."""
    layer: nn.Conv2d = skip_init(nn.Conv2d, inputs, outputs, 3, padding=1)
    initialise(layer, gain, centred=centred, generator=generator)
    return layer


@torch.no_grad()
def initialise(layer: nn.Module, gain: float, *, centred: bool, generator: torch.Generator) -> None:
    """Uniform weights of standard deviation gain / √(fan in).

    centred: each unit's weights sum to zero. Softplus adds log 2 and more to everything, and the common offset swamps
        what differs between images: ten layers reached 4e-6 under torch's own initialisation and 1e-9 under this one
        (benchmarks/results/training.md). Centred weights are blind to the offset.
    """
    weight, bias = layer.parameters()
    fan_in = weight[0].numel()
    bound = gain * math.sqrt(3 / fan_in)
    weight.uniform_(-bound, bound, generator=generator)
    if centred:
        weight.sub_(weight.flatten(1).mean(1).view(-1, *[1] * (weight.ndim - 1)))
        bias.zero_()
    else:
        bias.uniform_(-1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), generator=generator)


def seeded_generator(seed: int) -> torch.Generator:
    """A generator of its own for the weights: building a model leaves torch's global random state alone."""
    check_integer("seed", seed, low=0, high=2**63 - 1)
    return torch.Generator().manual_seed(seed)


def check_activation(activation: str) -> None:
    """Raise ValueError unless `activation` is one of `ACTIVATIONS`."""
    check_choice("activation", activation, ACTIVATIONS)


def check_image_shape(image_shape: Sequence[int]) -> tuple[int, int, int]:
    """The image shape as a tuple (channels, height, width). Raises ValueError or TypeError for any other."""
    shape = tuple(image_shape)
    if len(shape) != 3:
        raise ValueError(f"image_shape must be (channels, height, width), not {shape}")
    for size in shape:
        check_integer("each entry of image_shape", size, low=1)
    return shape
