"""Figure 12 and Appendix I.2: the first weights decide how clearly training images are memorised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from memrecon_fast.attractors.theory import single_layer
from memrecon_fast.autoencoders import UNet
from memrecon_fast.experiments.attractors.convolutional import RATE, reduced
from memrecon_fast.experiments.attractors.nets import from_span, iterates
from memrecon_fast.experiments.attractors.nonlinear import (
    ONE_EACH,
    STARTS,
    TIMES,
    begin,
    fit_net,
    make_net,
    noise_like,
    recovery_row,
    stability_row,
)
from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Pictures, Scale, columns_of
from memrecon_fast.experiments.figures import COLOURS, new_figure, show_tiles
from memrecon_fast.images.nearest import Nearest

WIDTH, DEPTH = 256, 8
"""Of the fully connected nets."""
WIDTHS = (32, 64, 128)
"""Of the convolutional nets, by level."""
_SHOWN = 4
_NOISE = 100
_SUFFIXES = {"fully connected": "", "convolutional": "-convolutional"}
"""Of the figures, by the kind of net."""


def _measure(given: Given, kind: str, start: str, images: int = 20, max_steps: int = 2500) -> Outcome:
    members, controls = given.images()
    if kind == "fully connected":
        net: nn.Module = make_net(members.shape[1:], WIDTH, DEPTH, given.seed, start)
        row = fit_net(net, members, max_steps, seed=given.seed) | _one_linear_layer(given, start)
    else:
        members, controls = reduced(members[:images]), reduced(controls)
        net = UNet(members.shape[1:], WIDTHS)
        begin(net, start)
        row = fit_net(net, members, max_steps, seed=given.seed, learning_rate=RATE)
    row |= {"kind": kind, "start": start, **stability_row(net, members), **recovery_row(net, members, controls)}
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
    return {
        "linear_from_span": from_span(members, controls @ weights.T).median().item(),
        "linear_next_singular_value": torch.linalg.svdvals(weights - single_layer.closed_form(members, "identity"))[
            0
        ].item(),
    }


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    figures = {}
    for kind, suffix in _SUFFIXES.items():
        chosen = {outcome.rows[0]["start"]: outcome for outcome in outcomes.values() if outcome.rows[0]["kind"] == kind}
        if chosen:
            figures[f"initialisation{suffix}"] = _draw_numbers(chosen, kind)
            figures[f"initialisation{suffix}-pictures"] = _draw_pictures(chosen)
    return figures


def _draw_numbers(outcomes: Mapping[str, Outcome], kind: str) -> Figure:
    """The outcomes of one kind of net, by the names of their first weights."""
    with_linear = kind == "fully connected"
    figure = new_figure(13 if with_linear else 10, 3.8)
    panels = figure.subplots(1, 3 + with_linear)
    at = np.arange(len(outcomes))
    if with_linear:
        panels[0].bar(at, columns_of(outcomes, "linear_from_span"), color=COLOURS[0])
        panels[0].set_title("One linear layer: share of outputs\noutside the span of the images", fontsize=11)
    radii, one_step, shares = panels[-3:]
    for position, outcome in zip(at, outcomes.values(), strict=True):
        known = [radius for radius in outcome.rows[0]["radii"] if radius is not None]
        radii.plot(np.full(len(known), position), known, ".", color=COLOURS[1])
    radii.axhline(1, color="black", linewidth=0.8)
    radii.set_title(f"{kind.capitalize()} nets (and loss):\nρ at each training image", fontsize=11)
    one_step.bar(at, columns_of(outcomes, "one_step_mse"), color=COLOURS[2])
    one_step.set_title("The same: MSE of f(noise)\nto the nearest training image", fontsize=11)
    for number, time in enumerate(TIMES):
        heights = columns_of(outcomes, f"pi_{time}")
        shares.bar(at + 0.27 * (number - 1), heights, 0.27, label=f"t = {time}", color=COLOURS[number])
    shares.set_title("Unseen images that become\na training image, π(t)", fontsize=11)
    shares.set_ylim(0, 1.25)
    shares.legend(fontsize=9, ncols=3, loc="upper center", columnspacing=1)
    for axes in panels:
        axes.set_xticks(at, outcomes, rotation=35, ha="right")
        axes.grid(True, axis="y")
        axes.set_axisbelow(True)
    losses = [f"{start}, {outcome.rows[0]['loss']:.0e}" for start, outcome in outcomes.items()]
    radii.set_xticks(at, losses, rotation=35, ha="right")
    return figure


def _draw_pictures(outcomes: Mapping[str, Outcome]) -> Figure:
    figure = new_figure(12, 3.9)
    panels = figure.subplots(2, -(-len(outcomes) // 2), squeeze=False).flat
    for axes, (start, outcome) in zip(panels, outcomes.items(), strict=False):
        show_tiles(axes, outcome.arrays["pictures"], ["start", "f, 1×", "f, 100×"])
        axes.set_title(f"{start}, loss {outcome.rows[0]['loss']:.0e}", fontsize=10)
    return figure


_CELLS: dict[str, dict[str, Any]] = {
    **{name.replace(" ", "-"): {"kind": "fully connected", "start": name} for name in STARTS},
    **{
        f"convolutional-{name.replace(' ', '-')}": {
            "kind": "convolutional",
            "start": name,
            "images": 10,
            "max_steps": 600,
        }
        for name in STARTS
    },
}

EXPERIMENT = Experiment(
    name="attractors-initialisation",
    what="where first weights lead: one step, attractors and π(t) from near zero, PyTorch, Xavier, Kaiming",
    reproduces="Figure 12 (Appendix I.2), and the effect of the first weights, Section 5",
    differs=(
        ONE_EACH,
        "The nets of the figure are lost in the text that we have. Here: one linear layer (its end is computed, not "
        f"trained: W₀ across the span of the images stays); fully connected nets of {DEPTH} layers × {WIDTH}; "
        "convolutional ones, U-Nets of three levels without skip connections, on the first 10 images, averaged to 8×8.",
        "The convolutional nets are trained for 600 steps, and end at different losses, as the figures say: the one "
        "that begins near zero above what counts as a member.",
        "'Near zero' is a standard deviation of 0.4/√(fan in) in each layer, without biases: exact zeros do not train.",
        "Photographs of 8×8 in colour unless others are given.",
    ),
    scales={"small": Scale(_CELLS, minutes=2)},
    measure=_measure,
    columns=(
        "kind",
        "start",
        "linear_from_span",
        "loss",
        "one_step_mse",
        "radius",
        "attractors",
        "pi_1",
        "pi_10",
        "pi_100",
    ),
    draw=_draw,
    pictures=Pictures(members=20, controls=100, size=8),
)
