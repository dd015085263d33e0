"""The numbers of the table on the terminal, and of the progress bar."""

from __future__ import annotations

import dataclasses
import io
import re
import time
from typing import Any

import pytest
from rich.console import Console

from memrecon_fast.audit import progress
from memrecon_fast.audit.progress import AuditProgress, WorkProgress
from memrecon_fast.audit.report.table import make_table
from memrecon_fast.audit.store.records import Cell, Record
from memrecon_fast.methods import METHODS
from tests.helpers.auditing import make_record

LONG = "averyveryverylongname" * 5 + ".png"


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


def printed(summary: dict[str, Any], width: int = 80) -> list[str]:
    traits = {name: dataclasses.asdict(METHODS[name].traits) for name in summary.get("methods", ())}
    stream = io.StringIO()
    Console(file=stream, width=width).print(make_table({"traits": traits} | summary))
    return stream.getvalue().splitlines()


def test_the_table_has_the_members_first_and_then_the_controls() -> None:
    lines = printed(
        {
            "degraded": False,
            "rows": ROWS,
            "images": {"members": 10, "controls": 10},
            "masks": ["half"],
            "methods": ["paper", "iterate"],
        }
    )
    (heading,) = [line.split() for line in lines if "method" in line]
    assert heading == ["mask", "method", "approx.", "accurate", "PSNR", "evals", "controls", "PSNR"]
    (paper,) = [line.split() for line in lines if "paper" in line]
    assert paper == ["half", "paper", "90.0%", "40.0%", "49.0", "123", "20.0%", "42.0"]
    assert any("MSE < 5e-4" in line for line in lines)


@pytest.mark.parametrize("mean", [7e-9, 0.25])
def test_above_the_table_stands_how_well_the_model_reconstructs(mean: float) -> None:
    split = {"images": 10, "mean": mean, "median": mean, "above": 10 * (mean > 0.01), "variance": 0.06}
    lines = printed(
        {
            "degraded": False,
            "rows": ROWS,
            "images": {"members": 10, "controls": 10},
            "masks": ["half"],
            "methods": ["paper"],
            "reconstruction_error": {"members": split, "controls": {**split, "mean": 0.02}, "hint": None},
        }
    )
    above = " ".join(" ".join(lines[: next(at for at, line in enumerate(lines) if "method" in line)]).split())
    if mean < 0.01:
        assert above.endswith("members 7.0e-09, controls 2.0e-02.")
    else:
        assert above.startswith("The model does not reconstruct the members")
        assert "2.5e-01 (10 of 10 by more than 0.01)" in above
    assert max(map(len, lines)) <= 80


def test_how_many_diverged_is_told_below_and_leaves_the_names_of_masks_whole() -> None:
    masks = ["random-50", "stripes"]
    rows = [
        row(split, "known-mask", 1.0, 1.0, mask) | {"diverged": 7 + len(split)}
        for mask in masks
        for split in ("members", "controls")
    ]
    images = {"members": 10, "controls": 10}
    without = [{"split": "members", "mask": mask, "approximate_rate": 0.1} for mask in masks]
    methods = ["known-mask", "inpaint"]
    summary = {"degraded": False, "rows": rows, "images": images, "masks": masks, "methods": methods}
    lines = printed(summary | {"without_model": without})
    assert [line.split()[0] for line in lines if "known-mask  " in line] == masks
    assert "Diverged: known-mask 28 of members and 30 of controls." in " ".join(map(str.strip, lines))


def test_long_names_are_folded_and_not_cut() -> None:
    rows = [row("members", "known-mask", 0.5, 0.1, LONG), row("controls", "known-mask", 0, 0, LONG)]
    summary = {
        "degraded": False, "rows": rows, "images": {"members": 10, "controls": 10}, "masks": [LONG],
        "methods": ["known-mask"],
    }  # fmt: skip
    lines = printed(summary)
    assert not any("…" in line for line in lines)
    assert LONG in "".join(line.split()[0] for line in lines if line.strip() and "─" not in line)
    assert any("known-mask" in line and "50.0%" in line for line in lines)


@pytest.mark.parametrize(("controls", "bound", "said"), [(0.0, 0.0722, "≤ 7.2%"), (None, None, "unknown")])
def test_the_table_of_degraded_images_speaks_of_no_errors(
    controls: float | None, bound: float | None, said: str
) -> None:
    paper = {"method": "paper", "images": 10}
    rows = [{"split": "members", "recognized_rate": 0.75, "mean_evaluations": 61.6, **paper}]
    if controls is not None:
        rows.append({"split": "controls", "recognized_rate": controls, "mean_evaluations": 9.0, **paper})
    recognition = [{"method": "paper", "threshold": 8e-5, "false_positive_bound": bound}]
    images = {row["split"]: 10 for row in rows}
    lines = printed({"degraded": True, "rows": rows, "recognition": recognition, "images": images})
    (line,) = [line for line in lines if "paper" in line]
    rate = "–" if controls is None else "0.0%"
    assert line.split() == ["paper", "75.0%", "62", rate, "8e-05", *said.split()]
    assert any("Originals unknown" in line for line in lines)
    assert not any("approx" in line or "PSNR" in line for line in lines)


def record_of(mask: str, index: int, approximate: bool) -> Record:
    return make_record(Cell("members", mask, "paper"), index, approximate=approximate)


def test_progress_counts_approximate_recoveries_of_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    stream = io.StringIO()
    left = {Cell("members", mask, "paper"): 3 for mask in ("half", "center")}
    with AuditProgress(left, {}, Console(file=stream, width=200)) as shown:
        for index in range(3):
            shown.show(record_of("half", index, index != 1))
        shown.show(record_of("center", 0, True))
    lines = stream.getvalue().splitlines()
    assert lines[2].startswith("3 of 6 recoveries")
    assert lines[2].endswith("members, half, paper: 2 of 3 recovered")
    assert lines[3].endswith("members, center, paper: 1 of 1 recovered")


def test_progress_of_degraded_images_counts_those_that_are_recognized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    stream = io.StringIO()
    with AuditProgress({Cell("members", "given", "paper"): 6}, {}, Console(file=stream, width=200)) as shown:
        for score, diverged in ((1e-6, False), (1e-3, False), (1e-6, True)):
            unknown = make_record(Cell("members", "given", "paper"), 0, mse=None, approximate=None)
            shown.show(dataclasses.replace(unknown, score=score, diverged=diverged))
    assert stream.getvalue().rstrip().endswith("members, given, paper: 1 of 3 recognized")


def test_progress_goes_on_from_what_was_done_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    stream = io.StringIO()
    cell = Cell("members", "half", "paper")
    with AuditProgress({cell: 2}, {cell: (4, 400)}, Console(file=stream, width=200)) as shown:
        shown.show(record_of("half", 0, True))
        assert (shown.done, shown.new) == (5, 1)
    assert stream.getvalue().startswith("5 of 6 recoveries")


def test_progress_of_a_survey_takes_the_pace_of_the_whole_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    for seconds, words in ((10, "10 per second, 0:00:05 left"), (60_000, "0.1 per minute, 8:20:00 left")):
        stream = io.StringIO()
        with WorkProgress(150, 0, Console(file=stream, width=200), "rows") as shown:
            clock[0] += seconds
            shown.advance(100, "fixed points")
        assert stream.getvalue().rstrip() == f"100 of 150 rows, {words}; fixed points"


def test_progress_fits_into_80_columns_and_names_what_is_not_known_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    mask = "a-mask-with-a-name-that-no-line-has-room-for" * 3
    methods = ("known-mask", "accelerated", "iterate", "paper", "inpaint")
    left = {Cell(split, mask, method): 10_000 for method in methods for split in ("members", "controls")}
    stream = io.StringIO()
    console = Console(file=stream, width=80, force_terminal=True, color_system=None)
    with AuditProgress(left, {}, console) as shown:
        for index in range(128):
            for split in ("members", "controls"):
                clock[0] += 10.0
                shown.show(make_record(Cell(split, mask, "known-mask"), index, evaluations=1000))
        shown._bar.refresh()
    lines = re.sub(r"\x1b\[[0-9?]*[A-Za-z]", "", stream.getvalue()).replace("\r", "\n").splitlines()
    assert max(map(len, lines)) <= 80
    pace = "6.0 per minute, 2 days, 6 h left, then accelerated, 3 more"
    assert pace in [line.rstrip() for line in lines]
    assert any(line.rstrip().endswith(" 256/100000") for line in lines)
    assert any(line.startswith("controls, a-mask") and line.rstrip().endswith("…") for line in lines)


def test_progress_of_which_nothing_that_is_left_is_known_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    stream = io.StringIO()
    left = {Cell("members", "half", method): 1 for method in ("paper", "iterate")}
    with AuditProgress(left, {}, Console(file=stream, width=200)) as shown:
        shown.show(record_of("half", 0, True))
    assert "per second, time left unknown: iterate; members" in stream.getvalue()
