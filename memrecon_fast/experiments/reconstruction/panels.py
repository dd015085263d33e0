"""Charts of the law: errors against the number of parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memrecon_fast.experiments.experiment import Row
from memrecon_fast.experiments.figures import COLOURS, CONTROL_COLOUR, INK, new_figure

_COLUMNS = 3


def law_figure(panels: Mapping[str, Sequence[Row]], columns: int = _COLUMNS) -> Figure:
    """A panel for each group of rows, by its title. Rows have n, d, p, and what `problems.row_of` makes."""
    across, down = min(columns, len(panels)), -(-len(panels) // columns)
    figure = new_figure(4.1 * across + 0.4, 3.3 * down)
    all_axes = figure.subplots(down, across, squeeze=False, sharey=True)
    for axes in all_axes.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (title, rows) in zip(all_axes.flat, panels.items(), strict=False):
        _draw(axes, sorted(rows, key=lambda row: row["p"]))
        axes.set_title(title)
    all_axes[0, 0].set_ylabel("error")
    all_axes[0, 0].set_ylim(-0.05, 1.5)
    all_axes[0, 0].legend(fontsize=9)
    return figure


def _draw(axes: Axes, rows: Sequence[Row]) -> None:
    found = [row for row in rows if row["rho"] is not None]
    beside = [row for row in rows if row.get("rho_beside") is not None]
    errors = [row["training_error"] for row in rows]
    axes.plot([row["p"] for row in rows], errors, color=INK, marker="s", markersize=3, label="labels, MSE")
    if beside:
        look: Any = {"color": CONTROL_COLOUR, "linestyle": "--", "marker": ".", "label": "ρ, started beside the truth"}
        axes.plot([row["p"] for row in beside], [row["rho_beside"] for row in beside], **look)
    axes.errorbar(
        [row["p"] for row in found],
        [row["rho"] for row in found],
        [row["rho_std"] for row in found],
        color=COLOURS[0],
        marker="o",
        markersize=4,
        capsize=2,
        label="ρ",
    )
    lost = [1 - row["recovered"] for row in found]
    axes.plot([row["p"] for row in found], lost, color=COLOURS[1], marker="D", markersize=3, label="share not back")
    for place in (rows[0]["n"], rows[0]["n"] * rows[0]["d"]):
        axes.axvline(place, color=INK, linestyle=":", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("p (dotted: n, d·n)")
    axes.grid(True)
