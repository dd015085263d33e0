"""The chart of the scores by which images are recognized, a panel for each method; as SVG text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from memrecon_fast.audit.analysis.recognitions import Recognition
from memrecon_fast.audit.analysis.results import Results
from memrecon_fast.audit.report.drawing import CONTROL_COLOUR, INK, colour_of, new_figure, to_svg
from memrecon_fast.audit.store.records import Cell

EDGES = np.logspace(-14, 0, 43)
"""Of the bins; what lies beyond is in the first or the last."""
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def draw_scores(results: Results, recognitions: Mapping[tuple[str, str], Recognition]) -> str:
    """How the scores are distributed over all masks: members that came back, members that did not, and controls but
    for near-duplicates; dotted lines are the thresholds. Where the originals are unknown, members are not divided."""
    methods = list(dict.fromkeys(method for _, method in recognitions))
    with new_figure(8.5, 2.1 * len(methods) + 0.6) as figure:
        panels = figure.subplots(len(methods), 1, sharex=True, squeeze=False)[:, 0]
        for axes, method in zip(panels, methods, strict=True):
            ours = [one for (_, of), one in recognitions.items() if of == method]
            colour = colour_of(results.methods.index(method))
            members = np.concatenate([one.members for one in ours])
            _bars(axes, np.concatenate([one.controls for one in ours]), "controls", {"color": CONTROL_COLOUR})
            if results.degraded:
                _bars(axes, members, "images", {"color": colour})
            else:
                back = np.concatenate([_approximate(results, one) for one in ours])
                bottom = _bars(axes, members[back], "members, recovered", {"color": colour}, of=len(members))
                look = {"color": "white", "edgecolor": colour, "hatch": "////", "bottom": bottom}
                _bars(axes, members[~back], "members, not recovered", look, of=len(members))
            for threshold in {one.calibration.threshold for one in ours}:
                axes.axvline(max(threshold, EDGES[0]), color=INK, linestyle=":", linewidth=1.2)
            axes.set_title(method)
            axes.set_ylabel("% of images")
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
            axes.grid(True, axis="y")
            axes.set_axisbelow(True)
        panels[-1].set_xscale("log")
        panels[-1].set_xlim(EDGES[0], EDGES[-1])
        powers = range(-14, 1, 2)
        panels[-1].set_xticks([10.0**power for power in powers], [f"10{_superscript(power)}" for power in powers])
        panels[-1].set_xticks([], minor=True)
        panels[-1].set_xlabel("score: ‖f(x) − x‖²/d + ‖y − Hx‖²/d")
        return to_svg(figure)


def _bars(
    axes: Axes, scores: NDArray[np.float64], label: str, look: dict[str, Any], of: int | None = None
) -> NDArray[np.float64]:
    """The histogram in percent of so many images, or all of these; returns the heights."""
    counts, _ = np.histogram(scores.clip(EDGES[0], EDGES[-1]), EDGES)
    heights: NDArray[np.float64] = 100 * counts / max(1, len(scores) if of is None else of)
    if len(scores):
        axes.bar(EDGES[:-1], heights, np.diff(EDGES), align="edge", alpha=0.75, label=label, **look)
    return heights


def _approximate(results: Results, one: Recognition) -> NDArray[np.bool_]:
    columns = results.cells.get(Cell("members", one.mask, one.method))
    return np.zeros(0, bool) if columns is None else columns["approximate"].astype(bool)


def _superscript(number: int) -> str:
    return str(number).translate(_SUPERSCRIPTS)
