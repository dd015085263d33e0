"""A net that gives out training images whatever it is shown: they are found, counted, said and shown."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import memrecon_fast as mf
from memrecon_fast.audit.analysis.given_out import choose_given_out, given_out, summarise_given_out
from memrecon_fast.audit.analysis.results import Results, read_results
from memrecon_fast.audit.opened import Run
from memrecon_fast.audit.report.page import write_report
from memrecon_fast.audit.report.remarks import given_out_of
from memrecon_fast.audit.report.summary import make_summary, summarise
from memrecon_fast.audit.report.table import make_given_out_table
from memrecon_fast.audit.store.checking import fault_of_rows
from memrecon_fast.audit.store.records import NEAR_MSE, Cell, Columns
from memrecon_fast.images.scan import read_images
from tests.helpers.auditing import METHODS, Interruption, folder_of, run, small_audit
from tests.helpers.memorised import Memorised

THRESHOLD = 5e-4


@pytest.fixture(scope="module")
def finished(memorised: Memorised, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("given_out")
    run(small_audit(memorised), memorised.autoencoder, path)
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [row for file in sorted((path / "records").glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def test_every_estimate_is_compared_with_every_member(finished: Path, memorised: Memorised) -> None:
    masks = {name: mf.degradation.make_mask(name, (3, 8, 8)) for name in ("center", "random-50")}
    rows = rows_of(finished)
    assert len(rows) == 2 * 2 * len(METHODS) * 16
    some = far = 0
    for row in rows:
        if row["diverged"]:
            continue
        if row["nearest_member"] is None:
            far += 1
            assert (row["nearest_member_mse"], row["shown_member_mse"]) == (math.inf, None)
            assert row["split"] == "controls" or row["mse"] > NEAR_MSE
            continue
        assert row["nearest_member_mse"] <= NEAR_MSE
        if row["split"] == "members":
            assert row["nearest_member_mse"] <= row["mse"]
        member = memorised.members[row["nearest_member"]]
        original = getattr(memorised, row["split"])[row["index"]]
        degraded = mf.degradation.erase(original[None], masks[row["mask"]])[0]
        shown = mf.metrics.mse(degraded[None], member[None]).item()
        assert row["shown_member_mse"] == pytest.approx(shown, rel=1e-12)
        some += row["split"] == "controls" and row["nearest_member_mse"] < THRESHOLD
    assert some > 3
    assert far > 3


def test_what_iteration_makes_of_controls_is_the_member_that_is_named(finished: Path, memorised: Memorised) -> None:
    audit = small_audit(memorised)
    degraded = mf.degradation.erase(memorised.controls, audit.masks["center"])
    with torch.no_grad():
        estimates = degraded
        for _ in range(400):
            estimates = memorised.autoencoder(estimates)
    rows = pq.read_table(finished / "records" / "controls.iterate.center.parquet").to_pylist()
    out = [row for row in rows if row["nearest_member_mse"] < 1e-5 and row["status"] == "CONVERGED"]
    assert len(out) > 3
    for row in out:
        errors = mf.metrics.mse(estimates[row["index"]].expand_as(memorised.members), memorised.members)
        assert int(errors.argmin()) == row["nearest_member"]


@pytest.mark.parametrize("after", [0, 30, 100])
def test_an_interrupted_run_ends_with_the_same_files(
    finished: Path, memorised: Memorised, tmp_path: Path, after: int
) -> None:
    audit = small_audit(memorised)
    with pytest.raises(KeyboardInterrupt):
        run(audit, memorised.autoencoder, tmp_path, report=Interruption(after), seconds=0)
    run(audit, memorised.autoencoder, tmp_path)
    for kind in ("records", "gallery"):
        for path in (finished / kind).iterdir():
            assert path.read_bytes() == (tmp_path / kind / path.name).read_bytes(), path.name


def shown(row: dict[str, Any]) -> bool:
    return row["shown_member_mse"] is not None and row["shown_member_mse"] < THRESHOLD


def test_it_is_counted_said_and_shown(finished: Path) -> None:
    results = read_results(finished)
    summary = summarise(results)
    rows = rows_of(finished)
    members: set[object] = set()
    giving: set[object] = set()
    for row in summary["rows"]:
        ours = [one for one in rows if all(one[name] == row[name] for name in ("split", "mask", "method"))]
        ours = [one for one in ours if one["erased_mse"] >= THRESHOLD and not shown(one)]
        some = [one for one in ours if not one["diverged"] and one["nearest_member_mse"] < THRESHOLD]
        other = [one for one in some if not one["approximate"]]
        assert row["compared"] == len(ours)
        assert row["own_member"] == (len(some) - len(other) if row["split"] == "members" else 0)
        assert (row["other_member"], row["different_members"]) == (
            len(other),
            len({one["nearest_member"] for one in other}),
        )
        if row["split"] == "controls":
            members |= {one["nearest_member"] for one in other}
            giving |= {one["index"] for one in other}
    found = summary["given_out"]["by_model"]["controls"]
    assert found == {"split": "controls", "images": 16, "giving": len(giving), "members": len(members)}
    assert len(members) > 3
    words = f"Shown 16 pictures it had never seen, the model gave out {len(members)} of its training images."
    assert given_out_of(summary)[0] == words
    assert make_given_out_table(summary) is not None
    page = write_report(results, summary).read_text()
    assert words in page
    assert page.count("what was shown of control") >= 3
    assert "different_members" in (finished / "summary.csv").read_text().splitlines()[0]


def test_no_methods_count_for_the_model_that_do_not_use_it(memorised: Memorised, tmp_path: Path) -> None:
    run(small_audit(memorised, methods=("inpaint",)), memorised.autoencoder, tmp_path)
    summary = make_summary(read_results(tmp_path))
    assert all(row["compared"] == row["images"] > 10 for row in summary["rows"])
    assert summary["given_out"]["by_model"]["controls"] == {"split": "controls", "images": 0, "giving": 0, "members": 0}
    assert given_out_of(summary) == []


def test_degraded_members_are_compared_with_nothing(memorised: Memorised, tmp_path: Path) -> None:
    mask = mf.degradation.make_mask("center", (3, 8, 8))
    given = dataclasses.replace(memorised, members=mf.degradation.erase(memorised.members, mask))
    audit = small_audit(given, controls=0, masks={"given": mask}, methods=("known-mask",), degraded=True)
    run(audit, memorised.autoencoder, tmp_path)
    for row in rows_of(tmp_path):
        assert [row[name] for name in ("nearest_member", "nearest_member_mse", "shown_member_mse")] == [None] * 3
    summary = make_summary(read_results(tmp_path))
    assert "given_out" not in summary
    assert given_out_of(summary) == []


CELL = Cell("controls", "center", "iterate")


def changed(results: Results, cell: Cell = CELL, **columns: object) -> Results:
    """The results with these columns of a cell instead."""
    table: Columns = {name: np.array(column) for name, column in results.cells[cell].items()}
    for name, values in columns.items():
        table[name] = np.array(values)
    return dataclasses.replace(results, cells={**results.cells, cell: table})


def test_what_was_shown_was_not_given_out(finished: Path) -> None:
    """Neither a copy that is that member already, nor a near-duplicate of a member, nor what is not known."""
    results = read_results(finished)
    count = len(results.cells[CELL]["index"])
    near, far, no = np.full(count, 1e-5), np.full(count, 0.1), np.full(count, np.nan)
    all_out = changed(
        results, nearest_member=np.arange(float(count)), nearest_member_mse=near, shown_member_mse=far, mse=far
    )
    found = given_out(all_out, CELL)
    assert found is not None
    assert found.other.all() and found.different() == set(range(count))  # noqa: PT018
    assert given_out(changed(all_out, shown_member_mse=near), CELL) is None
    half = np.where(np.arange(count) % 2, near, far)
    found = given_out(changed(all_out, shown_member_mse=half), CELL)
    assert found is not None
    assert found.index.tolist() == results.cells[CELL]["index"][::2].tolist()
    images = dict(results.images)
    near_duplicates = (images["split"] == "controls") & (images["index"] < images["index"].max())
    images["near_duplicate_of"] = np.array(["3" if one else None for one in near_duplicates])
    found = given_out(dataclasses.replace(all_out, images=images), CELL)
    assert found is not None
    assert found.index.tolist() == [15]
    unknown = changed(all_out, nearest_member=no, nearest_member_mse=no, shown_member_mse=no)
    assert given_out(unknown, CELL) is None
    diverged = changed(unknown, diverged=np.ones(count, bool))
    found = given_out(diverged, CELL)
    assert found is not None
    assert (len(found.index), found.other.sum(), found.different()) == (count, 0, set())
    itself = given_out(changed(all_out, mse=near), CELL)  # a control that comes back, beside a member that is like it
    assert itself is not None
    assert not itself.other.any()
    assert not itself.own.any()
    assert summarise_given_out(all_out)["by_model"]["controls"]["members"] >= count


def test_the_pictures_of_all_are_among_those_of_any_part() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        count, part = int(random.integers(1, 60)), int(random.integers(1, 30))
        columns: Columns = {
            "nearest_member": random.integers(0, 12, count).astype(float),
            "nearest_member_mse": random.choice([1e-9, 0.1, np.nan], count),
            "shown_member_mse": random.choice([1e-9, 0.1], count, p=[0.1, 0.9]),
            "mse": random.choice([1e-9, 0.1], count, p=[0.1, 0.9]),
            "erased_mse": random.choice([1e-9, 0.1], count, p=[0.1, 0.9]),
        }
        chosen = choose_given_out(columns)
        assert len(chosen) <= 8
        assert len(set(columns["nearest_member"][chosen])) == len(chosen)
        rows = np.sort(random.choice(count, min(part, count), replace=False))
        of_part = rows[choose_given_out({name: column[rows] for name, column in columns.items()})]
        assert set(chosen) & set(rows.tolist()) <= set(of_part.tolist())


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("nearest_member", 16, "there is no such member"),
        ("nearest_member", -1, "there is no such member"),
        ("nearest_member", None, "in part"),
        ("nearest_member_mse", 0.9, "further away"),
        ("nearest_member_mse", -0.1, "further away"),
        ("nearest_member_mse", math.inf, "in part"),
        ("nearest_member_mse", -math.inf, "further away"),
        ("shown_member_mse", None, "in part"),
        ("diverged", True, ""),
    ],
)
def test_a_file_that_says_what_cannot_be_is_found(finished: Path, name: str, value: object, words: str) -> None:
    cell = Cell("members", "center", "paper")
    table = folder_of(finished).table(cell)
    images = read_images(finished / "images.parquet")
    assert fault_of_rows(table, cell, images, complete=True) == ""
    at = table.column_names.index(name)
    values = [value, *table[name].to_pylist()[1:]]
    wrong = table.set_column(at, table.schema.field(name), [values])
    fault = fault_of_rows(wrong, cell, images, complete=True)
    assert fault
    assert words in fault


def test_a_member_that_came_back_is_near_one(finished: Path) -> None:
    cell = Cell("members", "center", "paper")
    table = folder_of(finished).table(cell)
    images = read_images(finished / "images.parquet")
    back = int(np.flatnonzero(table["approximate"].to_numpy())[0])
    for name, value in (("nearest_member", None), ("nearest_member_mse", math.inf), ("shown_member_mse", None)):
        values = table[name].to_pylist()
        values[back] = value
        table = table.set_column(table.column_names.index(name), table.schema.field(name), [values])
    assert "further away" in fault_of_rows(table, cell, images, complete=True)


def test_the_summary_is_shown_by_the_run(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    Run(finished).write_report(Console(width=80))
    shown = capsys.readouterr().out
    assert "the model gave out" in shown
    assert "different" in shown
    assert max(map(len, shown.split("Shown")[0].splitlines())) <= 80
    assert json.loads((finished / "summary.json").read_text())["given_out"]["by_method"]
