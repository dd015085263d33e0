"""Figure 3: nets that take almost anything to a training image, in one step or in more."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from memrecon_fast.experiments.attractors.nonlinear import (
    ONE_EACH,
    STEPS,
    fit_net,
    make_net,
    noise_like,
    recovery_row,
    stability_row,
    steps_shown,
)
from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Pictures, Row, Scale
from memrecon_fast.experiments.figures import tile_panels

SHOWN = 8
_STARTS = 100


def look_at_steps(net: nn.Module, members: Tensor, controls: Tensor, seed: int) -> tuple[Row, dict[str, Tensor]]:
    """Of a trained net: the members' stability, π(t) of unseen images and of noise, and pictures of some."""
    noise = noise_like(members, _STARTS, seed)
    row = stability_row(net, members)
    row |= recovery_row(net, members, controls, "pi_images") | recovery_row(net, members, noise, "pi_noise")
    shown = torch.cat([controls[: SHOWN // 2], noise[: SHOWN // 2]])
    return row, {"pictures": steps_shown(net, members, shown)}


def draw_steps(outcomes: Mapping[str, Outcome]) -> Figure:
    """Pictures, and shares of recovery, of each net; a row has its name as "net"."""
    titles = [
        f"{row['net']}, loss {row['loss']:.0e}\n"
        f"{row['attractors']} of {row['members']} training images are attractors\n"
        f"{row['pi_images_1']:.0%} of images, {row['pi_noise_1']:.0%} of noise become one in 1 step\n"
        f"10: {row['pi_images_10']:.0%}, {row['pi_noise_10']:.0%}; "
        f"100: {row['pi_images_100']:.0%}, {row['pi_noise_100']:.0%}"
        for row in (outcome.rows[0] for outcome in outcomes.values())
    ]
    return tile_panels([outcome.arrays["pictures"] for outcome in outcomes.values()], titles, STEPS)


def _measure(given: Given, width: int, depth: int, max_steps: int) -> Outcome:
    members, controls = given.images()
    net = make_net(members.shape[1:], width, depth, given.seed)
    row = {"net": f"{depth} layers × {width}", "width": width, "depth": depth}
    row |= fit_net(net, members, max_steps, seed=given.seed)
    found, shown = look_at_steps(net, members, controls, given.seed)
    return Outcome([row | found], {name: one.numpy() for name, one in shown.items()})


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    return {"one-step": draw_steps(outcomes)}


EXPERIMENT = Experiment(
    name="attractors-one-step",
    what="how many unseen images and how much noise deep and wide nets take to training images in one step",
    reproduces="Figure 3 (MNIST); Figures 5b and 10 with fully connected nets",
    differs=(
        ONE_EACH,
        "Fully connected nets throughout; the nets of Figures 5 and 10 are convolutional: attractors-convolutional. "
        "The paper's widths and depths are lost in the text that we have.",
        "10 photographs of 8×8 in colour unless others are given. 'A member' means a mean squared error below 5e-4.",
    ),
    scales={
        "small": Scale(
            {
                "6×256": {"width": 256, "depth": 6, "max_steps": 600},
                "20×384": {"width": 384, "depth": 20, "max_steps": 600},
                "30×512": {"width": 512, "depth": 30, "max_steps": 600},
            },
            minutes=1,
        )
    },
    measure=_measure,
    columns=(
        "depth",
        "width",
        "loss",
        "attractors",
        "pi_images_1",
        "pi_images_10",
        "pi_noise_1",
        "pi_noise_10",
    ),
    draw=_draw,
    pictures=Pictures(members=10, controls=100, size=8),
)
