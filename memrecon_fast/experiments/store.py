"""The folder of an experiment: which it is, its cells as they are done, its numbers and figures."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from matplotlib.figure import Figure

from memrecon_fast.common.files import UNFINISHED, read_json, remove_unfinished, replacing, write_csv, write_json
from memrecon_fast.common.latex import latex_table
from memrecon_fast.experiments.experiment import Experiment, Outcome, Row, Table

DESCRIPTION = "experiment.json"
CELLS = "cells"
RUNS = "runs"
"""For what cells keep for good."""
WORK = "work"
"""For what cells keep before they are done; it is removed in the end."""
_LOCK = ".lock"
_DPI = 150


@contextlib.contextmanager
def opened(out: Path, identity: Mapping[str, Any]) -> Iterator[list[Any]]:
    """The folder, made where it is not there, locked, and without what a killed process left unfinished in it; gives
    what it says of earlier sessions.

    Raises ValueError as `earlier_sessions`, and where another process works in it.
    """
    sessions = earlier_sessions(out, identity)
    (out / CELLS).mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(out / _LOCK)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise ValueError(f"the same experiment is at work in {out}; wait for it, or give another folder") from None
    try:
        for folder in (out, out / CELLS):
            remove_unfinished(folder)
        yield sessions
    finally:
        lock.release()


def earlier_sessions(out: Path, identity: Mapping[str, Any]) -> list[Any]:
    """What the folder says of earlier sessions.

    identity: what its cells depend on. Raises ValueError where the folder holds something else, or the same with
    another identity.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out must be a folder; {out} is a file")
    sessions: list[Any] = []
    description = out / DESCRIPTION
    if description.exists():
        before = read_json(description)
        if not isinstance(before, dict) or not isinstance(before.get("sessions"), list):
            raise ValueError(f"{description} does not describe an experiment")
        if differing := [name for name in identity if before.get(name) != identity[name]]:
            told = "; ".join(_differing(name, before.get(name), identity[name]) for name in differing)
            raise ValueError(f"{out} holds something else ({told}); give another --out")
        sessions = before["sessions"]
    elif out.exists() and any(not path.name.endswith((_LOCK, UNFINISHED)) for path in out.iterdir()):
        raise ValueError(f"the folder {out} is not empty, and holds no experiment; give one for this alone")
    return sessions


def write_cell(out: Path, cell: str, arguments: Mapping[str, Any], outcome: Outcome) -> None:
    """Keep what a cell measured with these arguments: its arrays first, so that a cell with rows has all."""
    with replacing(out / CELLS / f"{cell}.npz") as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, **dict(outcome.arrays))  # type: ignore[arg-type]
    content = {"arguments": _described(arguments), "rows": [_for_json(row) for row in outcome.rows]}
    write_json(out / CELLS / f"{cell}.json", content)
    shutil.rmtree(out / WORK / cell, ignore_errors=True)


def read_cell(out: Path, cell: str, arguments: Mapping[str, Any]) -> Outcome | None:
    """What a cell measured; None where it is not done. Raises ValueError where its files are damaged, and where it was
    measured with other arguments: by another version."""
    path = out / CELLS / f"{cell}.json"
    if not path.exists():
        return None
    try:
        content = read_json(path)
        rows, before = content["rows"], content.get("arguments")
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
            outcome = Outcome([dict(row) for row in rows], dict(arrays))
    except (ValueError, TypeError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} or its .npz is damaged, remove it and it is made again: {error}") from error
    if before != _described(arguments):
        raise ValueError(
            f"{path} was measured with other nets, settings or masks than this version's; give another --out"
        )
    return outcome


def write_results(
    out: Path, experiment: Experiment, description: Mapping[str, Any], rows: list[Row], figures: Mapping[str, Figure]
) -> list[Path]:
    """Write `numbers.json`, `numbers.csv` and the figures, PNG and SVG; returns the paths."""
    paths = [out / "numbers.json", out / "numbers.csv"]
    about = {"experiment": experiment.name, "reproduces": experiment.reproduces, "differs": list(experiment.differs)}
    write_json(paths[0], {**description, **about, "rows": rows})
    header = list(dict.fromkeys(name for row in rows for name in row))
    write_csv(paths[1], header, [{name: _flat(row.get(name)) for name in header} for row in rows])
    for name, figure in figures.items():
        for kind in ("png", "svg"):
            path = out / f"{name}.{kind}"
            with replacing(path) as temporary:
                metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
                figure.savefig(temporary, format=kind, dpi=_DPI, metadata=metadata)
            paths.append(path)
    return paths


def write_tables(out: Path, tables: Mapping[str, Table]) -> list[Path]:
    """Write each as CSV and LaTeX; returns the paths."""
    paths = []
    for name, table in tables.items():
        rows = [dict(zip(table.header, row, strict=True)) for row in table.rows]
        write_csv(out / f"{name}.csv", table.header, rows)
        with replacing(out / f"{name}.tex") as temporary:
            temporary.write_text(latex_table(table, f"tab:memrecon-{name}"), encoding="utf-8")
        paths += [out / f"{name}.csv", out / f"{name}.tex"]
    return paths


def _differing(name: str, before: object, now: object) -> str:
    return "other images" if name == "data" else f"{name}: {before} there, {now} now"


def _described(value: Any) -> Any:
    """The arguments of a cell, for JSON: the same where they are the same."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _described({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        return {str(name): _described(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_described(one) for one in value]
    if isinstance(value, (str, int, float, type(None))):
        return value
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    raise TypeError(f"an argument of a cell cannot be kept: {type(value).__name__}")


def _for_json(row: Row) -> Row:
    return {name: _known(value) for name, value in row.items()}


def _known(value: Any) -> Any:
    """None in place of NaN and infinity, which JSON has not; a list with None in it for a list with them."""
    if isinstance(value, (list, tuple)):
        return [_known(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flat(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (list, dict)) else value
