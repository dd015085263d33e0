"""Figures and tables of rates, by net, loss, mask and method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memrecon_fast.audit.store.records import Cell
from memrecon_fast.experiments.experiment import Outcome, Row, Table
from memrecon_fast.experiments.figures import COLOURS, CONTROL_COLOUR, new_figure, show_tiles
from memrecon_fast.experiments.recovery.audits import errors_name
from memrecon_fast.experiments.recovery.nets import level_name
from memrecon_fast.experiments.recovery.published import lowest, percent
from memrecon_fast.metrics import THRESHOLD_PSNRS

METHODS = {
    "accelerated": (COLOURS[0], "blind, accelerated"),
    "paper": (COLOURS[1], "blind, the paper's method"),
    "known-mask": (COLOURS[4], "mask known"),
    "iterate": (COLOURS[2], "autoencoder alone"),
    "inpaint": (COLOURS[5], "inpainting"),
}
"""The colour and the label of each."""
THRESHOLDS = np.logspace(-8, -3, 101)
THRESHOLDS_TOLD = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)


def rates_figure(outcomes: Mapping[str, Outcome], measure: str) -> Figure:
    """Against the train loss: a row of panels for each net, one for each mask. measure: of a row; shares in %."""
    rows = [row for outcome in outcomes.values() for row in outcome.rows]
    nets, masks = _in_order(rows, "net"), _in_order(rows, "mask")
    figure = new_figure(1.0 + 2.0 * len(masks), 0.9 + 1.9 * len(nets))
    panels = figure.subplots(len(nets), len(masks), squeeze=False, sharey=True)
    for net, line in zip(nets, panels, strict=True):
        for mask, axes in zip(masks, line, strict=True):
            _curves(axes, [row for row in rows if row["net"] == net and row["mask"] == mask], measure)
        line[0].set_ylabel(f"{net}\n{'dB' if measure == 'psnr' else '%'}")
    for mask, axes in zip(masks, panels[0], strict=True):
        axes.set_title(mask)
    for axes in panels[-1]:
        axes.set_xlabel("train loss")
    handles = {
        label: handle for axes in panels.flat for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(handles.values()), list(handles), loc="outside upper left", ncols=3, fontsize=9)
    return figure


def thresholds_figure(outcomes: Mapping[str, Outcome]) -> Figure:
    """The rate for each threshold of the error, of each net at its lowest loss."""
    rows = [row for outcome in outcomes.values() for row in outcome.rows]
    nets, masks = _in_order(rows, "net"), _in_order(rows, "mask")
    figure = new_figure(1.0 + 2.0 * len(masks), 0.9 + 1.9 * len(nets))
    panels = figure.subplots(len(nets), len(masks), squeeze=False, sharey=True, sharex=True)
    for outcome, line in zip(outcomes.values(), panels, strict=True):
        name = _lowest_level(outcome)
        for mask, axes in zip(masks, line, strict=True):
            for method, (colour, label) in METHODS.items():
                errors = outcome.arrays.get(errors_name(name, Cell("members", mask, method)))
                if errors is not None:
                    share = (errors[:, None] < THRESHOLDS).mean(axis=0)
                    axes.semilogx(THRESHOLDS, 100 * share, color=colour, label=label)
            axes.grid(True)
        line[0].set_ylabel(f"{outcome.rows[0]['net']}\n% below it")
    for mask, axes in zip(masks, panels[0], strict=True):
        axes.set_title(mask)
    for axes in panels[-1]:
        axes.set_xlabel("threshold (MSE)")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=3, fontsize=9)
    return figure


def thresholds_table(outcomes: Mapping[str, Outcome]) -> Table:
    """The same at `THRESHOLDS_TOLD`."""
    lines: list[list[str | float | None]] = []
    for outcome in outcomes.values():
        name = _lowest_level(outcome)
        for mask in _in_order(outcome.rows, "mask"):
            for method in METHODS:
                errors = outcome.arrays.get(errors_name(name, Cell("members", mask, method)))
                if errors is not None:
                    rates = (percent(float((errors < threshold).mean())) for threshold in THRESHOLDS_TOLD)
                    lines.append([outcome.rows[0]["net"], mask, method, *rates])
    header = ["net", "mask", "method", *(f"{threshold:.0e}" for threshold in THRESHOLDS_TOLD)]
    return Table("Members whose MSE is below these thresholds, in %, at each net's lowest loss.", header, lines)


def borderline_figure(outcomes: Mapping[str, Outcome]) -> Figure:
    """Originals above, estimates below, of which the error is just below the threshold of approximate recovery."""
    shown = {name: one for name, one in outcomes.items() if "borderline" in one.arrays}
    figure = new_figure(1.5 + 2.2 * max(1, len(shown)), 1.9)
    panels = figure.subplots(1, max(1, len(shown)), squeeze=False)[0]
    if not shown:
        panels[0].set_axis_off()
        panels[0].set_title("no estimate has such an error")
    for axes, outcome in zip(panels, shown.values(), strict=False):
        show_tiles(axes, outcome.arrays["borderline"], ("original", "recovered") if axes is panels[0] else ())
        errors = ", ".join(f"{1e4 * error:.1f}" for error in outcome.arrays["borderline-mse"])
        axes.set_title(f"{outcome.rows[0]['net']}\nMSE {errors} ·1e-4", fontsize=9)
    return figure


def rates_table(outcomes: Mapping[str, Outcome], measure: str, caption: str, split: str = "members") -> Table:
    """A line for each net, loss and method, with what is measured under each mask: shares in %, PSNR in dB."""
    rows = [row for outcome in outcomes.values() for row in outcome.rows if row["split"] == split]
    masks = _in_order(rows, "mask")
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        found.setdefault((row["net"], row["loss"], row["method"]), {})[row["mask"]] = row[measure]
    shown = percent if measure != "psnr" else lambda value: "–" if value is None else f"{value:.1f}"
    lines = [
        [net, f"{loss:.1e}", method, *(shown(by.get(mask)) for mask in masks)]
        for (net, loss, method), by in found.items()
    ]
    return Table(caption, ["net", "train loss", "method", *masks], lines)


def controls_table(outcomes: Mapping[str, Outcome]) -> Table:
    """How many controls come back, of each net at its lowest loss, over all masks."""
    lines: list[list[str | float | None]] = []
    least = lowest(outcomes)
    for outcome in outcomes.values():
        rows = [row for row in outcome.rows if row["split"] == "controls" and row["loss"] == least[row["net"]]]
        for method in _in_order(rows, "method"):
            ours = [row for row in rows if row["method"] == method]
            tried = sum(row["images"] for row in ours)
            back = [round(sum(row["images"] * row[measure] for row in ours)) for measure in ("accurate", "approximate")]
            worst = max(ours, key=lambda row: row["approximate"])
            most = f"{round(worst['images'] * worst['approximate'])} of {worst['images']} ({worst['mask']})"
            most = most if back[1] else "–"
            lines.append([ours[0]["net"], f"{ours[0]['loss']:.1e}", method, tried, *back, most])
    header = ["net", "train loss", "method", "tried", "accurate", "approximate", "most under one mask"]
    return Table("Controls that come back, over all masks.", header, lines)


def _curves(axes: Axes, rows: Sequence[Row], measure: str) -> None:
    scale = 1 if measure == "psnr" else 100
    for method, (colour, label) in METHODS.items():
        members = [row for row in rows if (row["split"], row["method"]) == ("members", method)]
        look: Any = {"color": colour, "marker": "o", "markersize": 3.5, "label": label}
        if members:
            axes.plot([row["loss"] for row in members], [scale * row[measure] for row in members], **look)
    controls = [row for row in rows if row["split"] == "controls" and row["method"] != "inpaint"]
    if controls:
        most = max(row[measure] for row in controls)
        look = {"color": "white", "markeredgecolor": CONTROL_COLOUR, "marker": "D", "linestyle": "", "markersize": 5}
        axes.plot([controls[0]["loss"]], [scale * most], label="controls, the most by any method with the net", **look)
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.grid(True)
    if measure == "psnr":
        axes.axhline(THRESHOLD_PSNRS["approximate"], color=CONTROL_COLOUR, linewidth=0.8, linestyle=":")
    else:
        axes.set_ylim(-4, 104)


def _lowest_level(outcome: Outcome) -> str:
    """The name of the level, see `Trained.name`, that the net's lowest loss is at."""
    return level_name(min(outcome.rows, key=lambda row: row["loss"])["level"])


def _in_order(rows: Sequence[Row], name: str) -> list[Any]:
    return list(dict.fromkeys(row[name] for row in rows))
