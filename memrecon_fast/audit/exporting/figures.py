"""The figures of a run for a paper: rates with 95 % intervals, the rate against the threshold, and members against
controls, as an ROC where there are any and as a histogram otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from memrecon_fast.audit.analysis.comparisons import Comparison, compare_over_masks
from memrecon_fast.audit.analysis.results import Results
from memrecon_fast.audit.analysis.statistics import errors, roc
from memrecon_fast.audit.exporting.files import Drawing
from memrecon_fast.audit.report.charts import CONTROL_COLOUR, INK, colour_of, percent_axis, pool
from memrecon_fast.audit.store.records import MAX_PSNR
from memrecon_fast.common.text import escaped
from memrecon_fast.metrics import ACCURATE_MSE, APPROXIMATE_MSE, THRESHOLD_NAMES, THRESHOLD_PSNRS

WIDTH = 6.5
"""Inches: the text of most papers."""
_ROOM = 112  # %: above 100 there is place for the ends of intervals
_GROUP = 0.8  # of the place of a mask, what its methods take
_LETTERS_OF_LEGEND = 120  # of its size, over the whole width
_LETTERS_OF_HANDLE = 8
_LONGEST_NAME = 24
_LONGEST_LEVEL_NAME = 10
_THRESHOLDS = np.logspace(-10, -1, 361)
_BIN = 4  # dB
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_UNCLIPPED: Any = {"clip_on": False, "solid_capstyle": "butt", "dash_capstyle": "butt"}


def drawings_of(results: Results, summary: Mapping[str, Any]) -> dict[str, Drawing]:
    """The figures by file name: "rates", "thresholds", and "roc" or "psnr". summary: of `make_summary`."""
    panels = len(results.verdicts)
    found = {
        "rates": Drawing(WIDTH, 0.6 + 1.7 * panels, partial(_draw_rates, summary, results.verdicts)),
        "thresholds": Drawing(WIDTH, 2.6, partial(_draw_thresholds, results)),
    }
    comparisons = [] if results.degraded else compare_over_masks(results)
    if comparisons:
        found["roc"] = Drawing(WIDTH, 3.0, partial(_draw_roc, comparisons, results.methods))
    elif not results.degraded:
        found["psnr"] = Drawing(WIDTH, 0.5 + 1.1 * len(results.methods), partial(_draw_psnr, results))
    return found


def name_masks(axes: Axes, masks: Sequence[str]) -> None:
    """Their names below the axes, at an angle where they are long."""
    names = [mask if len(mask) <= _LONGEST_NAME else f"{mask[: _LONGEST_NAME - 1]}…" for mask in map(escaped, masks)]
    axes.set_xticks(np.arange(len(names)), names)
    if max(map(len, names)) > _LONGEST_LEVEL_NAME:
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation=25, rotation_mode="anchor")


def places(number: int, methods: int, masks: int) -> NDArray[np.float64]:
    """Where the method with this number stands, at each mask; methods, masks: how many there are."""
    return np.arange(masks, dtype=np.float64) + (number - (methods - 1) / 2) * _GROUP / methods


def bars(axes: Axes, at: NDArray[np.float64], methods: int, heights: Sequence[float], look: Mapping[str, Any]) -> None:
    """The bars of a method, of the width that `places` leaves."""
    axes.bar(at, heights, 0.9 * _GROUP / methods, zorder=2, **look)


def intervals(heights: Sequence[float], ends: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """(2, n): how far the intervals reach below and above."""
    centre, low_high = np.asarray(heights, np.float64), np.asarray(ends, np.float64).reshape(-1, 2).T
    reach: NDArray[np.float64] = np.maximum(np.stack([centre - low_high[0], low_high[1] - centre]), 0)
    return reach


def title_of(verdict: str) -> str:
    """Of a panel."""
    limit = f" (MSE < {THRESHOLD_NAMES[verdict]})" if verdict in THRESHOLD_NAMES else ""
    return f"{verdict}{limit}"


def percent_of(row: Mapping[str, Any], verdict: str) -> tuple[float, tuple[float, float]]:
    """The rate and its interval in %; NaN where there is none."""
    rate, interval = row.get(f"{verdict}_rate"), row.get(f"{verdict}_interval")
    if rate is None or interval is None:
        return np.nan, (np.nan, np.nan)
    return 100 * rate, (100 * interval[0], 100 * interval[1])


def _draw_rates(summary: Mapping[str, Any], verdicts: Sequence[str], figure: Figure) -> None:
    masks, methods = summary["masks"], summary["methods"]
    rows = {(row["mask"], row["method"], row["split"]): row for row in summary["rows"]}
    aside = 0.15 * _GROUP / len(methods)  # so that both intervals are seen
    panels = figure.subplots(len(verdicts), 1, sharex=True, squeeze=False)[:, 0]
    for axes, verdict in zip(panels, verdicts, strict=True):
        for number, method in enumerate(methods):
            at = places(number, len(methods), len(masks))
            for split in ("members", "controls"):
                found = [percent_of(rows.get((mask, method, split), {}), verdict) for mask in masks]
                heights, ends = [one for one, _ in found], [one for _, one in found]
                if not np.isfinite(heights).any():
                    continue
                reach = intervals(heights, ends)
                if split == "members":
                    bars(axes, at, len(methods), heights, {"color": colour_of(number), "label": method})
                    axes.errorbar(
                        at - aside, heights, reach, fmt="none", ecolor=INK, elinewidth=0.7, capsize=1.5, zorder=3
                    )
                else:
                    look: Any = {"fmt": "D", "markersize": 3, "markerfacecolor": "white", "color": INK, "zorder": 4}
                    look["clip_on"] = False
                    label = None if number else "controls"
                    axes.errorbar(at + aside, heights, reach, elinewidth=0.7, markeredgewidth=0.7, label=label, **look)
        axes.set_title(title_of(verdict))
        percent_axis(axes, top=_ROOM)
    name_masks(panels[-1], masks)
    legend_above(figure, labelled(panels[0]))


def legend_above(figure: Figure, labelled: Sequence[tuple[Any, str]]) -> None:
    """A legend of these handles and labels above the figure, in as many columns as there is place for."""
    if not labelled:  # nothing was drawn, as nothing is known
        return
    handles, labels = zip(*labelled, strict=True)
    columns = max(1, _LETTERS_OF_LEGEND // (max(map(len, labels)) + _LETTERS_OF_HANDLE))
    figure.legend(handles, labels, ncols=columns, loc="outside upper left")


def labelled(axes: Axes) -> list[tuple[Any, str]]:
    """What has a label in these axes, the methods first."""
    handles, labels = axes.get_legend_handles_labels()
    return sorted(zip(handles, labels, strict=True), key=lambda pair: pair[1] in ("controls", "each run"))


def logarithmic(axis: Axis, powers: bool = True) -> None:
    """Ticks of a logarithmic axis as 10⁻⁸, or as plain numbers: without mathematics, which names may seem to hold."""
    axis.set_major_formatter(lambda value, _: _power(value) if powers else f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def _power(value: float) -> str:
    return f"10{str(round(np.log10(value))).translate(_SUPERSCRIPTS)}" if value > 0 else ""


def _draw_thresholds(results: Results, figure: Figure) -> None:
    axes = figure.subplots()
    for split, line in (("members", "-"), ("controls", "--")):
        for number, (method, width) in enumerate(zip(results.methods, _nested(len(results.methods)), strict=True)):
            names = ("mse", "score", "diverged")
            found = errors({name: pool(results.cells, split, method, name) for name in names})
            if len(found):
                rates = 100 * np.searchsorted(np.sort(found), _THRESHOLDS) / len(found)
                look: Any = {"color": colour_of(number), "linewidth": width, **_UNCLIPPED}
                axes.plot(_THRESHOLDS, rates, line, label=f"{method}, {split}", **look)
    if not results.degraded:
        for limit in (ACCURATE_MSE, APPROXIMATE_MSE):
            axes.axvline(limit, color=INK, linestyle=":", linewidth=0.8)
    axes.set_xscale("log")
    logarithmic(axes.xaxis)
    axes.set_xlim(_THRESHOLDS[0], _THRESHOLDS[-1])
    axes.set_xlabel("score below which an image counts" if results.degraded else "MSE that counts as recovered")
    percent_axis(axes)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))


def _draw_roc(comparisons: Sequence[Comparison], methods: Sequence[str], figure: Figure) -> None:
    axes = figure.subplots()
    lows = [min(50 / len(getattr(one, split)) for one in comparisons) for split in ("controls", "members")]
    lows = [min(low, 5.0) for low in lows]  # %: there is no 0 on a logarithmic scale
    for one, width in zip(comparisons, _nested(len(comparisons)), strict=True):
        false, true = _corners(*roc(one.members, one.controls))
        look: Any = {"color": colour_of(methods.index(one.method)), "linewidth": width, **_UNCLIPPED}
        points = ((100 * rates).clip(low) for rates, low in zip((false, true), lows, strict=True))
        axes.plot(*points, drawstyle="steps-post", label=one.method, **look)
    guessing = [max(lows), 100]
    axes.plot(guessing, guessing, ":", color=CONTROL_COLOUR, linewidth=0.8, label="guessing")
    axes.set(xscale="log", yscale="log", xlim=(lows[0], 100), ylim=(lows[1], 100))
    axes.set_xlabel("% of controls below the threshold (false positives)")
    axes.set_ylabel("% of members below it (true positives)")
    for axis in (axes.xaxis, axes.yaxis):
        logarithmic(axis, powers=False)
    axes.grid(True)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))


def _draw_psnr(results: Results, figure: Figure) -> None:
    panels = figure.subplots(len(results.methods), 1, sharex=True, squeeze=False)[:, 0]
    edges = np.arange(0, MAX_PSNR + _BIN, _BIN)
    for number, (axes, method) in enumerate(zip(panels, results.methods, strict=True)):
        values = pool(results.cells, "members", method, "psnr")
        counts, _ = np.histogram(values.clip(edges[0], edges[-1]), edges)
        axes.bar(edges[:-1], 100 * counts / max(len(values), 1), _BIN, align="edge", color=colour_of(number))
        for psnr in THRESHOLD_PSNRS.values():
            axes.axvline(psnr, color=INK, linestyle=":", linewidth=0.8)
        axes.set_title(method)
        axes.set_ylabel("% of images")
    panels[-1].set_xlabel("PSNR of members (dB)")


def _nested(count: int) -> list[float]:
    """The widths of lines in the order in which they are drawn: each is seen around the next, where they coincide."""
    step = min(1.4, 5 / max(count, 1))
    return [1 + step * (count - 1 - number) for number in range(count)]


def _corners(false: NDArray[np.float64], true: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A curve of steps without the points inside its straight parts, of which many images make many."""
    if len(false) < 3:
        return false, true
    level, upright = np.diff(true) == 0, np.diff(false) == 0
    kept = np.concatenate([[True], ~((level[:-1] & level[1:]) | (upright[:-1] & upright[1:])), [True]])
    return false[kept], true[kept]
