"""The numbers of the charts, of the table on the terminal, and of the progress bar."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from memrecon_fast.audit import charts, progress
from memrecon_fast.audit.progress import AuditProgress
from memrecon_fast.audit.records import Cell, Columns, Record
from memrecon_fast.audit.table import make_table

LONG = "averyveryverylongname" * 5 + ".png"


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    drawn: list[Figure] = []

    def keep(figure: Figure) -> str:
        drawn.append(figure)
        return ""

    monkeypatch.setattr(charts, "_to_svg", keep)
    return drawn


def row(split: str, method: str, approximate: float, accurate: float, mask: str = "half") -> dict[str, Any]:
    return {
        "split": split, "mask": mask, "method": method, "images": 10, "approximate_rate": approximate,
        "accurate_rate": accurate, "mean_psnr": 40 + 10 * approximate, "mean_evaluations": 123.4, "diverged": 0,
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
    charts.draw_psnr(cells, ["paper"])
    (axes,) = figures[0].axes
    for bars, psnr in zip(axes.containers, (10, 90), strict=True):  # the controls are drawn first
        (full,) = [bar for bar in bars if bar.get_height()]
        assert full.get_height() == pytest.approx(100)
        assert full.get_x() <= psnr <= full.get_x() + full.get_width()
    assert [line.get_xdata()[0] for line in axes.lines] == pytest.approx([33.0103, 70])  # type: ignore[index]


def printed(summary: dict[str, Any], width: int = 80) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width).print(make_table(summary))
    return stream.getvalue().splitlines()


def test_the_table_has_the_members_first_and_then_the_controls() -> None:
    lines = printed(
        {"rows": ROWS, "images": {"members": 10, "controls": 10}, "masks": ["half"], "methods": ["paper", "iterate"]}
    )
    (heading,) = [line.split() for line in lines if "method" in line]
    assert heading == ["mask", "method", "approx.", "accurate", "PSNR", "evals", "controls", "PSNR"]
    (paper,) = [line.split() for line in lines if "paper" in line]
    assert paper == ["half", "paper", "90.0%", "40.0%", "49.0", "123", "20.0%", "42.0"]
    assert any("MSE < 5e-4" in line for line in lines)


def test_long_names_are_folded_and_not_cut() -> None:
    rows = [row("members", "known-mask", 0.5, 0.1, LONG), row("controls", "known-mask", 0, 0, LONG)]
    summary = {
        "rows": rows, "images": {"members": 10, "controls": 10}, "masks": [LONG], "methods": ["known-mask"],
    }  # fmt: skip
    lines = printed(summary)
    assert not any("…" in line for line in lines)
    assert LONG in "".join(line.split()[0] for line in lines if line.strip() and "─" not in line)
    assert any("known-mask" in line and "50.0%" in line for line in lines)


def make_record(index: int, approximate: bool, accurate: bool, mask: str) -> Record:
    return Record(
        index, "name", "members", mask, "paper", 1e-4, 40.0, accurate, approximate, False, "CONVERGED", 1, 1, 0.0, None
    )


def test_progress_counts_approximate_recoveries_of_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    stream = io.StringIO()
    with AuditProgress(6, Console(file=stream, width=200)) as shown:
        for index in range(3):
            shown.show(make_record(index, approximate=index != 1, accurate=index == 0, mask="half"))
        shown.show(make_record(0, approximate=True, accurate=False, mask="center"))
    lines = stream.getvalue().splitlines()
    assert lines[2].startswith("3 of 6 images")
    assert lines[2].endswith("members, half, paper: 2 of 3 recovered")
    assert lines[3].endswith("members, center, paper: 1 of 1 recovered")
