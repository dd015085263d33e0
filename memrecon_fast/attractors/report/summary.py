"""`summary.json` and the CSV files of a survey, made from its tables alone.

`stability` has a row for members and one for controls: "images" with a verdict; how many are of each (lower-case names
of `Verdict`); "attractor_rate" with its 95 % "attractor_interval"; "fixed_points", images with one near;
"radius_below_1", images with ρ < 1, whatever their residual; "median_residual_mse", "median_radius" (None: not known).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memrecon_fast.attractors.stability import Verdict
from memrecon_fast.attractors.survey.results import Results
from memrecon_fast.attractors.survey.stabilities import name_of
from memrecon_fast.audit.analysis.statistics import rate_interval
from memrecon_fast.audit.store.manifest import ERRORS, doubts_of
from memrecon_fast.common.files import write_csv, write_json

SUMMARY = "summary.json"
VERDICTS = "verdicts.csv"
_VERDICT_COLUMNS = ("index", "name", "verdict", "residual_mse", "distance_mse", "fixed_point_mse", "radius")


def make_summary(results: Results) -> dict[str, Any]:
    """The content of `summary.json`; nothing is written."""
    description, plan = results.description, results.description["plan"]
    return {
        "stability": [
            _stability(split, results.tables[name_of(split)])
            for split in results.splits
            if name_of(split) in results.tables
        ],
        **({ERRORS: description[ERRORS]} if ERRORS in description else {}),
        "near_duplicates": _near_duplicates(results),
        "doubts": doubts_of(description),
        "missing": _missing(results),
        "model": description["model"],
        "sources": description["sources"],
        "images": {split: results.usable(split) for split in results.splits},
        "unusable": {split: description["counts"][split]["unusable"] for split in results.splits},
        "image_shape": plan["image_shape"],
        "seconds": sum(session["seconds"] or 0 for session in description["sessions"]),
        "plan": plan,
        "sessions": description["sessions"],
    }


def write_summary(results: Results, summary: Mapping[str, Any]) -> None:
    """Write `summary.json`, and `verdicts.csv` with a line for each image. summary: of `make_summary`."""
    write_json(results.path / SUMMARY, summary)
    rows = [
        {"split": split, **{name: _plain(value) for name, value in row.items()}}
        for split in results.splits
        if name_of(split) in results.tables
        for row in results.tables[name_of(split)].select(list(_VERDICT_COLUMNS)).to_pylist()
    ]
    if rows:
        write_csv(results.path / VERDICTS, ["split", *_VERDICT_COLUMNS], rows)


def numbers(table: pa.Table, column: str) -> NDArray[np.float64]:
    """A column of numbers as float64."""
    found: NDArray[np.float64] = table[column].to_numpy().astype(np.float64)
    return found


def verdicts(table: pa.Table) -> NDArray[np.str_]:
    """The names of the verdicts."""
    return np.array(table["verdict"].to_pylist(), str)


def _stability(split: str, table: pa.Table) -> dict[str, Any]:
    found, radius = verdicts(table), numbers(table, "radius")
    attractors = int((found == Verdict.ATTRACTOR.name).sum())
    return {
        "split": split,
        "images": len(table),
        **{one.name.lower(): int((found == one.name).sum()) for one in Verdict},
        "attractor_rate": attractors / len(table),
        "attractor_interval": list(rate_interval(attractors, len(table))),
        "fixed_points": int((found != Verdict.NO_FIXED_POINT.name).sum()),
        "radius_below_1": int((radius < 1).sum()),
        "median_residual_mse": _median(numbers(table, "residual_mse")),
        "median_radius": _median(radius),
    }


def _near_duplicates(results: Results) -> int:
    """How many controls are nearly a member: they are members as far as attractors go."""
    return 0 if results.images is None else sum(name is not None for name in results.images["near_duplicate_of"])


def _missing(results: Results) -> dict[str, int]:
    """By table, of how many images there is no row yet."""
    counts = {
        name: results.usable(split) - len(results.tables.get(name, ()))
        for split in results.splits
        for name in [name_of(split)]
    }
    return {name: count for name, count in counts.items() if count}


def _median(values: NDArray[np.float64]) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None


def _plain(value: Any) -> Any:
    """JSON and spreadsheets have no NaN."""
    return None if isinstance(value, float) and not np.isfinite(value) else value
