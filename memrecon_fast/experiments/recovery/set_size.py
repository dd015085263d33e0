"""How much comes back of how many images: does their number decide, their number for each unit, or the train loss?"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Pictures, Row, Scale, Table
from memrecon_fast.experiments.figures import COLOURS, new_figure
from memrecon_fast.experiments.recovery.audits import OURS, Task, measure
from memrecon_fast.experiments.recovery.nets import Net, check_shape
from memrecon_fast.experiments.recovery.published import OWN_MASKS, percent
from memrecon_fast.experiments.recovery.small import MASKS, NOT_IN_PAPER, SMALL, small_net

LEVELS = (1e-4, 1e-5, 1e-6, 1e-7)
PARTS = (8, 4, 2, 1)
"""A net knows the first n/8, n/4, n/2 or all n of the members."""
WIDTHS = (96, 192, 384)
_TASK = Task(LEVELS, MASKS, (OURS,), controls=(OURS,))
_OUTCOMES = ("accurate", "approximate")
_PREDICTORS = {
    "train loss": ("loss",),
    "n": ("n",),
    "width": ("width",),
    "n/width": ("n/width",),
    "train loss, n": ("loss", "n"),
    "train loss, n/width": ("loss", "n/width"),
    "train loss, n, width": ("loss", "n", "width"),
}


def _measure(given: Given, net: Net, part: int, task: Task) -> Outcome:
    members, _ = given.images()
    some = members[: len(members) // part]
    outcome = measure(dataclasses.replace(given, members=some), net, task)
    about = {"n": len(some), "width": net.width, "n/width": len(some) / (net.width or 1)}
    return Outcome([about | row for row in outcome.rows], outcome.arrays)


def points(outcomes: Mapping[str, Outcome]) -> list[Row]:
    """One for each net and train loss: the rates of the members, mean over the masks."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for outcome in outcomes.values():
        for row in outcome.rows:
            if row["split"] == "members":
                found.setdefault((row["n"], row["width"], row["loss"]), []).append(row)
    return [
        {
            **{name: rows[0][name] for name in ("n", "width", "n/width", "loss", "level")},
            **{name: float(np.mean([row[name] for row in rows])) for name in _OUTCOMES},
        }
        for rows in found.values()
    ]


def explained(rows: Sequence[Row], outcome: str, predictors: Sequence[str]) -> tuple[float, NDArray[np.float64]]:
    """How much of the variance of a rate the logarithms of these explain by a linear fit (R²), and the change of the
    rate for each factor of ten of each; NaN where the rate is everywhere the same, and where the rows do not tell the
    predictors apart."""
    rates = np.array([row[outcome] for row in rows])
    logs = np.log10(np.array([[row[name] for name in predictors] for row in rows]).reshape(len(rows), len(predictors)))
    columns = np.column_stack([logs, np.ones(len(rows))])
    if len(rows) <= columns.shape[1] or np.linalg.matrix_rank(columns) < columns.shape[1]:
        return float("nan"), np.full(len(predictors), np.nan)
    fit = np.linalg.lstsq(columns, rates, rcond=None)[0]
    spread = float(np.square(rates - rates.mean()).sum())
    left = float(np.square(rates - columns @ fit).sum())
    return (1 - left / spread if spread > 0 else float("nan")), fit[:-1]


def _tables(outcomes: Mapping[str, Outcome]) -> dict[str, Table]:
    rows = points(outcomes)
    lines: list[list[str | float | None]] = [
        [
            row["n"],
            row["width"],
            f"{row['n/width']:.3g}",
            f"{row['loss']:.1e}",
            *(percent(row[one]) for one in _OUTCOMES),
        ]
        for row in rows
    ]
    header = ["n", "width", "n/width", "train loss", *_OUTCOMES]
    said = f"Recovery in % of n members, mean of the masks {', '.join(MASKS)}."
    law: list[list[str | float | None]] = []
    reached = [row for row in rows if row["level"] is not None]
    for outcome, (label, names) in itertools.product(_OUTCOMES, _PREDICTORS.items()):
        share, slopes = explained(reached, outcome, names)
        told = ", ".join(f"{name} {_in_points(slope)}" for name, slope in zip(names, slopes, strict=True))
        law.append([outcome, label, _in_percent(share), told])
    alone = {
        outcome: ", ".join(
            f"{label} {_in_percent(explained(reached, outcome, names)[0])} %"
            for label, names in _PREDICTORS.items()
            if len(names) == 1
        )
        for outcome in _OUTCOMES
    }
    caption = (
        "What decides: the share of the variance of the rate, over the "
        f"{len(reached)} pairs of a net and a loss, that a linear fit in the logarithms explains, and the percentage "
        "points of the rate for each factor of ten. Each alone explains, "
        + "; ".join(f"of {outcome} recovery: {told}" for outcome, told in alone.items())
        + "."
    )
    return {
        "set-size": Table(said, header, lines),
        "set-size-law": Table(caption, ["rate", "by", "explained, %", "points for each factor of ten"], law),
    }


def _in_points(slope: float) -> str:
    return "–" if np.isnan(slope) else f"{100 * slope:+.0f}"


def _in_percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{100 * share:.0f}"


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    rows = points(outcomes)
    widths, sizes = (sorted({row[name] for row in rows}) for name in ("width", "n"))
    markers = dict(zip(widths, "osD^v", strict=False))
    by_level, by_size = (dict(zip(values, COLOURS, strict=False)) for values in (LEVELS, sizes))
    figure = new_figure(11, 5.6)
    panels = figure.subplots(len(_OUTCOMES), 3, sharey=True, sharex="col")
    for outcome, line in zip(_OUTCOMES, panels, strict=True):
        for width, marker in markers.items():
            ours = [row for row in rows if row["width"] == width]
            for axes, name in zip(line, ("n", "n/width"), strict=False):
                for level, colour in by_level.items():
                    _line(axes, [row for row in ours if row["level"] == level], name, outcome, colour + marker)
            for size, colour in by_size.items():
                _line(line[2], [row for row in ours if row["n"] == size], "loss", outcome, colour + marker)
        line[0].set_ylabel(f"% {outcome}")
    for axes, name in zip(panels[-1], ("number of images n", "n / width", "train loss"), strict=True):
        axes.set_xlabel(name)
        axes.set_xscale("log")
    for axes, values in zip(panels[-1], (sizes, sorted({row["n/width"] for row in rows})), strict=False):
        axes.set_xticks(values, [f"{value:.2g}" for value in values])
        axes.minorticks_off()
    panels[-1][2].invert_xaxis()
    panels[0][0].set_ylim(-4, 104)
    shapes = [(f"width {width}", "grey", marker) for width, marker in markers.items()]
    figure.legend(
        handles=[
            Line2D([], [], color=colour, marker=marker, linestyle="" if marker else "-", label=label)
            for label, colour, marker in [
                *((f"loss {level:.0e}", colour, "") for level, colour in by_level.items()),
                *((f"n = {size} (right)", colour, "") for size, colour in by_size.items()),
                *shapes,
            ]
        ],
        loc="outside right center",
        fontsize=8.5,
    )
    return {"set-size": figure}


def _line(axes: Axes, rows: Sequence[Row], name: str, outcome: str, look: str) -> None:
    """look: a colour of seven letters, and a marker."""
    ours = sorted(rows, key=lambda row: row[name])
    rates = [100 * row[outcome] for row in ours]
    axes.plot([row[name] for row in ours], rates, color=look[:7], marker=look[7:], markersize=4, linewidth=0.8)
    axes.grid(True)


def _net(width: int) -> Net:
    return small_net(width=width, training={"max_steps": 2500})


EXPERIMENT = Experiment(
    name="set-size",
    what="how much comes back of how many images, at equal train loss and in nets of several widths",
    reproduces="nothing of the paper; a question to it",
    differs=(
        NOT_IN_PAPER,
        SMALL,
        OWN_MASKS,
        "By this project's solver alone, `accelerated`.",
        "An accurate recovery has an MSE below 1e-7, in the midst of these train losses: that the loss decides is in "
        "part a matter of this threshold.",
    ),
    scales={
        "small": Scale(
            {
                f"width-{width}-part-{part}": {"net": _net(width), "part": part, "task": _TASK}
                for width, part in itertools.product(WIDTHS, PARTS)
            },
            minutes=8,
        )
    },
    measure=_measure,
    columns=("n", "width", "loss", "split", "mask", "method", "accurate", "approximate", "psnr", "evaluations"),
    draw=_draw,
    tables=_tables,
    pictures=Pictures(members=64, controls=16, size=16, fewest=max(PARTS)),
    on_device=True,
    check_shape=check_shape,
)
