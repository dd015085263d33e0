"""`mf.audit.open`: a run, finished or not, as it is read again."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import memrecon_fast as mf
from memrecon_fast.audit.store.records import RECORDS, SCHEMA
from tests.helpers.auditing import Interruption, run, small_audit
from tests.helpers.made_run import without_new
from tests.helpers.memorised import Memorised

DATA = Path(__file__).parents[1] / "data" / "e44d08c"


def test_a_finished_run(tmp_path: Path) -> None:
    shutil.copytree(DATA / "finished", tmp_path / "run")
    opened = mf.audit.open(tmp_path / "run")
    assert opened.missing == 0
    assert opened.records.schema == SCHEMA
    assert opened.records["erased_mse"].null_count == len(opened.records) == 2 * 4 * (10 + 8)
    cells = pq.read_table(tmp_path / "run" / RECORDS).group_by(["split", "mask", "method"]).aggregate([("mse", "sum")])
    ours = opened.records.group_by(["split", "mask", "method"]).aggregate([("mse", "sum")])
    assert {tuple(row.values()) for row in ours.to_pylist()} == {tuple(row.values()) for row in cells.to_pylist()}
    assert without_new(opened.summary) == json.loads((tmp_path / "run" / "summary.json").read_text())
    pictures = opened.pictures("members", "center", "paper")
    assert len(pictures) == 10
    assert {picture.recovered.shape for picture in pictures} == {(3, 8, 8)}
    with pytest.raises(ValueError, match="has no members under the mask 'half' by the method 'paper'"):
        opened.pictures("members", "half", "paper")
    assert not opened.report.exists()
    assert opened.write_report() == opened.report
    assert opened.report.is_file()


def test_an_unfinished_run(memorised: Memorised, tmp_path: Path) -> None:
    audit = small_audit(memorised)
    with pytest.raises(KeyboardInterrupt):
        run(audit, memorised.autoencoder, tmp_path / "run", report=Interruption(20), seconds=0)
    opened = mf.audit.open(tmp_path / "run")
    assert len(opened.records) == 21
    assert opened.missing == 3 * 2 * 32 - 21
    assert opened.summary["missing"] == opened.missing
    mf.audit.run(audit, memorised.autoencoder, tmp_path / "again", progress=False)
    assert len(opened.records) == 21  # as it was when it was read


def test_verdicts_are_those_of_the_file(tmp_path: Path) -> None:
    shutil.copytree(DATA / "finished", tmp_path / "run")
    opened = mf.audit.open(tmp_path / "run")
    opened.write_report()
    with open(tmp_path / "run" / "verdicts.csv", newline="", encoding="utf-8") as stream:
        expected = list(csv.DictReader(stream))
    table = opened.verdicts.to_pandas()
    assert table.columns.tolist() == list(expected[0])
    assert len(table) == len(expected) == 18
    for name in ("split", "name", "sha256", "verdict"):
        assert table[name].tolist() == [row[name] for row in expected]
    for name in ("best_psnr", "best_score", "paper_tried", "paper_accurate", "index"):
        assert table[name].tolist() == [float(row[name]) for row in expected]
    assert set(opened.verdicts.schema.types) == {pa.string(), pa.int64(), pa.float64()}  # also of columns of nothing
    back = table[table["verdict"].isin(["accurate", "approximate"])]
    assert back["split"].eq("members").all()
    assert len(back) == sum(opened.summary["verdicts"]["members"].get(one, 0) for one in ("accurate", "approximate"))


def test_what_is_no_run_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not the folder of a run: there is no"):
        mf.audit.open(tmp_path)


def test_a_run_of_which_nothing_is_done_yet(memorised: Memorised, tmp_path: Path) -> None:
    audit = small_audit(memorised)
    with pytest.raises(KeyboardInterrupt):
        run(audit, memorised.autoencoder, tmp_path / "run", report=Interruption(0))
    shutil.rmtree(tmp_path / "run" / RECORDS)
    opened = mf.audit.open(tmp_path / "run")
    assert opened.records.schema == SCHEMA
    assert (len(opened.records), opened.missing) == (0, 3 * 2 * 32)
    with pytest.raises(ValueError, match="no image was done"):
        _ = opened.summary
    said = f"Audit in {tmp_path / 'run'}: {tmp_path / 'run'} holds no records of an audit: no image was done"
    assert repr(opened) == said  # what shows a value expects no error
    assert said in opened._repr_html_()


def test_pictures_are_those_that_the_headline_method_chooses(memorised: Memorised, tmp_path: Path) -> None:
    audit = small_audit(memorised, methods=("iterate", "paper"))
    with pytest.raises(KeyboardInterrupt):  # one part file for each image, most with a picture
        run(audit, memorised.autoencoder, tmp_path / "run", report=Interruption(60), seconds=0)
    unfinished = mf.audit.open(tmp_path / "run").pictures("controls", "random-50", "paper")
    run(audit, memorised.autoencoder, tmp_path / "run")
    finished = mf.audit.open(tmp_path / "run")
    for method in audit.methods:
        pictures = finished.pictures("members", "center", method)
        assert len(pictures) == 12  # of 16
        assert [one.index for one in pictures] == sorted({one.index for one in pictures})
    assert len(unfinished) <= 12
