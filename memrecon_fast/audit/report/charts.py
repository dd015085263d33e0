"""Charts as SVG text: rates by mask and method, against the threshold, and members against controls.

With what all charts of a report share: colours, style, axes. The colours can be told apart with every kind of colour
vision (Okabe & Ito).
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from memrecon_fast.audit.analysis.comparisons import Comparison
from memrecon_fast.audit.analysis.statistics import FALSE_POSITIVE_RATES, errors, roc
from memrecon_fast.audit.store.records import Cell, Columns
from memrecon_fast.common.text import escaped
from memrecon_fast.metrics import ACCURATE_MSE, APPROXIMATE_MSE, THRESHOLD_NAMES

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
CONTROL_COLOUR = "#8a8a8a"
INK = "#222222"
DARK = {INK: "#e4e6e8", "#ffffff": "#16191d", "#999999": "#7d858d", "#e4e4e4": "#30363c", COLOURS[0]: "#3f9fe0"}
"""What colours become where the reader prefers a dark page; the others are seen well on both."""
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
    "text.parse_math": False,  # masks are named like files, which may hold a $
}
_UNCLIPPED: Any = {"clip_on": False, "solid_capstyle": "butt", "dash_capstyle": "butt"}
_MOST_OF_AXIS = 5.0  # %: a logarithmic axis begins here at the latest
THRESHOLDS = np.logspace(-8, -2, 241)
LONGEST_NAME = 28
"""Characters of a mask's name; longer ones are cut, the table has all of it."""
LONGEST_LEVEL_NAME = 12
"""Names longer than this are drawn at an angle."""
LINE_WIDTH = 1.6
WIDER = 2.2
"""By so much a line is wider than the one that is drawn over it, so that of lines that coincide all are seen."""


def draw_rates(rows: Sequence[Mapping[str, Any]], masks: Sequence[str], methods: Sequence[str]) -> str:
    """Rates by mask and method: bars for the members, diamonds for the controls. rows: of `summary.json`."""
    found = {(row["split"], row["mask"], row["method"]): row for row in rows}
    with new_figure(max(8.5, 0.45 * len(masks) * len(methods) + 1), 6.6) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True)
        for axes, measure, title in (
            (upper, "approximate_rate", f"Approximate recovery (MSE < {THRESHOLD_NAMES['approximate']})"),
            (lower, "accurate_rate", f"Accurate recovery (MSE < {THRESHOLD_NAMES['accurate']})"),
        ):
            width = 0.8 / len(methods)
            for number, method in enumerate(methods):
                at = np.arange(len(masks)) + (number - (len(methods) - 1) / 2) * width
                heights = [_percent(found.get(("members", mask, method)), measure) for mask in masks]
                axes.bar(at, heights, 0.9 * width, color=colour_of(number), label=method, zorder=2)
                for x, height in zip(at, heights, strict=True):
                    if np.isfinite(height):
                        axes.annotate(
                            f"{height:.0f}", (x, height), (0, 5), textcoords="offset points", ha="center", fontsize=9
                        )
                controls = [_percent(found.get(("controls", mask, method)), measure) for mask in masks]
                if np.isfinite(controls).any():
                    look: Any = {"color": "white", "markeredgecolor": INK, "markersize": 5, "clip_on": False}
                    axes.plot(at, controls, "D", label="controls" if number == 0 else None, zorder=3, **look)
            axes.set_title(title, pad=10)
            percent_axis(axes, top=108)  # room for the numbers on the bars
        names = [mask if len(mask) <= LONGEST_NAME else f"{mask[: LONGEST_NAME - 1]}…" for mask in map(escaped, masks)]
        lower.set_xticks(np.arange(len(masks)), names)
        if max(map(len, names)) > LONGEST_LEVEL_NAME:
            lower.tick_params(axis="x", labelrotation=25)
            for label in lower.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
        figure.legend(*_ordered_legend(upper), ncols=len(methods) + 1, loc="outside upper left")
        return to_svg(figure)


def draw_thresholds(cells: Mapping[Cell, Columns], methods: Sequence[str]) -> str:
    """The share of images recovered, over all masks, as a function of the MSE that still counts as recovered."""
    with new_figure(8.5, 4.2) as figure:
        axes = figure.subplots()
        for split in ("members", "controls"):
            for number, (method, width) in enumerate(zip(methods, nested_widths(len(methods)), strict=True)):
                mse = errors({name: pool(cells, split, method, name) for name in ("mse", "diverged")})
                if len(mse):
                    rates = 100 * np.searchsorted(np.sort(mse), THRESHOLDS) / len(mse)
                    dashes = "-" if split == "members" else (0, (7 / width, 4 / width))  # in widths of the line
                    look: Any = {"color": colour_of(number), "linewidth": width, "linestyle": dashes, **_UNCLIPPED}
                    axes.plot(THRESHOLDS, rates, label=f"{method}, {split}", **look)
        for mse_limit, name in ((ACCURATE_MSE, "accurate"), (APPROXIMATE_MSE, "approximate")):
            axes.axvline(mse_limit, color=INK, linestyle=":", linewidth=1.2)
            _above(axes, mse_limit, name)
        axes.set_xscale("log")
        axes.set_xlim(THRESHOLDS[0], THRESHOLDS[-1])
        axes.set_xticks(
            [1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2], ["10⁻⁸", "10⁻⁷", "10⁻⁶", "10⁻⁵", "10⁻⁴", "10⁻³", "10⁻²"]
        )
        axes.set_xlabel("MSE that counts as recovered")
        percent_axis(axes)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        return to_svg(figure)


def draw_roc(comparisons: Sequence[Comparison], methods: Sequence[str]) -> str:
    """The ROC of each comparison over masks, both axes logarithmic: members that an MSE threshold finds against
    controls that it finds. What lies below one image's share is drawn at the edge."""
    lows = [min(50 / len(getattr(one, split)) for one in comparisons) for split in ("controls", "members")]
    lows = [min(low, _MOST_OF_AXIS) for low in lows]  # %; there is no 0 on a logarithmic scale
    with new_figure(8.5, 4.6) as figure:
        axes = figure.subplots()
        for width, one in zip(nested_widths(len(comparisons)), comparisons, strict=True):
            points = corners(*roc(one.members, one.controls))
            false, true = ((100 * rates).clip(low) for rates, low in zip(points, lows, strict=True))
            colour = colour_of(methods.index(one.method))
            look: Any = {"drawstyle": "steps-post", "linewidth": width, **_UNCLIPPED}
            axes.plot(false, true, color=colour, label=one.method, **look)
        guessing = np.geomspace(max(lows), 100, 2)
        axes.plot(guessing, guessing, ":", color="#999999", linewidth=1.2, label="guessing")
        for rate in FALSE_POSITIVE_RATES:
            if 100 * rate > lows[0]:
                axes.axvline(100 * rate, color=INK, linestyle=":", linewidth=1.2)
                _above(axes, 100 * rate, f"{100 * rate:g} %")
        axes.set(xscale="log", yscale="log", xlim=(lows[0], 100), ylim=(lows[1], 100))
        for axis, low in zip((axes.xaxis, axes.yaxis), lows, strict=True):
            ticks = _ticks(low)
            axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.set_ticks([], minor=True)
        axes.grid(True)
        axes.set_axisbelow(True)
        axes.set_xlabel("% of controls below the threshold (false positives)")
        axes.set_ylabel("% of members below it (true positives)")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        return to_svg(figure)


def nested_widths(count: int) -> list[float]:
    """The widths of lines in the order in which they are drawn: each is wider than the next, and seen around it."""
    step = min(WIDER, 8 / max(count, 1))
    return [LINE_WIDTH + step * (count - 1 - number) for number in range(count)]


def corners(false: NDArray[np.float64], true: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A curve of steps without the points that lie on a straight part of it; false, true: both ascending."""
    level, upright = np.diff(true) == 0, np.diff(false) == 0
    between = (level[:-1] & level[1:]) | (upright[:-1] & upright[1:])
    kept = np.concatenate([[True], ~between, [True]]) if len(false) > 1 else np.ones(len(false), bool)
    return false[kept], true[kept]


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """A figure of this size in inches, in the style of the reports, which applies inside the block."""
    with mpl.rc_context(STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def to_svg(figure: Figure) -> str:
    """The figure as SVG text, the same each time."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # in a mask's name, which the table has as well
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    head, tail = buffer.getvalue().split("</defs>", 1)
    return f"{head}{_dark_style()}</defs>{tail}"


def percent_axis(axes: Axes, top: float = 100) -> None:
    """Give the axes a vertical scale from 0 to 100 % of images."""
    axes.set_ylim(0, top)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.set_ylabel("% of images")
    axes.grid(True, axis="y")
    axes.set_axisbelow(True)


def pool(cells: Mapping[Cell, Columns], split: str, method: str, column: str) -> NDArray[Any]:
    """A column of the records of a split and method, over all masks."""
    parts = [columns[column] for cell, columns in cells.items() if (cell.split, cell.method) == (split, method)]
    return np.concatenate(parts) if parts else np.empty(0)


def colour_of(number: int) -> str:
    """The colour of the method with this number."""
    return COLOURS[number % len(COLOURS)]


def _dark_style() -> str:
    """The colours of `DARK`, for browsers: they stand in the attributes of each shape, and of the tiles of a hatch."""
    rules = (
        f'[style*="{what}: {light.lower()}"], [{what}="{light.lower()}"] {{ {what}: {dark} !important; }}'
        for light, dark in DARK.items()
        for what in ("fill", "stroke")
    )
    return f"<style>@media (prefers-color-scheme: dark) {{ {' '.join(rules)} }}</style>"


def _ticks(low: float) -> list[float]:
    """Of a logarithmic axis from `low` to 100 %."""
    digits = (1, 2, 5) if low > 0.5 else (1,)
    decades = range(int(np.floor(np.log10(low))), 3)
    return [tick for power in decades for digit in digits if low <= (tick := digit * 10.0**power) <= 100]


def _above(axes: Axes, x: float, text: str) -> None:
    """Write above a vertical line."""
    axes.annotate(
        text, (x, 1.0), (0, 4), xycoords=("data", "axes fraction"), textcoords="offset points", ha="center", fontsize=9
    )


def _percent(row: Mapping[str, Any] | None, measure: str) -> float:
    return float("nan") if row is None else 100 * float(row[measure])


def _ordered_legend(axes: Axes) -> tuple[list[Any], list[str]]:
    """Handles and labels, the methods first."""
    pairs = sorted(zip(*axes.get_legend_handles_labels(), strict=True), key=lambda pair: pair[1] == "controls")
    return [handle for handle, _ in pairs], [label for _, label in pairs]
