"""Figure 11: nets that reconstruct images they never saw, and give out those they were trained on all the same."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure

from memrecon_fast.autoencoders import evaluate
from memrecon_fast.experiments.attractors.nonlinear import (
    ONE_EACH,
    STEPS,
    fit_net,
    make_net,
    recovery_row,
    stability_row,
    steps_shown,
)
from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Pictures, Scale, columns_of
from memrecon_fast.experiments.figures import COLOURS, CONTROL_COLOUR, new_figure, tile_panels

_SHOWN = 8
NOISE = 0.05
"""Standard deviation: an MSE of 2.5e-3, five times what counts as a member."""


def _measure(given: Given, images: int, width: int = 384, depth: int = 8, max_steps: int = 2000) -> Outcome:
    members, controls = given.images()
    members = members[:images]
    net = make_net(members.shape[1:], width, depth, given.seed)
    row = {"images": images, "width": width, "depth": depth, **fit_net(net, members, max_steps, seed=given.seed)}
    row["controls_loss"] = evaluate(net, controls)
    row["controls_variance"] = controls.var(dim=0, correction=0).mean().item()
    row["of_variance"] = row["controls_loss"] / row["controls_variance"]
    noise = torch.randn(members.shape, generator=torch.Generator().manual_seed(given.seed))
    row |= stability_row(net, members)
    row |= recovery_row(net, members, controls, "pi_images")
    row |= recovery_row(net, members, members + NOISE * noise, "pi_noisy_members")
    return Outcome([row], {"pictures": steps_shown(net, members, controls[:_SHOWN]).numpy()})


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    images = columns_of(outcomes, "images")
    figure = new_figure(9.5, 3.8)
    left, right = figure.subplots(1, 2)
    left.plot(images, columns_of(outcomes, "controls_variance"), "--", color="black", label="their mean in place of f")
    left.plot(images, columns_of(outcomes, "controls_loss"), "o-", color=CONTROL_COLOUR, label="unseen images")
    left.plot(images, columns_of(outcomes, "loss"), "o-", color=COLOURS[0], label="training images")
    left.set_yscale("log")
    left.set_ylabel("mean squared error of f(x)")
    for number, (column, label) in enumerate(
        (
            ("attractors", "attractors"),
            ("pi_noisy_members_members", f"come out of training images + noise {NOISE}"),
            ("pi_images_members", "come out of unseen images"),
        )
    ):
        right.plot(images, columns_of(outcomes, column), "o-", color=COLOURS[number], label=label)
    right.set_ylabel("different training images")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(images, [str(one) for one in images])
        axes.minorticks_off()
        axes.set_xlabel("training images")
        axes.grid(True)
        axes.legend(fontsize=9)
    titles = [
        f"{row['images']} training images, loss {row['loss']:.0e}\nunseen images {row['controls_loss']:.1e}; "
        f"{row['pi_images_100']:.0%} of them\nbecome {row['pi_images_members']} training images in 100 steps"
        for row in (outcome.rows[0] for outcome in outcomes.values())
    ]
    pictures = tile_panels([outcome.arrays["pictures"] for outcome in outcomes.values()], titles, STEPS)
    return {"reconstruction": figure, "reconstruction-pictures": pictures}


EXPERIMENT = Experiment(
    name="attractors-reconstruction",
    what="the more images a net learns, the better it reconstructs others; some training images come out all the same",
    reproduces="Figure 11 (Appendix I.1)",
    differs=(
        ONE_EACH,
        "The figure's net and its number of images are lost in the text that we have: LeakyReLU, 8 layers × 384, Adam, "
        "at most 2,000 steps.",
        "Photographs of 4×4 in colour unless others are given (the figure: MNIST): so few pixels that 200 images tell "
        "much of all others. How near to zero the error is, 'of variance' says: relative to the mean image's.",
    ),
    scales={"small": Scale({f"{images} images": {"images": images} for images in (20, 60, 200)}, minutes=1.2)},
    measure=_measure,
    columns=(
        "images",
        "loss",
        "controls_loss",
        "of_variance",
        "attractors",
        "pi_images_1",
        "pi_images_100",
        "pi_images_members",
        "pi_noisy_members_100",
        "pi_noisy_members_members",
    ),
    draw=_draw,
    pictures=Pictures(members=200, controls=200, size=4),
)
