"""What all charts of a report share: colours, style, and SVG as text. Colours tell apart for every kind of colour
vision (Okabe & Ito)."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from memrecon_fast.audit.store.records import Cell, Columns

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
CONTROL_COLOUR = "#8a8a8a"
INK = "#222222"
_STYLE: Any = {
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


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """A figure in the style of the reports, which holds inside; in inches."""
    with mpl.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def to_svg(figure: Figure) -> str:
    """The figure as SVG text, the same each time."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # in a mask's name, which the table has as well
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def percent_axis(axes: Axes, top: float = 100) -> None:
    """Give the axes a scale from 0 to 100 % of images upwards."""
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
