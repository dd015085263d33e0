"""Tables that are wanted as a pandas DataFrame."""

from __future__ import annotations

import copy
import pickle
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import memrecon_fast as mf
from memrecon_fast.audit.store.records import Cell
from memrecon_fast.showing.frames import Rows
from tests.helpers.made_run import make_run

TABLE = pa.table({"name": ["a", "b"], "mse": [0.5, None]})


def test_rows_are_a_table_of_pyarrow(tmp_path: Path) -> None:
    rows = Rows(TABLE)
    assert rows.column_names == ["name", "mse"]
    assert rows["name"].to_pylist() == ["a", "b"]
    assert len(rows) == len(rows.to_pylist()) == 2
    assert repr(rows) == repr(TABLE)
    assert rows.equals(TABLE)
    assert rows.equals(Rows(TABLE))
    assert not rows.equals(TABLE[:1])
    assert pa.table(rows).equals(TABLE)
    assert copy.copy(rows).equals(rows)
    assert pickle.loads(pickle.dumps(rows)).equals(rows)
    pq.write_table(rows.arrow, tmp_path / "rows.parquet")
    assert rows.to_pandas(types_mapper={pa.float64(): None}.get)["name"].tolist() == ["a", "b"]


def test_without_pandas_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "run", {Cell("members", "half", "paper"): [1e-9, 0.5]})
    run = mf.audit.open(tmp_path / "run")
    assert run.verdicts.to_pandas()["verdict"].tolist() == ["accurate", "not recovered"]
    monkeypatch.setitem(sys.modules, "pandas", None)
    for rows in (run.verdicts, run.records):
        with pytest.raises(ImportError, match=r"^a table needs pandas: pip install 'memrecon-fast\[notebook\]'$"):
            rows.to_pandas()
