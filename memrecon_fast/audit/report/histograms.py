"""Histograms as SVG text, a panel for each method, members against controls: PSNR, iterations and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from memrecon_fast.audit.analysis.recognition import Recognition
from memrecon_fast.audit.analysis.results import Results
from memrecon_fast.audit.report.charts import CONTROL_COLOUR, INK, colour_of, new_figure, pool, to_svg
from memrecon_fast.audit.store.records import MAX_PSNR, Cell, Columns
from memrecon_fast.metrics import THRESHOLD_PSNRS

MAX_LINEAR = 40
"""Outer iterations: where one image took more, the axis is logarithmic."""
_GROWTH = 1.2  # of the widths of bins on a logarithmic axis
SCORE_EDGES = np.logspace(-14, 0, 43)
"""Of the bins of scores; values beyond are counted in the first or the last bin."""
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def draw_psnr(cells: Mapping[Cell, Columns], methods: Sequence[str]) -> str:
    """How PSNR is distributed, for each method over all masks."""
    edges = np.arange(0, MAX_PSNR + 4, 4)
    with new_figure(8.5, 2.1 * len(methods) + 0.6) as figure:
        panels = figure.subplots(len(methods), 1, sharex=True, squeeze=False)[:, 0]
        for number, (axes, method) in enumerate(zip(panels, methods, strict=True)):
            _histogram(axes, cells, number, method, "psnr", edges)
            for psnr in THRESHOLD_PSNRS.values():
                axes.axvline(psnr, color=INK, linestyle=":", linewidth=1.2)
        for name, psnr in THRESHOLD_PSNRS.items():
            panels[0].annotate(
                f"{name} →",
                (psnr, 1),
                (3, -3),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                va="top",
                fontsize=9,
            )
        panels[-1].set_xlabel("PSNR (dB)")
        return to_svg(figure)


def draw_iterations(cells: Mapping[Cell, Columns], methods: Sequence[str], members: str = "members") -> str:
    """How many outer iterations the recoveries took, for each method over all masks. members: what to call these."""
    with new_figure(8.5, 2.3 * len(methods) + 0.4) as figure:
        panels = figure.subplots(len(methods), 1, squeeze=False)[:, 0]
        for number, (axes, method) in enumerate(zip(panels, methods, strict=True)):
            most = max(
                pool(cells, split, method, "outer_iterations").max(initial=1) for split in ("members", "controls")
            )
            edges = iteration_edges(int(most))
            _histogram(axes, cells, number, method, "outer_iterations", edges, members)
            if most > MAX_LINEAR:
                axes.set_xscale("log")
            axes.set_xlim(edges[0], edges[-1])
            ticks = _ticks(int(most))
            axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
            axes.set_xticks([], minor=True)
        panels[-1].set_xlabel("outer iterations (applications of the autoencoder for iterate)")
        return to_svg(figure)


def draw_scores(results: Results, recognitions: Mapping[tuple[str, str], Recognition]) -> str:
    """How the scores are distributed over all masks: recovered members, other members, and controls without
    near-duplicates; dotted lines are the thresholds. Where the originals are unknown, members are not divided."""
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
                axes.axvline(max(threshold, SCORE_EDGES[0]), color=INK, linestyle=":", linewidth=1.2)
            axes.set_title(method)
            axes.set_ylabel("% of images")
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
            axes.grid(True, axis="y")
            axes.set_axisbelow(True)
        panels[-1].set_xscale("log")
        panels[-1].set_xlim(SCORE_EDGES[0], SCORE_EDGES[-1])
        powers = range(-14, 1, 2)
        panels[-1].set_xticks([10.0**power for power in powers], [f"10{_superscript(power)}" for power in powers])
        panels[-1].set_xticks([], minor=True)
        panels[-1].set_xlabel("score: ‖f(x) − x‖²/d + ‖y − Hx‖²/d")
        return to_svg(figure)


def iteration_edges(most: int) -> NDArray[np.float64]:
    """The edges of bins for the integers 1 … most: one for each, or wider ones for larger numbers."""
    if most <= MAX_LINEAR:
        return np.arange(max(most, 10) + 1, dtype=np.float64) + 0.5
    first = [1]  # of each bin
    while first[-1] <= most:
        first.append(max(first[-1] + 1, round(first[-1] * _GROWTH)))
    return np.array(first, np.float64) - 0.5


def _histogram(
    axes: Axes,
    cells: Mapping[Cell, Columns],
    number: int,
    method: str,
    column: str,
    edges: NDArray[np.float64],
    members: str = "members",
) -> None:
    for split, label, colour in (("controls", "controls", CONTROL_COLOUR), ("members", members, colour_of(number))):
        values = pool(cells, split, method, column)
        if len(values):
            counts, _ = np.histogram(values.clip(edges[0], edges[-1]), edges)
            look: Any = {"align": "edge", "color": colour, "alpha": 0.75, "label": label}
            axes.bar(edges[:-1], 100 * counts / len(values), np.diff(edges), **look)
    axes.set_title(method)
    axes.set_ylabel("% of images")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    axes.grid(True, axis="y")
    axes.set_axisbelow(True)


def _ticks(most: int) -> list[int]:
    if most <= MAX_LINEAR:
        return list(range(1, max(most, 10) + 1, 1 if most <= 20 else 3))
    decades = [10**power for power in range(int(np.log10(most)) + 1)]
    return [tick for decade in decades for tick in (decade, 2 * decade, 5 * decade) if tick <= most]


def _bars(
    axes: Axes, scores: NDArray[np.float64], label: str, look: dict[str, Any], of: int | None = None
) -> NDArray[np.float64]:
    """Draw the histogram in percent of `of` images, or of all of these; returns the heights."""
    counts, _ = np.histogram(scores.clip(SCORE_EDGES[0], SCORE_EDGES[-1]), SCORE_EDGES)
    heights: NDArray[np.float64] = 100 * counts / max(1, len(scores) if of is None else of)
    if len(scores):
        axes.bar(SCORE_EDGES[:-1], heights, np.diff(SCORE_EDGES), align="edge", alpha=0.75, label=label, **look)
    return heights


def _approximate(results: Results, one: Recognition) -> NDArray[np.bool_]:
    columns = results.cells.get(Cell("members", one.mask, one.method))
    return np.zeros(0, bool) if columns is None else columns["approximate"].astype(bool)


def _superscript(number: int) -> str:
    return str(number).translate(_SUPERSCRIPTS)
