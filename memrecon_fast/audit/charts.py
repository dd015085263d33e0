"""The charts of a report, as SVG text. Colours tell apart for every kind of colour vision (Okabe & Ito)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from memrecon_fast.audit.records import MOST_PSNR, Cell, Columns
from memrecon_fast.audit.statistics import roc
from memrecon_fast.audit.thresholds import NAMES, PSNRS
from memrecon_fast.metrics import ACCURATE_MSE, APPROXIMATE_MSE

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
CONTROL_COLOUR = "#8a8a8a"
INK = "#222222"
THRESHOLDS = np.logspace(-8, -2, 241)
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.hashsalt": "memrecon",  # the same run gives the same report
    "grid.color": "#e4e4e4",
    "text.parse_math": False,  # masks have the names of people's files
}


def draw_rates(rows: Sequence[Mapping[str, Any]], masks: Sequence[str], methods: Sequence[str]) -> str:
    """Rates by mask and method: bars for the members, diamonds for the controls. rows: of `summary.json`."""
    found = {(row["split"], row["mask"], row["method"]): row for row in rows}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(8.5, 0.45 * len(masks) * len(methods) + 1), 6.6), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True)
        for axes, measure, title in (
            (upper, "approximate_rate", f"Approximate recovery (MSE < {NAMES['approximate']})"),
            (lower, "accurate_rate", f"Accurate recovery (MSE < {NAMES['accurate']})"),
        ):
            width = 0.8 / len(methods)
            for number, method in enumerate(methods):
                at = np.arange(len(masks)) + (number - (len(methods) - 1) / 2) * width
                heights = [_percent(found.get(("members", mask, method)), measure) for mask in masks]
                colour = COLOURS[number % len(COLOURS)]
                axes.bar(at, heights, 0.9 * width, color=colour, label=method, zorder=2)
                for x, height in zip(at, heights, strict=True):
                    if np.isfinite(height):
                        axes.annotate(
                            f"{height:.0f}", (x, height), (0, 5), textcoords="offset points", ha="center", fontsize=9
                        )
                controls = [_percent(found.get(("controls", mask, method)), measure) for mask in masks]
                if np.isfinite(controls).any():
                    label = "controls" if number == 0 else None
                    axes.plot(
                        at,
                        controls,
                        "D",
                        color="white",
                        markeredgecolor=INK,
                        markersize=5,
                        label=label,
                        zorder=3,
                        clip_on=False,
                    )
            axes.set_title(title, pad=10)
            _percent_axis(axes, top=108)  # room for the numbers on the bars
        lower.set_xticks(np.arange(len(masks)), masks)
        figure.legend(*_ordered_legend(upper), ncols=len(methods) + 1, loc="outside upper left")
        return _to_svg(figure)


def draw_psnr(cells: Mapping[Cell, Columns], methods: Sequence[str]) -> str:
    """How PSNR is distributed, for each method over all masks: members against controls."""
    edges = np.arange(0, MOST_PSNR + 4, 4)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 2.1 * len(methods) + 0.6), layout="constrained")
        panels = figure.subplots(len(methods), 1, sharex=True, squeeze=False)[:, 0]
        for number, (axes, method) in enumerate(zip(panels, methods, strict=True)):
            for split, colour in (("controls", CONTROL_COLOUR), ("members", COLOURS[number % len(COLOURS)])):
                values = _pool(cells, split, method, "psnr")
                if len(values):
                    shares = np.full(len(values), 100 / len(values))
                    axes.hist(values.clip(0, MOST_PSNR), edges, weights=shares, color=colour, alpha=0.75, label=split)
            for psnr in PSNRS.values():
                axes.axvline(psnr, color=INK, linestyle=":", linewidth=1.2)
            axes.set_title(method)
            axes.set_ylabel("% of images")
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="upper right")
            axes.grid(True, axis="y")
            axes.set_axisbelow(True)
        for name, psnr in PSNRS.items():
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
        return _to_svg(figure)


def draw_thresholds(cells: Mapping[Cell, Columns], methods: Sequence[str]) -> str:
    """The share of images recovered, over all masks, as a function of the MSE that still counts as recovered."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 4.2), layout="constrained")
        axes = figure.subplots()
        for number, method in enumerate(methods):
            for split, line in (("members", "-"), ("controls", "--")):
                mse = _pool_errors(cells, split, method)
                if len(mse):
                    ordered = np.sort(mse)
                    rates = 100 * np.searchsorted(ordered, THRESHOLDS) / len(ordered)
                    axes.plot(
                        THRESHOLDS,
                        rates,
                        line,
                        color=COLOURS[number % len(COLOURS)],
                        linewidth=2,
                        label=f"{method}, {split}",
                        clip_on=False,
                    )
        for mse_limit, name in ((ACCURATE_MSE, "accurate"), (APPROXIMATE_MSE, "approximate")):
            axes.axvline(mse_limit, color=INK, linestyle=":", linewidth=1.2)
            axes.annotate(
                name,
                (mse_limit, 1.0),
                (0, 4),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="center",
                fontsize=9,
            )
        axes.set_xscale("log")
        axes.set_xlim(THRESHOLDS[0], THRESHOLDS[-1])
        axes.set_xticks(
            [1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2], ["10⁻⁸", "10⁻⁷", "10⁻⁶", "10⁻⁵", "10⁻⁴", "10⁻³", "10⁻²"]
        )
        axes.set_xlabel("MSE that counts as recovered")
        _percent_axis(axes)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        return _to_svg(figure)


def draw_roc(cells: Mapping[Cell, Columns], methods: Sequence[str]) -> str:
    """The ROC of each method over all masks: members that an MSE threshold finds against controls that it finds."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 4.2), layout="constrained")
        axes = figure.subplots()
        for number, method in enumerate(methods):
            members, controls = (_pool_errors(cells, split, method) for split in ("members", "controls"))
            if len(members) and len(controls):
                false, true = roc(members, controls)
                look: dict[str, Any] = {"linewidth": 2, "drawstyle": "steps-post", "clip_on": False}
                axes.plot(100 * false, 100 * true, color=COLOURS[number % len(COLOURS)], label=method, **look)
        axes.plot([0, 100], [0, 100], ":", color="#999999", linewidth=1.2, label="guessing")
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of controls below the threshold")
        _percent_axis(axes)
        axes.set_ylabel("% of members below it")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        return _to_svg(figure)


def _pool_errors(cells: Mapping[Cell, Columns], split: str, method: str) -> NDArray[Any]:
    """The MSEs over all masks, infinite where an image diverged."""
    lost = _pool(cells, split, method, "diverged").astype(bool)
    return np.where(lost, np.inf, _pool(cells, split, method, "mse"))


def _pool(cells: Mapping[Cell, Columns], split: str, method: str, column: str) -> NDArray[Any]:
    parts = [columns[column] for cell, columns in cells.items() if (cell.split, cell.method) == (split, method)]
    return np.concatenate(parts) if parts else np.empty(0)


def _percent(row: Mapping[str, Any] | None, measure: str) -> float:
    return float("nan") if row is None else 100 * float(row[measure])


def _ordered_legend(axes: Axes) -> tuple[list[Any], list[str]]:
    """Handles and labels, the methods first."""
    pairs = sorted(zip(*axes.get_legend_handles_labels(), strict=True), key=lambda pair: pair[1] == "controls")
    return [handle for handle, _ in pairs], [label for _, label in pairs]


def _percent_axis(axes: Axes, top: float = 100) -> None:
    axes.set_ylim(0, top)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.set_ylabel("% of images")
    axes.grid(True, axis="y")
    axes.set_axisbelow(True)


def _to_svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
