"""Figure 1(a): autoencoders of the line; and Theorem 6's construction."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from memrecon_fast.attractors.theory import construction
from memrecon_fast.experiments.attractors.nets import iterates
from memrecon_fast.experiments.attractors.nonlinear import fit_net, make_net
from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Scale
from memrecon_fast.experiments.figures import COLOURS, INK, new_figure

POINTS = (0.3, 0.7)
_TIMES = tuple(range(31))
_STARTS = 41
_H = 0.08
"""Half width of the pieces of the construction."""


def _measure(given: Given, start: str | None = None, width: int = 0, depth: int = 0, scale: float = 1.0) -> Outcome:
    points = torch.tensor(POINTS).view(-1, 1, 1, 1)
    net: nn.Module
    if width:
        dense = make_net((1, 1, 1), width, depth, given.seed, start, "prelu")
        with torch.no_grad():
            for parameter in dense.parameters():
                parameter.mul_(scale)
        loss = fit_net(dense, points, 2000, target=1e-10, seed=given.seed)["loss"]
        net = dense.double()
    else:
        net = nn.Sequential(
            nn.Flatten(), construction.contracting_identity(points.flatten(1), _H), nn.Unflatten(1, (1, 1, 1))
        )
        loss = 0.0
    line = torch.linspace(0, 1, 501, dtype=torch.float64).view(-1, 1, 1, 1)
    with torch.no_grad():
        values = net(line)
    starts = torch.linspace(0, 1, _STARTS, dtype=torch.float64).view(-1, 1, 1, 1)
    paths = iterates(net, starts, _TIMES).flatten(1)
    near = (paths[-1][:, None] - points.double().flatten()).abs().amin(dim=1) < 5e-4**0.5
    row = {
        "width": width,
        "depth": depth,
        "loss": loss,
        "slopes": [round(slope, 4) for slope in _slopes(net, points.double())],
        "from_identity": (values - line).square().mean().item(),
        "at_points": near.double().mean().item(),
    }
    return Outcome([row], {"values": values.flatten().numpy(), "paths": paths.numpy()})


def _slopes(net: nn.Module, points: Tensor) -> list[float]:
    x = points.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(net(x).sum(), x)
    found: list[float] = slopes.flatten().tolist()
    return found


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    figure = new_figure(2.9 * len(outcomes), 5.4)
    panels = figure.subplots(2, len(outcomes), sharey="row", squeeze=False)
    line = np.linspace(0, 1, 501)
    for number, (name, outcome) in enumerate(outcomes.items()):
        upper, lower = panels[:, number]
        upper.plot(line, line, "--", color=INK, linewidth=0.8)
        upper.plot(line, outcome.arrays["values"], color=COLOURS[0])
        upper.plot(POINTS, POINTS, "o", color=COLOURS[5], zorder=3)
        slopes = " and ".join(f"{slope:.2g}" for slope in outcome.rows[0]["slopes"])
        upper.set_title(f"{name}\nslopes {slopes}", fontsize=10)
        upper.set_xlabel("x")
        upper.set_xlim(0, 1)
        upper.set_ylim(-0.1, 1.1)
        lower.plot(_TIMES, outcome.arrays["paths"], color=COLOURS[0], linewidth=0.6)
        for point in POINTS:
            lower.axhline(point, color=COLOURS[5], linewidth=1.2)
        lower.set_xlabel("applications of f, t")
        lower.set_ylim(-0.1, 1.1)
    panels[0, 0].set_ylabel("f(x)")
    panels[1, 0].set_ylabel("x, f(x), f(f(x)), …")
    return {"line": figure}


EXPERIMENT = Experiment(
    name="attractors-line",
    what="autoencoders of the line that have two points to learn: first weights, width, and Theorem 6's construction",
    reproduces="Figure 1(a) and Theorem 6 (7 in Appendix I)",
    differs=(
        "Widths, depths and points of the figure are not in the text that we have: 0.3 and 0.7; PReLU, Adam.",
        f"The construction is ours (the formula is lost): slope 1/2 within {_H} of each point, the identity beyond "
        f"{2 * _H}; its half width may be as small as one likes, and with it the distance from the identity.",
    ),
    scales={
        "small": Scale(
            {
                "large first weights": {"start": "kaiming normal", "width": 256, "depth": 4, "scale": 3.0},
                "first weights near zero": {"width": 128, "depth": 4},
                "wider and deeper": {"width": 512, "depth": 16},
                "construction": {},
            },
            minutes=0.3,
        )
    },
    measure=_measure,
    columns=("width", "depth", "loss", "slopes", "from_identity", "at_points"),
    draw=_draw,
)
