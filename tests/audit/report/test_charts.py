"""The numbers of the charts."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from memrecon_fast.audit.analysis.comparisons import Comparison
from memrecon_fast.audit.analysis.recognition import recognitions_of
from memrecon_fast.audit.analysis.statistics import roc
from memrecon_fast.audit.report import charts, histograms
from memrecon_fast.audit.store.records import Cell, Columns
from tests.helpers.made_run import make_run

MEMBERS, CONTROLS = Cell("members", "half", "paper"), Cell("controls", "half", "paper")


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    drawn: list[Figure] = []

    def keep(figure: Figure) -> str:
        drawn.append(figure)
        return ""

    monkeypatch.setattr(charts, "to_svg", keep)
    monkeypatch.setattr(histograms, "to_svg", keep)
    return drawn


def row(split: str, method: str, approximate: float, accurate: float) -> dict[str, Any]:
    return {
        "split": split, "mask": "half", "method": method, "approximate_rate": approximate, "accurate_rate": accurate,
    }  # fmt: skip


ROWS = [
    row("members", "paper", 0.9, 0.4),
    row("controls", "paper", 0.2, 0.1),
    row("members", "iterate", 0.3, 0.05),
    row("controls", "iterate", 0.0, 0.0),
]


def columns(mse: list[float], lost: list[bool]) -> Columns:
    return {"mse": np.array(mse), "psnr": -10 * np.log10(mse), "diverged": np.array(lost)}


def test_bars_are_the_members_and_diamonds_the_controls(figures: list[Figure]) -> None:
    charts.draw_rates(ROWS, ["half"], ["paper", "iterate"])
    upper, lower = figures[0].axes
    for axes, title, members, controls in (
        (upper, "Approximate recovery (MSE < 5e-4)", [90, 30], [20, 0]),
        (lower, "Accurate recovery (MSE < 1e-7)", [40, 5], [10, 0]),
    ):
        assert axes.get_title(loc="left") == title
        assert [bar.get_height() for bar in axes.patches] == pytest.approx(members)  # type: ignore[attr-defined]
        diamonds = [float(np.asarray(line.get_ydata())[0]) for line in axes.lines]
        assert diamonds == pytest.approx(controls)


def test_the_rate_at_a_threshold_passes_over_what_diverged(figures: list[Figure]) -> None:
    cells = {
        Cell("members", "half", "paper"): columns([2e-8, 2e-5, 2e-3], [False, False, False]),
        Cell("members", "center", "paper"): columns([2e-8], [True]),
        Cell("controls", "half", "paper"): columns([1.0, 2e-3], [False, False]),
    }
    charts.draw_thresholds(cells, ["paper"])
    curves = {str(line.get_label()): np.asarray(line.get_ydata()) for line in figures[0].axes[0].lines}
    for name, rates in (("paper, members", [0, 25, 50, 75]), ("paper, controls", [0, 0, 0, 50])):
        found = np.interp([1e-8, 1e-7, 5e-4, 1e-2], charts.THRESHOLDS, curves[name])
        np.testing.assert_allclose(found, rates)


def test_the_histogram_keeps_members_and_controls_apart(figures: list[Figure]) -> None:
    cells = {
        Cell("members", "half", "paper"): columns([1e-9, 1e-9], [False, False]),
        Cell("controls", "half", "paper"): columns([1e-1], [False]),
    }
    histograms.draw_psnr(cells, ["paper"])
    (axes,) = figures[0].axes
    for bars, psnr in zip(axes.containers, (10, 90), strict=True):  # the controls are drawn first
        (full,) = [bar for bar in bars if bar.get_height()]
        assert full.get_height() == pytest.approx(100)
        assert full.get_x() <= psnr <= full.get_x() + full.get_width()
    assert [line.get_xdata()[0] for line in axes.lines] == pytest.approx([33.0103, 70])  # type: ignore[index]


def test_a_long_name_of_a_mask_is_cut_in_the_chart(figures: list[Figure]) -> None:
    name = "averyverylong$name" * 5
    charts.draw_rates([{**row("members", "paper", 0.5, 0.5), "mask": name}], [name, "half"], ["paper"])
    shown, half = (label.get_text() for label in figures[0].axes[1].get_xticklabels())
    assert shown == name[: charts.LONGEST_NAME - 1] + "…"
    assert half == "half"


def test_iterations_are_counted_one_by_one_while_they_are_few(figures: list[Figure]) -> None:
    cells: dict[Cell, Columns] = {
        MEMBERS: {"outer_iterations": np.array([1, 2, 2, 40])},
        CONTROLS: {"outer_iterations": np.array([5, 5])},
    }
    histograms.draw_iterations(cells, ["paper", "iterate"])
    paper, iterate = figures[0].axes
    assert paper.get_xscale() == "linear"
    controls, members = ({bar.get_x() + 0.5: bar.get_height() for bar in bars} for bars in paper.containers)
    assert {at: share for at, share in members.items() if share} == {1: 25, 2: 50, 40: 25}
    assert {at: share for at, share in controls.items() if share} == {5: 100}
    assert not iterate.containers  # nothing was done by it


def test_many_iterations_are_shown_on_a_logarithmic_axis(figures: list[Figure]) -> None:
    iterations = np.array([1, 2, 3, 4, 5, 6, 7, 100, 1000])
    histograms.draw_iterations({MEMBERS: {"outer_iterations": iterations}}, ["paper"])
    (axes,) = figures[0].axes
    assert axes.get_xscale() == "log"
    (bars,) = axes.containers
    assert sum(bar.get_height() for bar in bars) == pytest.approx(100)
    assert [bar.get_height() for bar in bars][:7] == pytest.approx([100 / 9] * 7)
    assert [label.get_text() for label in axes.get_xticklabels()][:4] == ["1", "2", "5", "10"]


@pytest.mark.parametrize("most", [1, 9, 40, 41, 200, 1000, 10_000])
def test_every_number_of_iterations_has_a_bin(most: int) -> None:
    edges = histograms.iteration_edges(most)
    assert edges[0] == 0.5
    assert edges[-1] > most
    assert (edges % 1 == 0.5).all()  # no bin begins at an integer, and so none is without one
    assert (np.diff(edges) > 0).all()


@pytest.mark.parametrize(("controls", "marked"), [(30, 0), (150, 1), (1500, 2)])
def test_the_roc_is_logarithmic_and_marks_the_rates_that_the_controls_can_tell(
    figures: list[Figure], controls: int, marked: int
) -> None:
    random = np.random.default_rng(0)
    compared = Comparison("paper", None, random.random(50), random.random(controls) + 0.5)
    charts.draw_roc([compared], ["iterate", "paper"])
    (axes,) = figures[0].axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_xlim() == pytest.approx((50 / controls, 100))
    assert axes.get_ylim() == pytest.approx((1, 100))
    line = axes.lines[0]
    assert line.get_label() == "paper"
    for rates, drawn, low in zip(
        charts.corners(*roc(compared.members, compared.controls)), line.get_data(), (50 / controls, 1), strict=True
    ):
        np.testing.assert_allclose(np.asarray(drawn), (100 * rates).clip(low))
    assert len([one for one in axes.lines if one.get_linestyle() == ":"]) == 1 + marked  # and guessing
    assert [text.get_text() for text in axes.texts] == ["0.1 %", "1 %"][2 - marked :]
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert labels[-1].get_text() == "100"


def test_a_curve_keeps_its_corners_and_nothing_else() -> None:
    random = np.random.default_rng(0)
    false, true = roc(random.random(40), random.random(60))
    fewer = charts.corners(false, true)
    assert len(fewer[0]) < 0.8 * len(false)
    for at in np.linspace(0, 1, 241):  # the highest rate that is reached at this one
        assert fewer[1][fewer[0] <= at].max() == true[false <= at].max()


def test_lines_that_coincide_are_seen_around_each_other(figures: list[Figure]) -> None:
    same = columns([1e-8, 1e-3], [False, False])
    methods = ["paper", "accelerated", "iterate"]
    charts.draw_thresholds({Cell("members", "half", method): same for method in methods}, methods)
    charts.draw_roc([Comparison(method, None, same["mse"], same["mse"] + 1) for method in methods], methods)
    for figure in figures:
        lines = [line for line in figure.axes[0].lines if line.get_label() in ("paper", *methods)]
        lines = lines or [line for line in figure.axes[0].lines if "members" in str(line.get_label())]
        widths = [line.get_linewidth() for line in lines]
        assert len(widths) == 3
        assert all(above + 2 <= below for below, above in pairwise(widths))


def test_a_chart_has_its_colours_for_a_dark_page() -> None:
    svg = charts.draw_rates(ROWS, ["half"], ["paper", "iterate"])
    assert svg.count("@media (prefers-color-scheme: dark)") == 1
    for colour in (charts.INK, charts.COLOURS[0].lower(), "#ffffff"):
        assert f'[style*="fill: {colour}"]' in svg
        assert f'style="fill: {colour}' in svg  # as it stands in the drawing


def bars_of(figure: Figure) -> list[dict[str, dict[float, float]]]:
    """Of each panel, by label: the height of each bar that has one, by the power of ten of its middle."""
    panels = []
    for axes in figure.axes:
        containers: Any = axes.containers
        panels.append(
            {
                container.get_label(): {
                    round(float(np.log10(bar.get_x() + bar.get_width() / 2)), 1): bar.get_height()
                    for bar in container
                    if bar.get_height()
                }
                for container in containers
            }
        )
    return panels


@pytest.mark.parametrize("degraded", [False, True])
def test_scores_are_divided_by_what_came_back_where_that_is_known(
    figures: list[Figure], tmp_path: Path, degraded: bool
) -> None:
    mask = "given" if degraded else "half"
    errors = {
        Cell("members", mask, "paper"): [5e-9, 5e-9, 1.0, np.inf],
        Cell("controls", mask, "paper"): [1.0, 5e-9, 1e-5],
    }
    results = make_run(tmp_path, errors, near_duplicates={1: 0}, degraded=degraded)
    histograms.draw_scores(results, recognitions_of(results))
    (panel,) = bars_of(figures[0])
    controls = panel.pop("controls")
    if degraded:
        assert panel == {"images": {-8.8: 50.0, -0.5: 25.0, -0.1: 25.0}}
    else:
        assert panel == {"members, recovered": {-8.8: 50.0}, "members, not recovered": {-0.5: 25.0, -0.1: 25.0}}
        assert controls == {-5.5: 50.0, -0.5: 50.0}
    (line,) = figures[0].axes[0].lines
    assert float(np.asarray(line.get_xdata())[0]) == pytest.approx(1.5e-6)  # half of the lowest control
