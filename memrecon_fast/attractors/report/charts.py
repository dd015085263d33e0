"""Charts of a survey as SVG text, in the style of all reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from memrecon_fast.attractors.report.summary import is_near, numbers
from memrecon_fast.audit.report.charts import COLOURS, CONTROL_COLOUR, INK, new_figure, to_svg
from memrecon_fast.common.text import counted
from memrecon_fast.metrics import APPROXIMATE_MSE

SPLIT_COLOURS = {"members": COLOURS[0], "controls": CONTROL_COLOUR}
LARGEST_SHOWN = 1.6
"""Eigenvalues beyond are drawn at the edge."""
_LEAST_RESIDUAL = 1e-14
_TICKS = (1e-4, 1e-3, 0.01, 0.1, 0.2, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.5, 2, 5, 10, 100, 1000)
_TICKS_APART = tuple(tick for tick in _TICKS if tick not in (0.7, 0.8, 0.9, 1.1, 1.2, 1.5))
"""Those that do not lie on each other where the axis is long."""
_SMALL: Any = {"linewidths": 0, "alpha": 0.55}


def draw_eigenvalues(tables: Mapping[str, pa.Table]) -> str:
    """The eigenvalues in the complex plane, a panel for each split; the unit circle.

    tables: of `stabilities.SCHEMA`, by split.
    """
    with new_figure(4.4 * len(tables) + 0.4, 4.6) as figure:
        panels = figure.subplots(1, len(tables), squeeze=False, sharey=True)[0]
        angles = np.linspace(0, 2 * np.pi, 361)
        for axes, (split, table) in zip(panels, tables.items(), strict=True):
            values = eigenvalues(table)
            values = values[np.isfinite(values)]
            far = np.abs(values) > LARGEST_SHOWN
            shown = np.where(far, values / np.maximum(np.abs(values), 1e-30) * LARGEST_SHOWN, values)
            axes.plot(np.cos(angles), np.sin(angles), color=INK, linewidth=1.2)
            colour = SPLIT_COLOURS[split]
            axes.scatter(shown[~far].real, shown[~far].imag, 9, color=colour, **_SMALL)
            axes.scatter(shown[far].real, shown[far].imag, 14, color=colour, marker="x", linewidths=1)
            axes.set_title(
                f"{len(table)} {split}" + (f", {counted(int(far.sum()), 'value')} beyond" if far.any() else "")
            )
            axes.set_aspect("equal")
            axes.set_xlim(-1.1 * LARGEST_SHOWN, 1.1 * LARGEST_SHOWN)
            axes.set_ylim(-1.1 * LARGEST_SHOWN, 1.1 * LARGEST_SHOWN)
            axes.set_xlabel("real part")
            _grid(axes)
        panels[0].set_ylabel("imaginary part")
        return to_svg(figure)


def draw_residuals(tables: Mapping[str, pa.Table]) -> str:
    """ρ against the residual of each image, members over controls; what counts as a fixed point near, and ρ = 1."""
    with new_figure(8.5, 4.4) as figure:
        axes = figure.subplots()
        for split, table in reversed([*tables.items()]):
            residual, radius = numbers(table, "residual_mse"), numbers(table, "radius")
            known = np.isfinite(residual) & np.isfinite(radius)
            places = residual[known].clip(_LEAST_RESIDUAL, None)
            axes.scatter(places, radius[known].clip(1e-4, None), 16, color=SPLIT_COLOURS[split], label=split, **_SMALL)
        axes.axhline(1, color=INK, linewidth=1.2)
        axes.axvline(APPROXIMATE_MSE, color=INK, linestyle=":", linewidth=1.2)
        axes.set_xscale("log")
        axes.set_yscale("log")
        low, high = axes.get_ylim()  # matplotlib's own labels would be mathematics, which reports do not parse
        ticks = _TICKS if high < 10 * low else _TICKS_APART
        shown = [tick for tick in ticks if low <= tick <= high]
        axes.set_yticks(shown, [f"{tick:g}" for tick in shown])
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter("{x:.0e}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("residual of the image, ‖f(x) − x‖²/d")
        axes.set_ylabel("ρ, largest modulus of an eigenvalue")
        _grid(axes)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        return to_svg(figure)


def eigenvalues(table: pa.Table) -> NDArray[np.complex128]:
    """All eigenvalues of all images of a table with `VERDICT_FIELDS`."""
    real, imaginary = (table[name].combine_chunks().flatten().to_numpy() for name in ("real", "imaginary"))
    found: NDArray[np.complex128] = real + 1j * imaginary
    return found


def _grid(axes: Axes) -> None:
    axes.grid(True)
    axes.set_axisbelow(True)


def draw_found(table: pa.Table, starts: int, attractors: int | None) -> str:
    """Different fixed points, and different members among them, that so many starts have found.

    table: of `harvested.FOUND_SCHEMA`. attractors: how many members are; None where there are no members.
    """
    with new_figure(8.5, 3.8) as figure:
        axes = figure.subplots()
        first = numbers(table, "first_start")
        member, near = table["member"].to_numpy(), is_near(table, "member")
        firsts_of_members = [first[near & (member == one)].min() for one in set(member[near].tolist())]
        _staircase(axes, first, starts, COLOURS[1], "different fixed points", linewidth=5)
        if attractors is not None:
            _staircase(axes, np.array(firsts_of_members), starts, SPLIT_COLOURS["members"], "different members")
            look: Any = {"color": INK, "linestyle": ":", "linewidth": 1.2}
            axes.axhline(attractors, label="members that are attractors\n(marginal ones may come out, too)", **look)
        axes.set_xlim(0, starts)
        axes.set_ylim(0, None)
        axes.set_xlabel("starts")
        axes.set_ylabel("found")
        _grid(axes)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        return to_svg(figure)


def draw_curve(curve: Mapping[str, Any]) -> str:
    """π(t) with its interval. curve: of the summary."""
    with new_figure(8.5, 3.6) as figure:
        axes = figure.subplots()
        low, high = np.transpose(curve["interval"])
        axes.fill_between(curve["times"], low, high, color=SPLIT_COLOURS["members"], alpha=0.2, linewidth=0)
        axes.plot(curve["times"], curve["share"], color=SPLIT_COLOURS["members"], marker="o", markersize=4)
        _log_levels(axes, curve["times"])
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("applications of the model")
        axes.set_ylabel("share of starts that are a member")
        _grid(axes)
        return to_svg(figure)


def draw_basins(basins: Sequence[Mapping[str, Any]]) -> str:
    """Which share of the members comes back, a panel for each way to move away. basins: of the summary."""
    with new_figure(9.2, 3.6) as figure:
        panels = figure.subplots(1, max(2, len(basins)), squeeze=False, sharey=True)[0]
        for axes in panels[len(basins) :]:
            axes.set_visible(False)
        for axes, one in zip(panels[: len(basins)], basins, strict=True):
            shares = np.array(one["return"]) / one["images"]
            axes.plot(one["levels"], shares, color=SPLIT_COLOURS["members"], marker="o", markersize=4)
            if one["degradation"] == "noise":
                _log_levels(axes, one["levels"])
                axes.set_xlabel("noise, standard deviation σ")
            else:
                axes.set_xlabel("share of the pixels erased")
            axes.set_ylim(-0.02, 1.02)
            _grid(axes)
        panels[0].set_ylabel("share of members that come back")
        return to_svg(figure)


def _log_levels(axes: Axes, levels: Sequence[float]) -> None:
    """A logarithmic axis with these numbers alone on it."""
    axes.set_xscale("log")
    axes.set_xticks(levels, [f"{level:g}" for level in levels])
    axes.xaxis.set_minor_formatter(NullFormatter())


def _staircase(
    axes: Axes, firsts: NDArray[np.float64], starts: int, colour: str, label: str, linewidth: float = 2
) -> None:
    """How many were found by so many starts, of the index of the start that found each."""
    at = np.concatenate([[0], np.sort(firsts) + 1, [starts]])
    counts = np.concatenate([np.arange(len(firsts) + 1), [len(firsts)]])
    axes.step(at, counts, where="post", color=colour, label=label, linewidth=linewidth)
