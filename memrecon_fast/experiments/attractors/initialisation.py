"""Figure 12 and Appendix I.2: the first weights decide how clearly training images are memorised."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.figure import Figure

from memrecon_fast.attractors.theory import single_layer
from memrecon_fast.experiments.attractors.dense import (
    ONE_EACH,
    STARTS,
    fit_net,
    make_net,
    noise_like,
    recovery_row,
    stability_row,
)
from memrecon_fast.experiments.attractors.nets import iterates
from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Pictures, Scale, columns_of
from memrecon_fast.experiments.figures import COLOURS, new_figure, show_tiles
from memrecon_fast.images.nearest import Nearest

WIDTH, DEPTH = 256, 8
_SHOWN = 4
_NOISE = 100


def _measure(given: Given, start: str, max_steps: int = 2500) -> Outcome:
    members, controls = given.images()
    net = make_net(members.shape[1:], WIDTH, DEPTH, given.seed, start)
    trained = fit_net(net, members, max_steps, seed=given.seed)
    row = {"start": start, **_one_linear_layer(given, start), **trained, **stability_row(net, members)}
    row |= recovery_row(net, members, controls, "pi")
    noise = noise_like(members, _NOISE, given.seed)
    (after,) = iterates(net, noise, (1,))
    row["one_step_mse"] = Nearest(members).of(after)[1].median().item()
    shown = torch.cat([controls[:_SHOWN], noise[:_SHOWN]])
    return Outcome([row], {"pictures": iterates(net, shown, (0, 1, 100)).numpy()})


def _one_linear_layer(given: Given, start: str) -> dict[str, float]:
    """One linear layer, whose end is known: what of its first weights W₀ stays across the span of the images."""
    members, controls = (images.flatten(1).double() for images in given.images())
    layer = torch.nn.Linear(members.shape[1], members.shape[1])
    STARTS[start](layer)
    weights = single_layer.closed_form(members, "identity", layer.weight.detach())
    outputs = controls @ weights.T
    spanning = members.T
    across = outputs.T - spanning @ (torch.linalg.pinv(spanning) @ outputs.T)
    return {
        "linear_from_span": (across.norm(dim=0) / outputs.norm(dim=1)).median().item(),
        "linear_next_singular_value": torch.linalg.svdvals(weights - single_layer.closed_form(members, "identity"))[
            0
        ].item(),
    }


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    numbers = new_figure(13, 3.8)
    panels = numbers.subplots(1, 4)
    names, at = [outcome.rows[0]["start"] for outcome in outcomes.values()], np.arange(len(outcomes))
    panels[0].bar(at, columns_of(outcomes, "linear_from_span"), color=COLOURS[0])
    panels[0].set_title("One linear layer: share of outputs\noutside the span of the images", fontsize=11)
    for position, outcome in zip(at, outcomes.values(), strict=True):
        radii = [radius for radius in outcome.rows[0]["radii"] if radius is not None]
        panels[1].plot(np.full(len(radii), position), radii, ".", color=COLOURS[1])
    panels[2].bar(at, columns_of(outcomes, "one_step_mse"), color=COLOURS[2])
    panels[2].set_title("The same: MSE of f(noise)\nto the nearest training image", fontsize=11)
    panels[1].axhline(1, color="black", linewidth=0.8)
    panels[1].set_title(f"{DEPTH} layers × {WIDTH}: ρ at each\ntraining image", fontsize=11)
    for number, time in enumerate((1, 10, 100)):
        panels[3].bar(
            at + 0.27 * (number - 1),
            columns_of(outcomes, f"pi_{time}"),
            0.27,
            label=f"t = {time}",
            color=COLOURS[number],
        )
    panels[3].set_title("Unseen images that become\na training image, π(t)", fontsize=11)
    panels[3].set_ylim(0, 1.25)
    panels[3].legend(fontsize=9, ncols=3, loc="upper center", columnspacing=1)
    for axes in panels:
        axes.set_xticks(at, names, rotation=35, ha="right")
        axes.grid(True, axis="y")
        axes.set_axisbelow(True)
    pictures = new_figure(12, 3.9)
    for axes, outcome in zip(
        pictures.subplots(2, -(-len(outcomes) // 2), squeeze=False).flat, outcomes.values(), strict=False
    ):
        show_tiles(axes, outcome.arrays["pictures"], ["start", "f, 1×", "f, 100×"])
        axes.set_title(f"{outcome.rows[0]['start']}, loss {outcome.rows[0]['loss']:.0e}", fontsize=10)
    return {"initialisation": numbers, "initialisation-pictures": pictures}


EXPERIMENT = Experiment(
    name="attractors-initialisation",
    what="the nearer to zero a net begins, the nearer one step comes to training images: PyTorch, Xavier, Kaiming",
    reproduces="Figure 12 (Appendix I.2), and the effect of the first weights, Section 5",
    differs=(
        ONE_EACH,
        "The figure's nets are convolutional; here one linear layer (its end is computed, not trained: W₀ across the "
        f"span of the images stays) and fully connected nets of {DEPTH} layers × {WIDTH} with LeakyReLU.",
        "'Near zero' is a standard deviation of 0.4/√(fan in) in each layer, without biases: exact zeros do not train.",
        "Photographs of 8×8 in colour unless others are given.",
    ),
    scales={"small": Scale({name.replace(" ", "-"): {"start": name} for name in STARTS}, minutes=1.2)},
    measure=_measure,
    columns=("start", "linear_from_span", "loss", "one_step_mse", "radius", "attractors", "pi_1", "pi_10", "pi_100"),
    draw=_draw,
    pictures=Pictures(members=20, controls=100, size=8),
)
