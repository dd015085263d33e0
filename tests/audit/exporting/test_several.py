"""Several runs side by side."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console

import memrecon_fast as mf
from memrecon_fast.audit.exporting.files import LOOK
from memrecon_fast.audit.exporting.several_figures import drawings_of
from memrecon_fast.audit.exporting.several_tables import terminal_tables
from memrecon_fast.audit.exporting.side_by_side import SideBySide
from memrecon_fast.audit.store.records import Cell
from tests.helpers.made_run import make_run

SPLITS, METHODS = ("members", "controls"), ("accelerated", "iterate")


def make(
    path: Path, back: dict[str, int], *, error: float | None = 1e-9, members: int = 10, done: int = 99, **other: Any
) -> Path:
    """A run in which of each mask so many members, the first ones, come back by the first method, and no control."""
    index = np.arange(members)
    errors = {
        Cell(split, mask, method): np.where(
            index >= done, np.nan, np.where(index < count * (split == "members" and method == METHODS[0]), 1e-9, 0.1)
        )
        for split in other.get("splits", SPLITS)
        for mask, count in back.items()
        for method in other.get("methods", METHODS)
    }
    make_run(path, errors, unfinished=[cell for cell in errors if done < members])
    description = json.loads((path / "audit.json").read_text())
    if error is not None:
        split = {"images": members, "mean": error, "median": error, "above": 0, "variance": 0.06}
        description["reconstruction_error"] = {"members": split, "hint": None}
    description["plan"] |= {"model": other.get("model", path.name)}
    description["plan"]["masks"] |= other.get("masks", {})
    description["plan"]["settings"] |= other.get("settings", {})
    (path / "audit.json").write_text(json.dumps(description))
    return path


def rate(side: SideBySide, run: str, mask: str | None, method: str = "accelerated", split: str = "members") -> Any:
    return side.row(run, mask, method, split)["accurate_rate"]


def test_seeds_have_a_mean_and_a_spread(tmp_path: Path) -> None:
    runs = [make(tmp_path / f"seed-{n}", {"half": n, "center": 2 * n}, error=10.0**-n) for n in (2, 3, 4)]
    side = mf.audit.compare(runs, tmp_path / "out")
    assert [(run.label, run.error) for run in side.runs] == [("seed-2", 1e-2), ("seed-3", 1e-3), ("seed-4", 1e-4)]
    assert [rate(side, f"seed-{n}", "center") for n in (2, 3, 4)] == [0.4, 0.6, 0.8]
    assert [rate(side, f"seed-{n}", None) for n in (2, 3, 4)] == [0.4, 0.6, 0.8]
    found = side.spread_of("", "half", "accelerated", "members")
    assert found["runs"] == 3
    assert found["accurate_mean"] == pytest.approx(0.3)
    assert found["accurate_deviation"] == pytest.approx(0.1)
    assert (found["accurate_lowest"], found["accurate_highest"]) == (0.2, 0.4)
    assert side.spread_of("", "half", "accelerated", "controls")["accurate_mean"] == 0
    assert r"half & accelerated & 30.0 $\pm$ 10.0 (20.0--40.0)" in (tmp_path / "out" / "masks.tex").read_text()
    assert "Mean ± standard deviation" in (tmp_path / "out" / "masks.md").read_text()
    (remark,) = side.remarks
    assert remark.startswith(
        "The models of these runs miss their members by 1.0e-04 to 1.0e-02: what is told as their mean"
    )
    names = {path.name for path in (tmp_path / "out").iterdir()}
    tables = {f"{name}.{kind}" for name in ("runs", "masks", "rates") for kind in ("tex", "md", "csv")}
    assert names == tables | {f"{name}.{kind}" for name in ("rate-against-error", "masks") for kind in ("svg", "pdf")}


def test_a_comparison_as_a_table_of_pandas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [make(tmp_path / f"seed-{n}", {"half": n, "center": 2 * n}) for n in (2, 3)]
    side = mf.audit.compare(runs, tmp_path / "out")
    table = side.to_pandas()
    about = ["run", "group", "error", "mask", "method", "split", "images"]
    rates = [f"{verdict}{end}" for verdict in ("accurate", "approximate") for end in ("", "_low", "_high")]
    assert table.columns.tolist() == [*about, *rates]
    assert len(table) == len(side.rows) == 2 * 3 * 2 * 2
    chosen = table[(table["run"] == "seed-3") & (table["split"] == "members") & (table["method"] == "accelerated")]
    by_mask = dict(zip(chosen["mask"].fillna("any"), chosen["accurate"], strict=True))
    assert by_mask == {"any": 0.6, "half": 0.3, "center": 0.6}
    row = side.row("seed-3", "half", "accelerated", "members")
    assert chosen.loc[chosen["mask"] == "half", ["accurate_low", "accurate_high"]].to_numpy().tolist() == [
        row["accurate_interval"]
    ]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"^a table needs pandas: pip install 'memrecon-fast\[notebook\]'$"):
        side.to_pandas()


def test_named_runs_are_repetitions_of_what_they_are_named(tmp_path: Path) -> None:
    runs = {
        name: [make(tmp_path / name / str(n), {"half": n}, model=f"{name}{n}") for n in counts]
        for name, counts in (("fc", (2, 4)), ("unet", (8,)))
    }
    side = mf.audit.compare(runs)
    assert [run.label for run in side.runs] == ["fc: 2", "fc: 4", "unet"]
    fc, unet = (side.spread_of(name, "half", "accelerated", "members") for name in ("fc", "unet"))
    assert (fc["runs"], fc["accurate_mean"], unet["runs"], unet["accurate_mean"]) == (2, pytest.approx(0.3), 1, 0.8)
    assert unet["accurate_deviation"] is None
    assert not side.remarks


def test_no_two_runs_have_one_label(tmp_path: Path) -> None:
    runs = [make(tmp_path / name, {"half": count}, model=name) for name, count in (("fc", 2), ("other", 8))]
    side = mf.audit.compare({"": runs[0], "fc": runs[1]}, tmp_path / "out")  # the folder of one is the other's name
    assert "Mean" not in (tmp_path / "out" / "masks.md").read_text()  # of one run there is none
    assert [run.label for run in side.runs] == ["fc", "fc (2)"]
    assert [rate(side, run.label, "half") for run in side.runs] == [0.2, 0.8]


def test_images_are_the_same_by_their_pixels_wherever_they_stand(tmp_path: Path) -> None:
    names = [f"{n}.png" for n in range(4)]
    cell = Cell("members", "half", "accelerated")
    make_run(tmp_path / "a", {cell: [1e-9, 0.1, 0.1, 0.1]}, names={"members": names}, model="a")
    turned = {"members": names[:0:-1]}  # without the only image that came back
    make_run(tmp_path / "b", {cell: [1e-9, 1e-9, 0.1]}, names=turned, model="b")
    side = mf.audit.compare([tmp_path / "a", tmp_path / "b"])
    assert side.images == {"members": 3}
    assert [rate(side, name, "half", "accelerated") for name in ("a", "b")] == [0, 2 / 3]


def test_what_is_common_is_compared_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole", {"half": 2, "center": 8, "corner": 0}, members=10)
    part = make(tmp_path / "part", {"half": 2, "center": 0}, members=8, masks={"center": "other pixels"})
    one = make(tmp_path / "one", {"half": 1}, members=10, methods=METHODS[:1], error=None, settings={"seed": 7})
    stranger = make(tmp_path / "stranger", {"stripes": 1})
    side = mf.audit.compare([whole, part, one, stranger, whole])
    assert (side.masks, side.methods, side.images) == (["half"], ["accelerated"], {"members": 8, "controls": 8})
    assert [rate(side, name, "half") for name in ("whole", "part", "one")] == [2 / 8, 2 / 8, 1 / 8]
    assert [remark for remark in side.remarks if "differ in seed" not in remark] == [
        "stranger is left out: it has no mask in common with the runs before it.",
        "whole (2) is left out: it is the same folder as whole.",
        "The mask center is left out: it is not in one.",
        "The mask corner is left out: it is not in part and one.",
        "The method iterate is left out: it is not in one.",
        "Members that are not in all runs are left out: 2 of 10 in whole and 2 of 10 in one.",
        "Controls that are not in all runs are left out: 2 of 10 in whole and 2 of 10 in one.",
        "one: how well the model reconstructs its members was not measured.",
    ]
    assert [remark for remark in side.remarks if "seed" in remark] == [
        "They differ in seed: 42 in whole, 42 in part and 7 in one."
    ]
    pair = mf.audit.compare([whole, part])
    assert pair.masks == ["half"]
    others = "its pixels are others in some of the runs, as those of random masks are with another seed"
    assert f"The mask center is left out: {others}." in pair.remarks


def test_of_an_unfinished_run_the_images_that_it_has_are_compared(tmp_path: Path) -> None:
    runs = [make(tmp_path / "whole", {"half": 6}), make(tmp_path / "begun", {"half": 3}, done=5)]
    side = mf.audit.compare(runs)
    assert [side.row(name, "half", "accelerated", "members")["images"] for name in ("whole", "begun")] == [5, 5]
    assert (rate(side, "whole", None), rate(side, "begun", None)) == (1, 0.6)
    (said,) = [remark for remark in side.remarks if "Unfinished" in remark]
    assert said.startswith("begun: Unfinished: 20 of 40 recoveries are missing (10 of accelerated, 10 of iterate).")


def test_what_must_be_known_of_several_runs_is_said_once(tmp_path: Path) -> None:
    errors = {Cell(split, "half", "accelerated"): [1e-9, 0.1, 0.1] for split in SPLITS}
    for name in ("a", "b"):
        make_run(tmp_path / name, errors, near_duplicates={2: 1}, model=name)
    side = mf.audit.compare([tmp_path / "a", tmp_path / "b"])
    (said,) = [remark for remark in side.remarks if "nearly a member" in remark]
    assert said.startswith("a and b: 1 of 3 controls are nearly a member: what comes back of them is that member;")
    assert "a and b: how well the model reconstructs its members was not measured." in side.remarks


def test_where_the_originals_are_unknown_the_thresholds_are_said(tmp_path: Path) -> None:
    for name, control in (("a", 0.5), ("b", 1e-7)):
        cells = {"members": [1e-10, 1e-10, 0.5, 0.5], "controls": [0.5, 0.5, 0.5, control]}
        errors = {Cell(split, "given", "accelerated"): values for split, values in cells.items()}
        make_run(tmp_path / name, errors, degraded=True, model=name)
    side = mf.audit.compare([tmp_path / "a", tmp_path / "b"])
    found = {name: mf.audit.open(tmp_path / name).summary["recognition"][0]["threshold"] for name in ("a", "b")}
    assert found["a"] > 2 * found["b"]  # the control that comes closest sets it
    said = f"{found['a']:.1e} in a and {found['b']:.1e} in b"
    assert f"The score of accelerated below which an image counts as recognized is {said}." in side.remarks


def test_legends_fit_into_their_figures(tmp_path: Path) -> None:
    runs = {
        f"a model with a long name {n}": make(tmp_path / str(n), {"half": n}, error=10.0**-n, model=str(n))
        for n in (1, 2, 3, 4)
    }
    for name, drawing in drawings_of(mf.audit.compare(runs)).items():
        with mpl.rc_context(LOOK):
            figure = Figure(figsize=(drawing.width, drawing.height), layout="constrained")
            drawing.draw(figure)
            FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
        (legend,) = figure.legends
        assert legend.get_window_extent().x1 <= figure.bbox.x1, name
        texts = [text.get_text() for text in legend.get_texts()]
        assert texts[:2] == ["accelerated", "iterate"]
        assert texts[-1] == "controls"


def test_where_nothing_is_common_there_is_no_comparison(tmp_path: Path) -> None:
    known = make(tmp_path / "known", {"half": 1})
    other = make(tmp_path / "other", {"corner": 1})
    make_run(tmp_path / "degraded", {Cell("members", "given", "accelerated"): [1e-8, 0.5]}, degraded=True)
    with pytest.raises(ValueError, match=r"no two .* compared\. other is left out: it has no mask in common"):
        mf.audit.compare([known, other])
    with pytest.raises(ValueError, match="degraded is left out: the originals of its images are unknown"):
        mf.audit.compare([known, tmp_path / "degraded"])
    with pytest.raises(ValueError, match="at least two runs to compare, not 1"):
        mf.audit.compare([known])
    with pytest.raises(TypeError, match="expected several runs"):
        mf.audit.compare(str(known))


def test_the_tables_fit_into_a_terminal(tmp_path: Path) -> None:
    runs = [make(tmp_path / f"{'a-long-name-' * 5}{n}", {"half": 9, "random-50": n}, error=10.0**-n) for n in (8, 9)]
    side = mf.audit.compare({"a model with a name that is long": runs, "another": make(tmp_path / "x", {"half": 1})})
    stream = io.StringIO()
    console = Console(file=stream, width=80)
    for table in terminal_tables(side):
        console.print(table)
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    assert any(line.split()[-3:] == ["90.0", "90.0", "0.0"] for line in lines)
    assert any("90.0 ± 0.0" in line for line in lines)
