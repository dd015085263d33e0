"""Figures 3b, 5b and 10: nets that take almost anything to a training image in one step."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.figure import Figure

from memrecon_fast.experiments.attractors.dense import (
    ONE_EACH,
    TIMES,
    fit_net,
    make_net,
    noise_like,
    recovery_row,
    stability_row,
)
from memrecon_fast.experiments.attractors.nets import iterates
from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Pictures, Scale
from memrecon_fast.experiments.figures import new_figure, show_tiles
from memrecon_fast.images.nearest import Nearest

SHOWN = 8
_STARTS = 100


def _measure(given: Given, width: int, depth: int, max_steps: int) -> Outcome:
    members, controls = given.images()
    net = make_net(members.shape[1:], width, depth, given.seed)
    trained = fit_net(net, members, max_steps, seed=given.seed)
    noise = noise_like(members, _STARTS, given.seed)
    row = {"width": width, "depth": depth, **trained, **stability_row(net, members)}
    row |= recovery_row(net, members, controls, "pi_images") | recovery_row(net, members, noise, "pi_noise")
    shown = torch.cat([controls[: SHOWN // 2], noise[: SHOWN // 2]])
    after = iterates(net, shown, (0, *TIMES))
    nearest, _ = Nearest(members).of(after[-1])
    return Outcome([row], {"pictures": torch.cat([after, members[nearest][None]]).numpy()})


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    figure = new_figure(3.9 * len(outcomes) + 1.2, 3.2)
    panels = np.atleast_1d(figure.subplots(1, len(outcomes)))
    labels = ["start", *(f"f, {time}×" for time in TIMES), "member"]
    for number, (axes, outcome) in enumerate(zip(panels, outcomes.values(), strict=True)):
        show_tiles(axes, outcome.arrays["pictures"], labels if number == 0 else [])
        row = outcome.rows[0]
        axes.set_title(
            f"{row['depth']} layers × {row['width']}, loss {row['loss']:.0e}\n"
            f"after 1 step a member: {row['pi_images_1']:.0%} of images, {row['pi_noise_1']:.0%} of noise\n"
            f"after 10: {row['pi_images_10']:.0%}, {row['pi_noise_10']:.0%}",
            fontsize=9.5,
        )
    return {"one-step": figure}


EXPERIMENT = Experiment(
    name="attractors-one-step",
    what="deep and wide nets take unseen images and noise to training images in one step",
    reproduces="Figures 3b (MNIST), and, with fully connected nets, 5b and 10 (CIFAR-10)",
    differs=(
        ONE_EACH,
        "Fully connected nets throughout; the paper's nets of Figures 5 and 10 are convolutional. Its widths and "
        "depths are lost in the text that we have.",
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
