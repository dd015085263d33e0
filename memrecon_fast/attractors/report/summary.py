"""`summary.json` and the CSV files of a survey, made from its tables alone.

`stability` has a row for members and one for controls: "images" with a verdict; how many are of each (lower-case names
of `Verdict`); "attractor_rate" with its 95 % "attractor_interval"; "fixed_points", images with one near;
"radius_below_1", images with ρ < 1, whatever their residual; "median_residual_mse", "median_radius" (None: not known).

`harvest`, None without one: "kind" and number of "starts" that were used, how many ended on "cycles", were still
"moving" or "diverged", their "evaluations"; "unseen_share" by Good and Turing, and "unseen_bound" with 95 % confidence;
and "found", None before all starts are done: how many different "fixed_points" there are, how many are of each verdict,
how many different "members" and "controls" are among them (MSE below 5e-4), how many "others" are neither (None: not
compared with members), and which share of the starts ended in a member ("share_in_members").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memrecon_fast.attractors.ends import End
from memrecon_fast.attractors.harvest import Gathering
from memrecon_fast.attractors.stability import Verdict
from memrecon_fast.attractors.survey.harvested import FOUND, FOUND_SCHEMA, STARTS
from memrecon_fast.attractors.survey.results import Results
from memrecon_fast.attractors.survey.stabilities import name_of
from memrecon_fast.attractors.unseen import unseen_share
from memrecon_fast.audit.analysis.statistics import rate_interval
from memrecon_fast.audit.store.manifest import ERRORS, doubts_of
from memrecon_fast.common.files import write_csv, write_json
from memrecon_fast.metrics import APPROXIMATE_MSE

SUMMARY = "summary.json"
VERDICTS, HARVEST = "verdicts.csv", "harvest.csv"
_VERDICT_COLUMNS = ("index", "name", "verdict", "residual_mse", "distance_mse", "fixed_point_mse", "radius")
_FOUND_COLUMNS = (
    "index", "starts", "first_start", "verdict", "residual_mse", "radius", "member", "member_name", "member_mse",
    "control", "control_name", "control_mse",
)  # fmt: skip


def make_summary(results: Results) -> dict[str, Any]:
    """The content of `summary.json`; nothing is written."""
    description, plan = results.description, results.description["plan"]
    return {
        "stability": [
            _stability(split, results.tables[name_of(split)])
            for split in results.splits
            if name_of(split) in results.tables
        ],
        "harvest": _harvest(results),
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
    """Write `summary.json`, `verdicts.csv` with a line for each image, and `harvest.csv` with one for each fixed point
    that was found. summary: of `make_summary`."""
    write_json(results.path / SUMMARY, summary)
    rows = [
        {"split": split, **row}
        for split in results.splits
        if name_of(split) in results.tables
        for row in _rows(results.tables[name_of(split)], _VERDICT_COLUMNS)
    ]
    if rows:
        write_csv(results.path / VERDICTS, ["split", *_VERDICT_COLUMNS], rows)
    if FOUND in results.tables:
        write_csv(results.path / HARVEST, _FOUND_COLUMNS, _rows(results.tables[FOUND], _FOUND_COLUMNS))


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


def is_near(table: pa.Table, split: str) -> NDArray[np.bool_]:
    """Of each fixed point of a harvest, whether it is a "member", or a "control"; never, where there are none."""
    mse = table[f"{split}_mse"].to_numpy().astype(np.float64)  # null becomes NaN
    found: NDArray[np.bool_] = mse < APPROXIMATE_MSE
    return found


def _harvest(results: Results) -> dict[str, Any] | None:
    plan = results.description["plan"]
    if results.gathering is None:
        return None
    gathering = results.gathering
    counts = [one.count for one in gathering.clusters()]
    return {
        "kind": plan["kind"],
        "starts": gathering.starts,
        "cycles": gathering.ended(End.CYCLE),
        "moving": gathering.ended(End.MOVING),
        "diverged": gathering.ended(End.DIVERGED),
        "evaluations": gathering.evaluations,
        "unseen_share": unseen_share(counts, gathering.starts),
        "unseen_bound": gathering.unseen_bound,
        "found": _found(results, gathering),
    }


def _found(results: Results, gathering: Gathering) -> dict[str, Any] | None:
    table = results.tables.get(FOUND, FOUND_SCHEMA.empty_table())
    if not results.is_complete(STARTS) or len(table) < gathering.found:
        return None
    member, control = is_near(table, "member"), is_near(table, "control")
    starts = numbers(table, "starts")
    names = verdicts(table)
    compared = "members" in results.splits
    return {
        "fixed_points": len(table),
        **{one.name.lower(): int((names == one.name).sum()) for one in Verdict},
        "members": len(set(table["member"].to_numpy()[member].tolist())),
        "controls": len(set(table["control"].to_numpy()[control].tolist())),
        "others": int((~member & ~control).sum()) if compared else None,
        "share_in_members": float(starts[member].sum() / gathering.starts) if compared else None,
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


def _rows(table: pa.Table, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    for row in table.select(list(columns)).to_pylist():
        yield {name: _plain(value) for name, value in row.items()}


def _median(values: NDArray[np.float64]) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None


def _plain(value: Any) -> Any:
    """JSON and spreadsheets have no NaN."""
    return None if isinstance(value, float) and not np.isfinite(value) else value
