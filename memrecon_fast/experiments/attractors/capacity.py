"""Figure 4: the recovery probability by width and by depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from memrecon_fast.attractors import recovery_curve
from memrecon_fast.experiments.attractors.nonlinear import ONE_EACH, fit_net, make_net, stability_row
from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Pictures, Scale
from memrecon_fast.experiments.figures import COLOURS, new_figure

_TIMES = tuple(range(1, 10)) + tuple(range(10, 101, 5))
WIDTH, DEPTH = 256, 8
"""The other one of the two that varies."""


def _measure(given: Given, vary: str, width: int, depth: int, max_steps: int = 1500) -> Outcome:
    members, controls = given.images()
    net = make_net(members.shape[1:], width, depth, given.seed)
    trained = fit_net(net, members, max_steps, seed=given.seed)
    curve = recovery_curve(net, members, controls, _TIMES)
    at = dict(zip(_TIMES, curve.share.tolist(), strict=True))
    shares = {f"pi_{time}": at[time] for time in (1, 5, 10, 100)}
    row = {"vary": vary, "width": width, "depth": depth, **trained, **shares, **stability_row(net, members)}
    row["different_members"] = int(curve.different[-1])
    return Outcome([row], {"curve": curve.share.numpy()})


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    figure = new_figure(9.5, 3.8)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, vary, title in zip(
        panels, ("width", "depth"), (f"By width, {DEPTH} layers", f"By depth, width {WIDTH}"), strict=True
    ):
        chosen = [one for one in outcomes.values() if vary in one.rows[0]["vary"].split()]
        chosen.sort(key=lambda one: one.rows[0][vary])
        for number, outcome in enumerate(chosen):
            row = outcome.rows[0]
            label = f"{row[vary]} (loss {row['loss']:.0e})"
            axes.plot(_TIMES, outcome.arrays["curve"], color=COLOURS[number], label=label)
        axes.set_xscale("log")
        axes.set_xlim(1, max(_TIMES))
        axes.set_xticks([1, 10, 100], ["1", "10", "100"])
        axes.set_title(title)
        axes.set_xlabel("applications of f, t")
        axes.grid(True)
        if chosen:
            axes.legend(fontsize=9, title=vary)
    panels[0].set_ylabel("share of unseen images that\nare now a training image, π(t)")
    panels[0].set_ylim(-0.02, 1.02)
    return {"capacity": figure}


def _cells(widths: tuple[int, ...], depths: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    by_width: dict[str, dict[str, Any]] = {
        f"width-{width}": {
            "vary": "width depth" if width == WIDTH and DEPTH in depths else "width",
            "width": width,
            "depth": DEPTH,
        }
        for width in widths
    }
    by_depth: dict[str, dict[str, Any]] = {
        f"depth-{depth}": {"vary": "depth", "width": WIDTH, "depth": depth} for depth in depths if depth != DEPTH
    }
    return {**by_width, **by_depth}


EXPERIMENT = Experiment(
    name="attractors-capacity",
    what="wider and deeper nets take more unseen images to training images, in fewer steps",
    reproduces="Figure 4 (Section 3.3)",
    differs=(
        ONE_EACH,
        "Widths, depths, activation and optimiser of the figure are lost in the text that we have: LeakyReLU, Adam, at "
        "most 1,500 steps or a loss of 1e-9; nets of different losses are compared, which the legend says.",
        "Photographs of 8×8 in colour unless others are given (the figure: MNIST); starts are unseen images of the "
        "same kind, recovered means a mean squared error below 5e-4.",
    ),
    scales={"small": Scale(_cells((32, 64, 128, 256, 512), (3, 5, 8, 12, 16)), minutes=1.5)},
    measure=_measure,
    columns=(
        "width",
        "depth",
        "loss",
        "pi_1",
        "pi_10",
        "pi_100",
        "radius",
        "attractors",
        "different_members",
    ),
    draw=_draw,
    pictures=Pictures(members=20, controls=200, size=8),
)
