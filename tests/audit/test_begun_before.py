"""Runs that an earlier version made (commit e44d08c, tests/data/e44d08c) are continued, reported and read."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from memrecon_fast.audit.store.pictures import read_pictures
from memrecon_fast.images.scan import read_images_table
from tests.helpers.made_run import GIVEN_OUT, without_new

DATA = Path(__file__).parents[1] / "data" / "e44d08c"
AUDIT = [
    "audit", "memory:make", "members.npy", "--controls", "controls.npy", "--mask", "center", "--mask", "random-80",
    "--max-outer-iterations", "12", "--device", "cpu", "--keep-images", "2",
]  # fmt: skip
METHODS = ("accelerated", "paper", "known-mask", "iterate")
"""Those of an audit that named none."""
NAMED = [part for method in METHODS for part in ("--method", method)]
NEW = {"erased_mse", "nearest_member", "nearest_member_mse", "shown_member_mse", "flat_mse"}
"""Columns that the earlier version did not write."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A copy of the model, the images and the runs."""
    return Path(shutil.copytree(DATA, tmp_path / "data"))


def memrecon(folder: Path, *arguments: str, code: int = 0) -> str:
    """Run the command in this folder, where its model is imported from; returns what it says on stderr."""
    command = [sys.executable, "-m", "memrecon_fast.cli", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done.stderr


def assert_same_files(folder: Path, other: Path, kind: str) -> None:
    names = sorted(path.name for path in (folder / kind).iterdir())
    assert names == sorted(path.name for path in (other / kind).iterdir())
    for name in names:
        ours, theirs = folder / kind / name, other / kind / name
        if ours.read_bytes() == theirs.read_bytes():
            continue
        if kind == "gallery":  # the earlier version kept no member, and no more pictures than of the chosen images
            assert_holds(ours, theirs)
            continue
        # the earlier version did not record how much was erased, and which member is nearest; and
        # NumPy's logarithm is another one with AVX-512: in the last bits of the PSNR; all else is the same everywhere
        assert kind == "records", name
        table, expected = pq.read_table(ours), pq.read_table(theirs)
        assert set(table.column_names) ^ set(expected.column_names) <= NEW, name
        for column in set(expected.column_names) - {"psnr", *NEW}:
            assert str(table[column].to_pylist()) == str(expected[column].to_pylist()), (name, column)  # NaN is not NaN
        np.testing.assert_allclose(table["psnr"], expected["psnr"], rtol=1e-14)


def assert_holds(path: Path, other: Path) -> None:
    """Each of these files holds all pictures that the smaller one has."""
    ours, theirs = sorted(({one.index: one for one in read_pictures(file)} for file in (path, other)), key=len)
    for index, picture in ours.items():
        for name in ("original", "degraded", "recovered", "mask"):
            np.testing.assert_array_equal(getattr(picture, name), getattr(theirs[index], name))


def test_an_unfinished_run_is_continued_and_ends_like_a_finished_one(data: Path) -> None:
    before = {path: path.read_bytes() for path in (data / "unfinished" / "records").glob("*.parquet")}
    assert len(before) == 4
    memrecon(data, *AUDIT, *NAMED, "--out", "unfinished", "--resume")
    for path, content in before.items():
        assert path.read_bytes() == content
    for kind in ("records", "gallery", "recovered"):
        assert_same_files(data / "unfinished", data / "finished", kind)
    assert len(json.loads((data / "unfinished" / "audit.json").read_text())["sessions"]) == 2


def test_a_fresh_run_differs_in_how_the_accelerated_solver_stops(data: Path) -> None:
    memrecon(data, *AUDIT, *NAMED, "--out", "fresh")
    plans = [json.loads((data / run / "audit.json").read_text())["plan"] for run in ("finished", "fresh")]
    settings = [(plan["settings"]["stall"], plan["settings"].get("settled_counts")) for plan in plans]
    assert settings == [(10, None), (16, 8)]
    for run in ("finished", "fresh"):
        for path in (data / run / "records").glob("*.accelerated.*"):
            path.unlink()
    assert_same_files(data / "fresh", data / "finished", "records")
    images = [read_images_table(data / run / "images.parquet") for run in ("finished", "fresh")]
    assert images[0].equals(images[1])  # another pyarrow writes the same in other bytes


def test_a_run_whose_methods_were_the_default_of_its_version_is_refused_with_how_to_go_on(data: Path) -> None:
    before = (data / "unfinished" / "audit.json").read_bytes()
    (line,) = memrecon(data, *AUDIT, "--out", "unfinished", code=2).splitlines()
    assert line.endswith(f"; to go on with its methods, say {' '.join(NAMED)}")
    assert (data / "unfinished" / "audit.json").read_bytes() == before


def test_a_finished_run_is_reported_as_it_was(data: Path) -> None:
    run = data / "finished"
    said = {name: (run / name).read_text() for name in ("summary.json", "summary.csv", "verdicts.csv")}
    for name in said:
        (run / name).unlink()
    memrecon(data, "report", "finished")
    again = json.loads((run / "summary.json").read_text())
    assert without_new(again) == json.loads(said["summary.json"])
    assert again["erased_unknown"] == 2 * 4 * (10 + 8)
    assert again["low_contrast"] == {"members": None, "controls": None}  # it was not measured, and is not 0
    for name in ("summary.csv", "verdicts.csv"):
        before, now = (list(csv.DictReader(text.splitlines())) for text in (said[name], (run / name).read_text()))
        assert {line.pop("nothing_erased") for line in now} == {"0"}
        for line in now if name == "summary.csv" else []:
            assert not any(line.pop(column) for column in GIVEN_OUT)  # it is not known
        assert now == before
    page = (run / "report.html").read_text()
    assert "144 recoveries were recorded by an earlier version, without how much was erased" in page


def test_a_finished_run_has_nothing_left_to_do(data: Path) -> None:
    described = json.loads((data / "finished" / "audit.json").read_text())
    memrecon(data, *AUDIT, *NAMED, "--out", "finished", "--resume")
    again = json.loads((data / "finished" / "audit.json").read_text())
    assert again.pop("traits").keys() == set(METHODS)  # the earlier version did not write them
    assert again == described
