"""`summary.json` and the CSV files of a survey, made from its tables alone.

`stability` has a row for members and one for controls: "images" with a verdict; how many are of each (lower-case names
of `Verdict`); "attractor_rate" with its 95 % "attractor_interval"; "fixed_points", images with one near;
"radius_below_1", images with ρ < 1, whatever their residual; "median_residual_mse", "median_radius" (None: not known).

`harvest`, None without one: "kind" and number of "starts" that were used, how many ended on "cycles", were still
"moving" or "diverged", their "evaluations"; "unseen_share" by Good and Turing, and "unseen_bound" with 95 % confidence;
and "found", None before all starts are done: how many different "fixed_points" there are, how many are of each verdict,
how many different "members" and "controls" are among them (MSE below 5e-4), how many "others" are neither, and of these
how many "resemble" the member nearest to them (their pixels are correlated by more than 0.95: it may be that image in
another brightness or contrast), and which share of the starts ended in a member ("share_in_members"). None: not
compared with members.

`curve`, None without one: "kind" and number of "starts", "members" they are compared with, "times", and for each time
the "share" that is a member then, π(t), the 95 % "interval" of it, how many "different" members these are, and how many
starts have "diverged".

`basins` has an entry for each way to move away from the members: "degradation" and "levels"; "images"; for each level
how many images "return" (at least half of the draws do), and how many do not, but fall "to_another" member in most of
the draws that failed; of how many most draws "began_near" the image (their return says nothing), were "unsettled" when
iterations were over, or "diverged"; the "median" size
with its "median_censoring" (lower-case name of `Censoring`), and how many images are "at_or_above" the largest level,
"below" the smallest, or not "monotonic".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memrecon_fast.attractors.basins import Basins, Censoring
from memrecon_fast.attractors.ends import End
from memrecon_fast.attractors.harvest import Gathering
from memrecon_fast.attractors.stability import Verdict
from memrecon_fast.attractors.survey.basin_tables import basin_name_of, basins_of
from memrecon_fast.attractors.survey.curve_table import CURVE, curve_of
from memrecon_fast.attractors.survey.harvested import FOUND, FOUND_SCHEMA, STARTS
from memrecon_fast.attractors.survey.results import Results
from memrecon_fast.attractors.survey.stabilities import name_of
from memrecon_fast.attractors.survey.table import INDEX
from memrecon_fast.attractors.unseen import unseen_share
from memrecon_fast.audit.analysis.statistics import rate_interval
from memrecon_fast.audit.store.manifest import ERRORS, doubts_of
from memrecon_fast.common.files import write_csv, write_json
from memrecon_fast.metrics import APPROXIMATE_MSE

RESEMBLES = 0.95
"""Above this correlation with the nearest member, it may be that image in another brightness or contrast."""
SUMMARY = "summary.json"
VERDICTS, HARVEST, BASINS = "verdicts.csv", "harvest.csv", "basins.csv"
_VERDICT_COLUMNS = ("index", "name", "verdict", "residual_mse", "distance_mse", "fixed_point_mse", "radius")
_FOUND_COLUMNS = (
    "index", "starts", "first_start", "verdict", "residual_mse", "radius",
    "member", "member_name", "member_mse", "member_correlation",
    "control", "control_name", "control_mse", "control_correlation",
)  # fmt: skip


_BASIN_COLUMNS = ("degradation", "index", "name", "size", "censoring", "monotonic")


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
        "curve": _curve(results),
        "basins": _basins(results),
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
    """Write `summary.json`, `verdicts.csv` with a line for each image, `harvest.csv` with one for each fixed point that
    was found, and `basins.csv` with one for each basin. summary: of `make_summary`."""
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
    if basins := [row for one in summary["basins"] for row in _sizes(results, one["degradation"])]:
        write_csv(results.path / BASINS, _BASIN_COLUMNS, basins)


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
        "resemble": int((~member & ~control & (numbers(table, "member_correlation") > RESEMBLES)).sum())
        if compared
        else None,
        "share_in_members": float(starts[member].sum() / gathering.starts) if compared else None,
    }


def _curve(results: Results) -> dict[str, Any] | None:
    rows = results.tables.get(CURVE)
    if rows is None:
        return None
    curve = curve_of(rows, results.description["plan"], results.usable("members"))
    return {
        "kind": curve.kind,
        "starts": len(rows),
        "members": curve.members,
        **{name: getattr(curve, name).tolist() for name in ("times", "share", "interval", "different", "diverged")},
    }


def _basins(results: Results) -> list[dict[str, Any]]:
    return [
        _basin(basins_of(results.tables[basin_name_of(name)], results.description["plan"], name))
        for name in results.description["plan"]["basins"]
        if basin_name_of(name) in results.tables
    ]


def _basin(found: Basins) -> dict[str, Any]:
    size, censoring = found.median
    failed = found.draws - found.back
    return {
        "degradation": found.degradation,
        "levels": found.levels.tolist(),
        "images": len(found.draws),
        "return": found.returns.sum(dim=0).tolist(),
        "to_another": ((found.another > failed / 2) & ~found.returns).sum(dim=0).tolist(),
        "began_near": (found.began_near > found.draws / 2).sum(dim=0).tolist(),
        "unsettled": (found.unsettled > found.draws / 2).sum(dim=0).tolist(),
        "diverged": (found.diverged > found.draws / 2).sum(dim=0).tolist(),
        "median": size,
        "median_censoring": censoring.name.lower(),
        "at_or_above": int((found.censoring == int(Censoring.AT_OR_ABOVE)).sum()),
        "below": int((found.censoring == int(Censoring.BELOW)).sum()),
        "not_monotonic": int((~found.monotonic).sum()),
    }


def _sizes(results: Results, degradation: str) -> Iterator[dict[str, Any]]:
    """A line for each image."""
    rows = results.tables[basin_name_of(degradation)]
    found = basins_of(rows, results.description["plan"], degradation)
    columns = (rows[INDEX].to_numpy(), rows["name"].to_numpy(), found.size, found.censoring, found.monotonic)
    for index, name, size, censoring, monotonic in zip(*(column.tolist() for column in columns), strict=True):
        yield {
            "degradation": degradation,
            "index": index,
            "name": name,
            "size": size,
            "censoring": Censoring(censoring).name.lower(),
            "monotonic": monotonic,
        }


def _near_duplicates(results: Results) -> int:
    """How many controls are nearly a member: they are members as far as attractors go."""
    return 0 if results.images is None else sum(name is not None for name in results.images["near_duplicate_of"])


def _missing(results: Results) -> dict[str, int]:
    """By table, how many rows there are not yet; but for those of a harvest, which may need fewer than planned."""
    plan = results.description["plan"]
    wanted = {name_of(split): results.usable(split) for split in results.splits}
    wanted |= {CURVE: plan["curve"]} | {basin_name_of(name): wanted[name_of("members")] for name in plan["basins"]}
    counts = {name: count - len(results.tables.get(name, ())) for name, count in wanted.items()}
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
