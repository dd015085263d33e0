"""The figures of a comparison of runs: the rate against the error of the model, and rates by mask over all runs."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from memrecon_fast.audit.exporting.figures import (
    WIDTH,
    bars,
    intervals,
    labelled,
    legend_above,
    logarithmic,
    name_masks,
    percent_of,
    places,
    title_of,
)
from memrecon_fast.audit.exporting.files import Drawing
from memrecon_fast.audit.exporting.side_by_side import OVER_MASKS, SideBySide
from memrecon_fast.audit.report.charts import INK, colour_of, percent_axis

_MARKERS = "osv^Pd*X"
"""Of the groups."""
_ROOM = 112  # %


def drawings_of(side: SideBySide) -> dict[str, Drawing]:
    """By file name: "rate-against-error", where two runs have errors that a logarithmic axis can show, and "masks"."""
    found = {}
    if len(_drawn(side)) > 1:
        found["rate-against-error"] = Drawing(WIDTH, 2.9, partial(_draw_errors, side))
    height = 0.6 + 1.7 * len(side.verdicts)
    for number, group in enumerate(side.groups):
        name = "masks" if len(side.groups) == 1 else f"masks-{number + 1}"
        found[name] = Drawing(WIDTH, height, partial(_draw_masks, side, group))
    return found


def _drawn(side: SideBySide) -> dict[str, float]:
    """The errors that a logarithmic axis can show, by run."""
    return {run.label: run.error for run in side.runs if run.error is not None and 0 < run.error < math.inf}


def _draw_errors(side: SideBySide, figure: Figure) -> None:
    """Members filled, with 95 % intervals, controls hollow; the runs of a method are joined in the order of errors,
    where they are not said to be repetitions of several things."""
    drawn = _drawn(side)
    panels = figure.subplots(1, len(side.verdicts), sharey=True, squeeze=False)[0]
    ordered = sorted((run for run in side.runs if run.label in drawn), key=lambda run: drawn[run.label])
    for axes, verdict in zip(panels, side.verdicts, strict=True):
        for number, method in enumerate(side.methods):
            for which, group in enumerate(side.groups):
                runs = [run for run in ordered if run.group == group]
                at = [drawn[run.label] for run in runs]
                for split in side.images:
                    found = [percent_of(side.row(run.label, OVER_MASKS, method, split), verdict) for run in runs]
                    rates = [rate for rate, _ in found]
                    members = split == "members"
                    look: Any = {
                        "color": colour_of(number),
                        "marker": _MARKERS[which % len(_MARKERS)],
                        "markerfacecolor": colour_of(number) if members else "white",
                        "linestyle": "" if len(side.groups) > 1 else "-" if members else ":",
                    }
                    axes.errorbar(
                        at, rates, intervals(rates, [ends for _, ends in found]), markersize=3.5, linewidth=0.8,
                        elinewidth=0.6, capsize=1.5, **look,
                    )  # fmt: skip
        axes.set_xscale("log")
        logarithmic(axes.xaxis)
        axes.set_xlabel("error of the model on its members (MSE)")
        axes.set_title(title_of(verdict))
        percent_axis(axes, top=_ROOM)
    for axes in panels[1:]:
        axes.set_ylabel("")
    legend_above(figure, _legend_of_errors(side))


def _legend_of_errors(side: SideBySide) -> list[tuple[Line2D, str]]:
    """Colours are methods, markers groups, hollow markers controls."""
    marker = _MARKERS[0] if len(side.groups) == 1 else ""
    found = [
        (Line2D([], [], color=colour_of(number), marker=marker, markersize=3.5, linewidth=0.8), method)
        for number, method in enumerate(side.methods)
    ]
    look: Any = {"color": INK, "linestyle": "", "markersize": 3.5}
    if len(side.groups) > 1:
        for which, group in enumerate(side.groups):
            found.append((Line2D([], [], marker=_MARKERS[which % len(_MARKERS)], **look), group or "without a name"))
    if "controls" in side.images:
        found.append((Line2D([], [], marker=_MARKERS[0], markerfacecolor="white", **look), "controls"))
    return found


def _draw_masks(side: SideBySide, group: str, figure: Figure) -> None:
    """Bars: the mean over the runs of a group, of members; dots: each run; diamonds: the mean over controls."""
    panels = figure.subplots(len(side.verdicts), 1, sharex=True, squeeze=False)[:, 0]
    runs = [run for run in side.runs if run.group == group]
    for axes, verdict in zip(panels, side.verdicts, strict=True):
        for number, method in enumerate(side.methods):
            at = places(number, len(side.methods), len(side.masks))
            means = {
                split: [
                    _percent(side.spread_of(group, mask, method, split).get(f"{verdict}_mean")) for mask in side.masks
                ]
                for split in side.images
            }
            bars(axes, at, len(side.methods), means["members"], {"color": colour_of(number), "label": method})
            if len(runs) > 1:
                for which, run in enumerate(runs):
                    rates = [
                        _percent(side.row(run.label, mask, method, "members").get(f"{verdict}_rate"))
                        for mask in side.masks
                    ]
                    label = "each run" if number == which == 0 else None
                    axes.plot(at + _aside(which, len(runs)), rates, ".", color=INK, markersize=3, label=label, zorder=4)
            if "controls" in means:
                look: Any = {"markersize": 3, "markerfacecolor": "white", "color": INK, "clip_on": False, "zorder": 3}
                axes.plot(at, means["controls"], "D", label=None if number else "controls", **look)
        axes.set_title(", ".join(filter(None, (title_of(verdict), group))))
        percent_axis(axes, top=_ROOM)
    name_masks(panels[-1], side.masks)
    legend_above(figure, labelled(panels[0]))


def _aside(which: int, runs: int) -> float:
    """Dots of equal height are seen beside each other."""
    return 0.02 * (which - (runs - 1) / 2)


def _percent(rate: float | None) -> float:
    return np.nan if rate is None else 100 * rate
