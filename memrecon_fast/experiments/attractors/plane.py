"""Figure 2: vector field and trajectories of an autoencoder of the plane, trained on points of the Swiss roll."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from memrecon_fast.experiments.attractors.nets import iterates
from memrecon_fast.experiments.attractors.nonlinear import ONE_EACH, fit_net, make_net, stability_row
from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Scale
from memrecon_fast.experiments.figures import COLOURS, INK, new_figure

_SIDE = 32
"""A grid of so many starts along each side: 1024, the paper has 1000."""
_ARROWS = 20
_TIMES = (0, 1, 2, 3, 5, 8, 13, 20, 35, 60, 100, 200, 300)
_NEAR = 0.01
"""So near to a training point, in the plane, a trajectory has come to it."""


def swiss_roll(count: int) -> Tensor:
    """(count, 1, 1, 2): points of the Swiss roll without its height, (t cos t, t sin t), evenly along t from 1.5 π to
    4.5 π, in [0.05, 0.95]²."""
    t = torch.linspace(1.5 * math.pi, 4.5 * math.pi, count)
    points = torch.stack([t * t.cos(), t * t.sin()], dim=1)
    low, high = points.amin(dim=0), points.amax(dim=0)
    return (0.05 + 0.9 * (points - low) / (high - low)).view(count, 1, 1, 2)


def _grid(side: int) -> Tensor:
    at = torch.linspace(0, 1, side)
    return torch.cartesian_prod(at, at).view(-1, 1, 1, 2)


def _measure(given: Given, width: int, depth: int, points: int, max_steps: int) -> Outcome:
    members = swiss_roll(points)
    net = make_net((1, 1, 2), width, depth, given.seed)
    trained = fit_net(net, members, max_steps, target=1e-9, seed=given.seed)
    paths = iterates(net, _grid(_SIDE), _TIMES)[:, :, 0, 0]
    distance = torch.cdist(paths[-1], members[:, 0, 0])
    nearest, there = distance.argmin(dim=1), distance.amin(dim=1) < _NEAR
    row = {
        "width": width,
        "depth": depth,
        **trained,
        **stability_row(net, members),
        "at_points": there.double().mean().item(),
        "different_points": len(nearest[there].unique()),
    }
    arrows = iterates(net, _grid(_ARROWS), (0, 1))[:, :, 0, 0]
    kept = {"members": members[:, 0, 0], "paths": paths, "nearest": torch.where(there, nearest, -1), "arrows": arrows}
    return Outcome([row], {name: one.numpy() for name, one in kept.items()})


def _colour(number: int, count: int) -> Any:
    """Of one of so many points; neighbours differ."""
    return mpl.colormaps["turbo"]((7 * number % count + 0.5) / count)


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    figure = new_figure(4.2 * len(outcomes), 8.6)
    panels = figure.subplots(2, len(outcomes), squeeze=False)
    for number, (name, outcome) in enumerate(outcomes.items()):
        upper, lower = panels[:, number]
        row, arrays = outcome.rows[0], outcome.arrays
        begin, end = arrays["arrows"]
        length = np.linalg.norm(end - begin, axis=1, keepdims=True)
        arrow = (end - begin) / np.maximum(length, 1e-9) * np.minimum(length, 0.05)
        upper.quiver(*begin.T, *arrow.T, angles="xy", scale_units="xy", scale=1, width=0.003, color=COLOURS[0])
        upper.set_title(
            f"{name}, loss {row['loss']:.0e}\n{row['attractors']} of {row['members']} points are attractors"
        )
        nearest = arrays["nearest"]
        for start, path in enumerate(arrays["paths"].transpose(1, 0, 2)):
            colour = "#cccccc" if nearest[start] < 0 else _colour(nearest[start], row["members"])
            lower.plot(*path.T, color=colour, linewidth=0.4, alpha=0.7)
        lower.set_title(f"{row['at_points']:.0%} of {len(nearest)} starts come to {row['different_points']} of them")
        for axes in (upper, lower):
            axes.plot(*arrays["members"].T, "o", color=COLOURS[5], markeredgecolor=INK, markersize=5, zorder=3)
            axes.set_xlim(-0.03, 1.03)
            axes.set_ylim(-0.03, 1.03)
            axes.set_aspect("equal")
    panels[0, 0].set_ylabel("f(x) − x, arrows cut at 0.05")
    panels[1, 0].set_ylabel("trajectories, by the point they come to")
    return {"plane": figure}


EXPERIMENT = Experiment(
    name="attractors-plane",
    what="an autoencoder of the plane, trained on the Swiss roll: its vector field, and where 1,024 starts end",
    reproduces="Figure 2 (Section 3.2)",
    differs=(
        ONE_EACH,
        "The net and the number of points are not in the text that we have: LeakyReLU, Adam, 16 points.",
        "The roll is its formula, evenly along its angle, not a random sample.",
        "Starts that are grey come to none of the points within 300 steps.",
    ),
    scales={
        "small": Scale(
            {
                "6 layers × 128": {"width": 128, "depth": 6, "points": 16, "max_steps": 3000},
                "12 layers × 384": {"width": 384, "depth": 12, "points": 16, "max_steps": 3000},
            },
            minutes=1,
        )
    },
    measure=_measure,
    columns=("width", "depth", "loss", "radius", "attractors", "members", "at_points", "different_points"),
    draw=_draw,
)
