"""Figure 6: memorisation all through the training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from memrecon_fast.autoencoders import evaluate, load
from memrecon_fast.experiments.attractors.nonlinear import (
    ONE_EACH,
    fit_net_with_levels,
    make_net,
    recovery_row,
    stability_row,
)
from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Pictures, Scale
from memrecon_fast.experiments.figures import COLOURS, CONTROL_COLOUR, new_figure

LEVELS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)


def _measure(given: Given, width: int, depth: int, max_steps: int = 1500) -> Outcome:
    members, controls = given.images()
    net = make_net(members.shape[1:], width, depth, given.seed)
    files = fit_net_with_levels(net, members, LEVELS, max_steps, given.folder, given.seed)
    noise = torch.randn(members.shape, generator=torch.Generator().manual_seed(given.seed))
    rows = []
    for level, path in sorted(files.items(), reverse=True):
        assert path is not None
        then = load(path)
        assert isinstance(then, nn.Module)
        row = {"width": width, "depth": depth, "level": level, "loss": evaluate(then, members)}
        row |= stability_row(then, members)
        row |= recovery_row(then, members, controls, "pi_images")
        row |= recovery_row(then, members, members + 0.1 * noise, "pi_noisy_members")
        row["controls_loss"] = evaluate(then, controls)
        rows.append(row)
    return Outcome(rows)


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    figure = new_figure(9.5, 6)
    panels = figure.subplots(2, len(outcomes), sharex=True, sharey="row", squeeze=False)
    for number, (name, outcome) in enumerate(outcomes.items()):
        upper, lower = panels[:, number]
        loss = np.array([row["loss"] for row in outcome.rows])
        for row in outcome.rows:
            radii = [radius for radius in row["radii"] if radius is not None]
            upper.plot(np.full(len(radii), row["loss"]), radii, ".", color=CONTROL_COLOUR, markersize=3)
        upper.plot(loss, [row["radius"] for row in outcome.rows], "o-", color=COLOURS[0], label="ρ, median")
        upper.axhline(1, color="black", linewidth=0.8)
        upper.set_title(name)
        for column, label, colour in (
            ("pi_images_100", "unseen images", COLOURS[1]),
            ("pi_noisy_members_100", "training images + noise 0.1", COLOURS[2]),
        ):
            lower.plot(loss, [row[column] for row in outcome.rows], "o-", color=colour, label=label)
        lower.set_xscale("log")
        lower.set_xlim(3e-2, 3e-11)
        lower.set_xlabel("train loss, falling with time")
        lower.set_ylim(-0.02, 1.02)
        upper.grid(True)
        lower.grid(True)
    panels[0, 0].set_ylabel("ρ at the fixed point near\neach training image")
    panels[1, 0].set_ylabel("share that is a training\nimage after 100 steps, π(100)")
    panels[0, 0].legend(fontsize=9)
    panels[1, 0].legend(fontsize=9)
    return {"early-stopping": figure}


EXPERIMENT = Experiment(
    name="attractors-early-stopping",
    what="ρ at the training images and π(t) against the train loss: when does a net begin to memorise?",
    reproduces="Figure 6 (Section 5)",
    differs=(
        ONE_EACH,
        "The net of the figure is not described in the text that we have: LeakyReLU, Adam, one run, kept at "
        "ten losses.",
        "ρ is that of the fixed point near the image where there is one, otherwise that of the image itself. A member "
        "is recovered within 5e-4, below which no net with a larger train loss can come.",
        "Photographs of 8×8 in colour unless others are given.",
    ),
    scales={
        "small": Scale(
            {"5 layers × 256": {"width": 256, "depth": 5}, "10 layers × 256": {"width": 256, "depth": 10}}, minutes=0.7
        )
    },
    measure=_measure,
    columns=(
        "depth",
        "loss",
        "radius",
        "attractors",
        "pi_images_100",
        "pi_images_members",
        "pi_noisy_members_100",
        "controls_loss",
    ),
    draw=_draw,
    pictures=Pictures(members=20, controls=100, size=8),
)
