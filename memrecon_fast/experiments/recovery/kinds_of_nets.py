"""Depth, width and activation of a net, at equal train loss: what of its training images comes back?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memrecon_fast.experiments.experiment import Experiment, Outcome, Row, Scale, Table
from memrecon_fast.experiments.figures import COLOURS, new_figure
from memrecon_fast.experiments.recovery.audits import OURS, Task, measure
from memrecon_fast.experiments.recovery.nets import Net, check_shape
from memrecon_fast.experiments.recovery.published import OWN_MASKS, percent
from memrecon_fast.experiments.recovery.small import MASKS, NOT_IN_PAPER, PICTURES, SMALL, WIDTH, small_net

LEVELS = (1e-5, 1e-6, 1e-7)
_TASK = Task(LEVELS, MASKS, (OURS, "paper", "iterate"), controls=(OURS,))
_NETS = {
    "fc-10": small_net(),
    "fc-5": small_net(depth=5),
    "fc-20": small_net(depth=20),
    "narrow": small_net(width=WIDTH // 2),
    "wide": small_net(width=WIDTH * 2),
    "prelu": small_net(activation="prelu"),
    "softplus": small_net(activation="softplus"),
}
_RATES = ("accurate", "approximate")
_PANELS = {
    "depth": ("fc-5", "fc-10", "fc-20"),
    "width": ("narrow", "fc-10", "wide"),
    "activation": ("fc-10", "prelu", "softplus"),
}


def _mean(outcome: Outcome, level: float | None, method: str, what: str) -> float | None:
    """Over the masks, of the members; None where the net did not reach this level."""
    rows = [row for row in outcome.rows if (row["split"], row["level"], row["method"]) == ("members", level, method)]
    return float(np.mean([row[what] for row in rows])) if rows else None


def _tables(outcomes: Mapping[str, Outcome]) -> dict[str, Table]:
    lines: list[list[str | float | None]] = []
    for outcome in outcomes.values():
        end = min(row["loss"] for row in outcome.rows)
        for method in _TASK.methods:
            rates = [
                "–"
                if accurate is None
                else f"{percent(accurate)} / {percent(_mean(outcome, level, method, 'approximate'))}"
                for level in LEVELS
                for accurate in [_mean(outcome, level, method, "accurate")]
            ]
            lines.append([outcome.rows[0]["net"], method, *rates, f"{end:.1e}", _controls(outcome, method)])
    header = ["net", "method", *(f"at {level:.0e}" for level in LEVELS), "lowest loss", "controls back"]
    caption = (
        "Accurate / approximate recovery at equal train loss, in % of the members, mean of the masks "
        f"{', '.join(MASKS)}; – where the training did not come so far."
    )
    return {"nets": Table(caption, header, lines)}


def _controls(outcome: Outcome, method: str) -> str | None:
    """How many came back approximately, of all that were tried under all masks."""
    rows: list[Row] = [row for row in outcome.rows if (row["split"], row["method"]) == ("controls", method)]
    back = sum(row["images"] * row["approximate"] for row in rows)
    return f"{back:.0f} of {sum(row['images'] for row in rows)}" if rows else None


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    figure = new_figure(10.5, 5.6)
    panels = figure.subplots(len(_RATES), len(_PANELS), sharey=True, sharex=True)
    for rate, line in zip(_RATES, panels, strict=True):
        for names, axes in zip(_PANELS.values(), line, strict=True):
            _curves(axes, [outcomes[name] for name in names if name in outcomes], rate)
        line[0].set_ylabel(f"% {rate}")
    for what, above, below in zip(_PANELS, *panels, strict=True):
        above.set_title(what)
        below.set_xlabel("train loss")
        below.legend(fontsize=8, loc="center right")
    panels[0][0].set_xscale("log")
    panels[0][0].set_xlim(max(LEVELS) * 1.5, min(LEVELS) / 1.5)
    panels[0][0].set_ylim(-4, 104)
    figure.suptitle("— accelerated   – – the paper's method   ··· autoencoder alone", fontsize=9)
    return {"nets": figure}


def _curves(axes: Axes, nets: Sequence[Outcome], rate: str) -> None:
    for colour, outcome in zip(COLOURS, nets, strict=False):
        for method, line in ((OURS, "-"), ("paper", "--"), ("iterate", ":")):
            rates = [(level, _mean(outcome, level, method, rate)) for level in LEVELS]
            known = [(level, 100 * share) for level, share in rates if share is not None]
            look: Any = {"color": colour, "linestyle": line, "marker": "o", "markersize": 3.5}
            label = outcome.rows[0]["net"] if method == OURS else None
            axes.plot([level for level, _ in known], [share for _, share in known], label=label, **look)
    axes.grid(True)


def _cells(nets: Mapping[str, Net]) -> dict[str, dict[str, Any]]:
    return {name: {"net": net, "task": _TASK} for name, net in nets.items()}


EXPERIMENT = Experiment(
    name="nets",
    what="what comes back of nets of other depth, width and activation, at equal train loss",
    reproduces="nothing of the paper; a question to it",
    differs=(
        NOT_IN_PAPER,
        SMALL,
        OWN_MASKS,
        "`accelerated` is this project's solver. The paper's method (`paper`) has γ = 0.1 with 20 layers and with "
        "PReLU, as published, and 0.5 elsewhere: for other depths and Softplus none is published.",
    ),
    scales={"small": Scale(_cells(_NETS), minutes=8)},
    measure=measure,
    columns=("net", "loss", "split", "mask", "method", "accurate", "approximate", "psnr", "evaluations"),
    draw=_draw,
    tables=_tables,
    pictures=PICTURES,
    on_device=True,
    check_shape=check_shape,
)
