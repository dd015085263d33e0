"""Appendix G, Figures 7 and 8: convolutions that downsample memorise with few layers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import nn

from memrecon_fast.attractors import singular_values, spectra
from memrecon_fast.experiments.attractors.nets import fit, from_span
from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Pictures, Scale
from memrecon_fast.experiments.figures import new_figure, show_tiles

_SHOWN = 4
_LEAST = 4
"""Pixels a side, of the less extreme downsampling."""


def strided_net(image_shape: tuple[int, int, int], least: int, channels: int, between: int) -> nn.Sequential:
    """Linear: 3 × 3 convolutions of stride 2 down to least × least pixels, `between` of stride 1 there, and as many
    nearest-neighbour upsamplings, each with a convolution, as there were strides. No biases; PyTorch's first weights.

    Raises ValueError as `_halvings`.
    """
    colours = image_shape[0]
    halvings = _halvings(image_shape, least)
    layers: list[nn.Module] = [
        nn.Conv2d(channels if number else colours, channels, 3, stride=2, padding=1, bias=False)
        for number in range(halvings)
    ]
    inner = channels if halvings else colours
    widths = [inner, *[channels] * (between - 1), inner] if between else [inner]
    layers += [nn.Conv2d(one, other, 3, padding=1, bias=False) for one, other in itertools.pairwise(widths)]
    for number in reversed(range(halvings)):
        layers += [
            nn.Upsample(scale_factor=2),
            nn.Conv2d(channels, channels if number else colours, 3, padding=1, bias=False),
        ]
    return nn.Sequential(*layers)


def _halvings(image_shape: Sequence[int], least: int) -> int:
    """How often the sides are halved until they are `least`. Raises ValueError for images that are not square, or of
    other sides than `least` times a power of two."""
    _, height, width = image_shape
    halvings = round(math.log2(height / least)) if height >= least else -1
    if height != width or halvings < 0 or least * 2**halvings != height:
        raise ValueError(f"images must be square, of {least} times a power of two pixels a side, not {height}×{width}")
    return halvings


def _check_shape(image_shape: Sequence[int], cells: Mapping[str, Mapping[str, Any]]) -> None:
    _halvings(image_shape, _LEAST)


def _measure(
    given: Given, least: int, images: int, channels: int, between: int = 0, max_steps: int = 2000, rate: float = 1e-3
) -> Outcome:
    members, controls = given.images()
    chosen = members[:images]
    size = (chosen.shape[1], chosen.shape[2], chosen.shape[3])
    side = least or size[1]
    net = strided_net(size, side, channels, between)
    loss, steps = fit(net, chosen, rate, max_steps, 1e-8)
    net.eval()
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    found, gains = (what(net, chosen[:1], k=images + 2) for what in (spectra, singular_values))
    outputs = net(controls)
    row = {
        "smallest": f"{side}×{side}",
        "convolutions": sum(isinstance(layer, nn.Conv2d) for layer in net),
        "channels": channels,
        "images": images,
        "loss": loss,
        "steps": steps,
        "spectrum": ", ".join(f"{value.real:.3g}" for value in found.values[0].tolist()),
        "next_modulus": found.values[0, images].abs().item(),
        "next_singular_value": gains.values[0, images].item() / gains.values[0, 0].item(),
        "from_span": from_span(chosen, outputs).median().item(),
    }
    shown = torch.stack([controls[:_SHOWN], outputs[:_SHOWN]])
    return Outcome(
        [row],
        {"pictures": shown.numpy(), "members": torch.cat([chosen, torch.ones_like(members)])[None, :_SHOWN].numpy()},
    )


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    figure = new_figure(3 * len(outcomes), 3.2)
    panels = figure.subplots(2, len(outcomes), height_ratios=(1, 2), squeeze=False)
    for number, outcome in enumerate(outcomes.values()):
        row = outcome.rows[0]
        show_tiles(panels[0, number], outcome.arrays["members"], ["trained on"] if number == 0 else [])
        show_tiles(panels[1, number], outcome.arrays["pictures"], ["unseen", "becomes"] if number == 0 else [])
        panels[0, number].set_title(
            f"{row['convolutions']} convolutions,\ndown to {row['smallest']}, loss {row['loss']:.0e}\n"
            f"next |λ| {row['next_modulus']:.2g}; {row['from_span']:.1%} outside",
            fontsize=9.5,
        )
    return {"strided": figure}


EXPERIMENT = Experiment(
    name="attractors-strided",
    what="linear convolutional nets that downsample memorise: the rank is the number of images; others do not",
    reproduces="Appendix G, Figures 7 and 8",
    differs=(
        "Channels and layers of the figures are lost in the text that we have; Adam without ε, a rate that falls from "
        "1e-3 to 0.",
        "Photographs of 8×8 in colour unless others are given (the figures: CIFAR-10, 32×32).",
        "The rank is judged by the next eigenvalue and the next singular value relative to the largest, by Arnoldi and "
        "Golub-Kahan; 'outside' is the share of the output of unseen images that is not in the span of the "
        "training images (the paper: eigenvectors are combinations of them).",
    ),
    scales={
        "small": Scale(
            {
                "down to 1×1, 2 images": {"least": 1, "images": 2, "channels": 64},
                "down to 1×1, 4 images": {"least": 1, "images": 4, "channels": 64},
                "down to 4×4 and deep, 1 image": {"least": _LEAST, "images": 1, "channels": 16, "between": 27},
                "no downsampling, 2 images": {"least": 0, "images": 2, "channels": 16, "between": 2, "max_steps": 800},
            },
            minutes=1,
        )
    },
    measure=_measure,
    columns=(
        "smallest", "convolutions", "images", "loss", "spectrum", "next_modulus", "next_singular_value", "from_span",
    ),
    draw=_draw,
    check_shape=_check_shape,
    pictures=Pictures(members=4, controls=50, size=8),
)  # fmt: skip
