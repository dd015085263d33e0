"""U-Nets, with and without skip connections."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from memrecon_fast.autoencoders.architecture import Architecture
from memrecon_fast.autoencoders.layers import (
    check_activation,
    check_image_shape,
    layer_gain,
    make_activation,
    make_convolution,
    seeded_generator,
)
from memrecon_fast.common.checks import check_choice, check_integer

SKIPS = ("none", "lower", "all")
# Of the preset: channels at full resolution; and so many levels, where the image can be halved so often without a side
# of less than 4. With 24 channels at full resolution the fine detail of 32×32 pixels stays behind (a loss of 2e-6 where
# 48 came to 5e-8), and with a lowest level that does not see the whole image, training images are no attractors.
_WIDTH, _LEVELS, _LEAST_SIDE = 48, 4, 4


class UNet(nn.Module):
    """A U-Net of 3×3 convolutions (stride and padding 1), an activation after every one, the last included.

    Each level is two convolutions; 2×2 max-pooling leads down, nearest-neighbour upsampling up.

    image_shape: (channels, height, width), both sides divisible by 2^(levels - 1).
    widths: channels of each level, from full resolution down; at least 2 levels.
    activation: "leaky_relu", "prelu" or "softplus".
    skips: "all" joins encoder and decoder at every level, as in Ronneberger et al.; "lower" at all but full
        resolution; "none" nowhere. With full-resolution skips the net learns the identity, for which every image is
        a fixed point and no training image is an attractor; without skips training images are.
    seed: of the initial weights, which depend on nothing else.

    Maps float32 (B, *image_shape) to the same, contiguous; the input is left as it was. Raises ValueError or
    TypeError for arguments outside these ranges.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        widths: Sequence[int],
        activation: str = "leaky_relu",
        skips: str = "none",
        *,
        seed: int = 42,
    ) -> None:
        super().__init__()
        self.image_shape, self.widths = _checked(image_shape, widths, activation, skips)
        self.activation, self.skips = activation, skips
        in_a_row = 4 * len(self.widths) - 1  # convolutions from the input to the output by way of the lowest level
        gain, centred, generator = layer_gain(activation, in_a_row), activation == "softplus", seeded_generator(seed)

        def convolutions(*sizes: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for inputs, outputs in itertools.pairwise(sizes):
                layers += [make_convolution(inputs, outputs, gain, centred=centred, generator=generator)]
                layers += [make_activation(activation)]
            return nn.Sequential(*layers)

        down, up, last = _channels(self.image_shape[0], self.widths, skips)
        self.down = nn.ModuleList(convolutions(*sizes) for sizes in down)
        self.up = nn.ModuleList(convolutions(*sizes) for sizes in up)
        self.last = convolutions(*last)
        # Convolutions of this size are about 1.4 times faster on CPUs with the channels innermost.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def arguments(self) -> dict[str, Any]:
        """What builds this architecture again: the arguments of the class, for JSON."""
        return {
            "image_shape": list(self.image_shape),
            "widths": list(self.widths),
            "activation": self.activation,
            "skips": self.skips,
        }

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The reconstructions, (B, *image_shape); channels-last where the images are, else contiguous."""
        features = images.contiguous(memory_format=torch.channels_last)
        encoded: list[torch.Tensor] = []
        for level, block in enumerate(self.down):
            features = block(features if level == 0 else functional.max_pool2d(features, 2))
            encoded.append(features)
        for level in reversed(range(len(self.up))):
            features = functional.interpolate(features, scale_factor=2.0, mode="nearest")
            if _joins(self.skips, level):
                features = torch.cat([features, encoded[level]], 1)
            features = self.up[level](features)
        reconstructions: torch.Tensor = self.last(features)
        channels_last = images.is_contiguous(memory_format=torch.channels_last)
        return reconstructions if channels_last else reconstructions.contiguous()


def _checked(
    image_shape: Sequence[int], widths: Sequence[int], activation: str, skips: str
) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """The image shape and the widths. Raises as `UNet`."""
    shape, checked = check_image_shape(image_shape), tuple(widths)
    if len(checked) < 2:
        raise ValueError(f"widths must give at least 2 levels, not {checked}")
    for width in checked:
        check_integer("each entry of widths", width, low=1)
    factor = 2 ** (len(checked) - 1)
    if any(side % factor for side in shape[1:]):
        raise ValueError(
            f"a U-Net of {len(checked)} levels halves the image {len(checked) - 1} times: both sides must be divisible "
            f"by {factor}, not {shape[1]}×{shape[2]}"
        )
    check_activation(activation)
    check_choice("skips", skips, SKIPS)
    return shape, checked


def _joins(skips: str, level: int) -> bool:
    return skips == "all" or (skips == "lower" and level > 0)


def _channels(
    channels: int, widths: Sequence[int], skips: str
) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]], tuple[int, int]]:
    """Of each block of convolutions the channels before, between and after them: on the way down, up, and the last."""
    down = [(above, width, width) for above, width in itertools.pairwise([channels, *widths])]
    up = [
        (below + (width if _joins(skips, level) else 0), width, width)
        for level, (width, below) in enumerate(itertools.pairwise(widths))
    ]
    return down, up, (widths[0], channels)


def _shapes(
    image_shape: Sequence[int],
    widths: Sequence[int],
    activation: str = "leaky_relu",
    skips: str = "none",
    *,
    seed: int = 42,
) -> Iterator[tuple[int, ...]]:
    """See `Architecture.shapes`."""
    shape, checked = _checked(image_shape, widths, activation, skips)
    down, up, last = _channels(shape[0], checked, skips)
    for sizes in (*down, *up, last):
        for inputs, outputs in itertools.pairwise(sizes):
            yield (outputs, inputs, 3, 3)
            yield (outputs,)
            if activation == "prelu":
                yield (1,)


def _preset(image_shape: Sequence[int], activation: str, width: int | None, seed: int) -> UNet:
    """Four levels, or as many as leave sides of 4 and more, each with twice the channels of the one above; without skip
    connections, because from one with skip connections at full resolution no training image could be recovered."""
    _, *sides = check_image_shape(image_shape)
    levels = _LEVELS
    while levels > 2 and any(side % 2 ** (levels - 1) or side < _LEAST_SIDE * 2 ** (levels - 1) for side in sides):
        levels -= 1
    widths = [(width or _WIDTH) * 2**level for level in range(levels)]
    return UNet(image_shape, widths, activation, skips="none", seed=seed)


ARCHITECTURE = Architecture(UNet, presets={"unet": _preset}, shapes=_shapes, optimizer="soap", activation="prelu")
