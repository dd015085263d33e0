"""Charts of a reconstruction as SVG text, in the style of all reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter

from memrecon_fast.audit.report.charts import COLOURS, CONTROL_COLOUR, INK, new_figure, to_svg
from memrecon_fast.reconstruction.verdicts import Verdict

VERDICT_COLOURS = {"found": COLOURS[2], "likely": COLOURS[1], "doubtful": COLOURS[5]}
_LEAST = 1e-17
_LINE: Any = {"color": INK, "linestyle": ":", "linewidth": 1.2}


def draw_shares(target: Mapping[str, Any], tolerance: float) -> str:
    """By how much ‖r‖² would rise without each input, and where that would not be seen. target: of the summary."""
    with new_figure(8.5, 3.4) as figure:
        axes = figure.subplots()
        shares = np.array([max(row["share"], _LEAST) for row in target["inputs"]])
        verdicts = np.array([row["verdict"] for row in target["inputs"]])
        for verdict in (one.name.lower() for one in Verdict):
            at = np.flatnonzero(verdicts == verdict)
            if len(at):
                axes.scatter(at + 1, shares[at], 28, color=VERDICT_COLOURS[verdict], label=verdict, zorder=3)
        axes.axhline(tolerance**2, label="not seen below", **_LINE)
        axes.set_xlabel("input, by falling share")
        axes.set_ylabel("share of ‖θ‖² that needs it")
        _logarithmic(axes)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        return to_svg(figure)


def draw_feature_residuals(target: Mapping[str, Any]) -> str:
    """How much of each true image's features lies outside the span of what was found: the paper's Figure 2."""
    with new_figure(8.5, 3.4) as figure:
        axes = figure.subplots()
        residual = np.array(target["truth"]["feature_residual"]).clip(_LEAST, None)
        axes.scatter(np.arange(len(residual)) + 1, residual, 28, color=COLOURS[0], zorder=3)
        axes.axhline(1, label="nothing of it", **_LINE)
        axes.set_xlabel("training image")
        axes.set_ylabel("‖P⊥ φ(x)‖/‖φ(x)‖")
        _logarithmic(axes)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        return to_svg(figure)


def draw_law(summary: Mapping[str, Any]) -> str:
    """The error of the inputs, and that on the labels, against p, and both thresholds: the paper's Figures 1 and 3."""
    targets = [target for target in summary["targets"] if target["done"] and target["truth"] is not None]
    law = summary["law"]
    with new_figure(8.5, 4.2) as figure:
        axes = figure.subplots()
        p, error = np.array(law["training_error"]).T
        axes.plot(p, error, color=CONTROL_COLOUR, marker="s", markersize=4, label="error on the labels (MSE)")
        at = [target["p"] for target in targets]
        rho = [target["truth"]["error"] for target in targets]
        axes.plot(at, rho, color=COLOURS[0], marker="o", label="error of the inputs, ρ")
        n, unknowns = law["inputs"], law["inputs"] * targets[0]["d"]
        top = 1.5
        for place, name in ((n, "p = n"), (unknowns, "p = d·n")):
            axes.axvline(place, **_LINE)
            axes.annotate(name, (place, top), (4, -4), textcoords="offset points", va="top")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(-0.04, top)
        axes.set_xlabel("parameters p")
        axes.set_ylabel("error")
        axes.grid(True)
        axes.set_axisbelow(True)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        return to_svg(figure)


def _logarithmic(axes: Axes) -> None:
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, high / 1e3), high)  # or there might be no number on the axis
    axes.yaxis.set_major_formatter("{x:.0e}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(True)
    axes.set_axisbelow(True)
