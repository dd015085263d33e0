"""Figures 5 and 10: convolutional nets that downsample have their training images as attractors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from memrecon_fast.autoencoders import UNet
from memrecon_fast.experiments.attractors.nonlinear import ONE_EACH, fit_net
from memrecon_fast.experiments.attractors.one_step import draw_steps, look_at_steps
from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Pictures, Row, Scale

SIDE = 8
RATE = 2e-3
"""Of Adam: at 1e-3 these nets come to 20 times the loss in as many steps."""


def reduced(images: Tensor) -> Tensor:
    """Averaged to 8 × 8 pixels: these nets train in a minute on one thread."""
    return functional.adaptive_avg_pool2d(images, SIDE)


def _measure(given: Given, widths: Sequence[int], images: int, max_steps: int) -> Outcome:
    members, controls = (reduced(some) for some in given.images())
    members = members[:images]
    net = UNet(members.shape[1:], widths, seed=given.seed)
    layers = 4 * len(widths) - 1
    row: Row = {"net": f"{layers} convolutions, down to {SIDE >> (len(widths) - 1)} pixels a side"}
    row |= {"widths": list(widths), "layers": layers, "images": images}
    row |= fit_net(net, members, max_steps, seed=given.seed, learning_rate=RATE)
    found, shown = look_at_steps(net, members, controls, given.seed)
    return Outcome([row | found], {name: one.numpy() for name, one in shown.items()})


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    return {"convolutional": draw_steps(outcomes)}


EXPERIMENT = Experiment(
    name="attractors-convolutional",
    what="convolutional nets that downsample, without skip connections, take unseen images to training images",
    reproduces="Figures 5 and 10 (CIFAR-10)",
    differs=(
        ONE_EACH,
        "The nets of the figures are lost in the text that we have: here U-Nets without skip connections, LeakyReLU, "
        "Adam, which stops after its steps, above a loss of 1e-9.",
        f"Photographs of {SIDE}×{SIDE} unless others are given, which are averaged to as many pixels; 10 and 30 of "
        "them, where Figure 5a has 100.",
        "'A member' means a mean squared error below 5e-4.",
    ),
    scales={
        "small": Scale(
            {
                "2 levels, 10 images": {"widths": (64, 128), "images": 10, "max_steps": 1000},
                "3 levels, 10 images": {"widths": (32, 64, 128), "images": 10, "max_steps": 1000},
                "4 levels, 10 images": {"widths": (32, 64, 64, 64), "images": 10, "max_steps": 1500},
                "3 levels, 30 images": {"widths": (32, 64, 128), "images": 30, "max_steps": 1500},
            },
            minutes=1.7,
        )
    },
    measure=_measure,
    columns=(
        "layers",
        "images",
        "loss",
        "attractors",
        "radius",
        "pi_images_1",
        "pi_images_10",
        "pi_images_100",
        "pi_images_members",
        "pi_noise_100",
    ),
    draw=_draw,
    pictures=Pictures(members=30, controls=100, size=SIDE),
)
