"""`summary.json`, `summary.csv` and `verdicts.csv`: what a run says, for machines, made from its records alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memrecon_fast.audit.analysis.comparisons import compare_by_mask, compare_over_masks
from memrecon_fast.audit.analysis.given_out import given_out, summarise_given_out
from memrecon_fast.audit.analysis.outcomes import gather_outcomes
from memrecon_fast.audit.analysis.recognition import Recognition, recognitions_of
from memrecon_fast.audit.analysis.results import Results
from memrecon_fast.audit.analysis.statistics import rate_interval, scores
from memrecon_fast.audit.analysis.unaided import unaided
from memrecon_fast.audit.report.verdicts import (
    alone,
    copies,
    count_verdicts,
    low_contrast,
    near_duplicates,
    unusable,
    write_verdicts,
)
from memrecon_fast.audit.store.manifest import ERRORS, cells_of, doubts_of
from memrecon_fast.audit.store.records import Cell
from memrecon_fast.common.files import write_csv, write_json
from memrecon_fast.results import Status

SUMMARY = "summary.json"
ROWS = "summary.csv"


def summarise(results: Results) -> dict[str, Any]:
    """Make the summary and write its files; returns the content of `summary.json`."""
    summary = make_summary(results)
    write_summary(results, summary)
    return summary


def make_summary(results: Results) -> dict[str, Any]:
    """The content of `summary.json`; nothing is written."""
    description, plan = results.description, results.description["plan"]
    counts = description["counts"]
    recognitions = recognitions_of(results)
    return {
        "rows": [
            summarise_cell(cell, results, recognitions.get((cell.mask, cell.method)))
            for cell in cells_of(description)
            if cell in results.cells or cell in results.left_out
        ],
        "rows_over_masks": summarise_over_masks(results),
        **(_against_originals(results) if not results.degraded else {}),
        **({ERRORS: description[ERRORS]} if ERRORS in description else {}),
        "recognition": [recognition.row() for recognition in recognitions.values()],
        "alone": alone(results),
        "verdicts": count_verdicts(results),
        "iterations": summarise_iterations(results),
        "doubts": doubts_of(description),
        "missing": results.missing(),
        "erased_unknown": results.unknown,
        "copies": copies(results),
        "unusable": unusable(results),
        "model": description["model"],
        "sources": description["sources"],
        "images": {split: counts[split]["images"] - counts[split]["unusable"] for split in results.splits},
        "image_shape": plan["image_shape"],
        "masks": results.masks,
        "methods": results.methods,
        "traits": {method: dataclasses.asdict(traits) for method, traits in results.traits.items()},
        "headline": results.headline,
        "settings": plan["settings"],
        **{name: plan[name] for name in results.methods if name in plan},
        "noise_std": plan["noise_std"],
        "degraded": results.degraded,
        "seconds": sum(session["seconds"] or 0 for session in description["sessions"]),
        "plan": plan,
        "sessions": description["sessions"],
    }


def write_summary(results: Results, summary: Mapping[str, Any]) -> None:
    """Write `summary.json`, `summary.csv` and `verdicts.csv`; summary: of `make_summary`."""
    write_json(results.folder.path / SUMMARY, summary)
    flat = [_flat(row) for row in summary["rows"]]
    write_csv(results.folder.path / ROWS, list(flat[0]), flat)
    write_verdicts(results)


def _against_originals(results: Results) -> dict[str, Any]:
    """The part that needs the originals."""
    beside = [{**dataclasses.asdict(row), "approximate_rate": row.rate} for row in unaided(results)]
    return {
        "comparisons": [comparison.row() for comparison in compare_by_mask(results)],
        "comparisons_over_masks": [comparison.row() for comparison in compare_over_masks(results)],
        "near_duplicates": near_duplicates(results),
        "low_contrast": low_contrast(results),
        **({"without_model": beside} if beside else {}),
        "given_out": summarise_given_out(results),
    }


def summarise_cell(cell: Cell, results: Results, recognition: Recognition | None) -> dict[str, Any]:
    """The row of a cell: rates are shares of its images, with 95 % confidence intervals; mean PSNR in dB, of estimates
    clipped to [0, 1]; how many are recognized, and for how many that is what the comparison with the original says.

    compared: how many estimates count where they are compared with all members, see `given_out`; own_member: how many
    of them are the image itself, a member; other_member: another one; different_members: how many these are. None where
    it is not known.

    mean_evaluations: None by a method of which they are not counted: one that is no iteration in slots.
    images: those that count. nothing_erased: those that do not, see `statistics.something_erased`. Where no image
    counts, rates and means are None. recognition: None where the method has none.
    """
    verdicts = results.verdicts
    row: dict[str, Any] = {**dataclasses.asdict(cell), "images": 0}
    left_out = {"nothing_erased": len(results.left_out.get(cell, ()))}
    columns = results.cells.get(cell)
    if columns is None:
        rates = [f"{verdict}_{what}" for verdict in verdicts for what in ("rate", "interval")]
        more = ["recognized_rate", "agreement", "mean_psnr", *_GIVEN_OUT] if "approximate" in verdicts else []
        return row | dict.fromkeys([*rates, *more, "mean_evaluations"]) | {"diverged": 0} | left_out
    known = recognition is not None
    recognized = scores(columns) < (recognition.calibration.threshold if recognition is not None else 0.0)
    said = {**columns, "recognized": recognized}
    row["images"] = len(recognized)
    for verdict in verdicts:
        row |= _rate(verdict, said[verdict])
    if "approximate" in verdicts:
        row |= {
            "recognized_rate": float(recognized.mean()) if known else None,
            "agreement": float((recognized == columns["approximate"]).mean()) if known else None,
            "mean_psnr": float(columns["psnr"].mean()),
            **_given_out(results, cell),
        }
    row |= {
        "mean_evaluations": float(columns["evaluations"].mean()) if columns["evaluations"].any() else None,
        "diverged": int(columns["diverged"].sum()),
    }
    return row | left_out


_GIVEN_OUT = ("compared", "own_member", "other_member", "different_members")


def _given_out(results: Results, cell: Cell) -> dict[str, int | None]:
    found = given_out(results, cell)
    if found is None:
        return dict.fromkeys(_GIVEN_OUT)
    counts = (len(found.index), int(found.own.sum()), int(found.other.sum()), len(found.different()))
    return dict(zip(_GIVEN_OUT, counts, strict=True))


def summarise_over_masks(results: Results) -> list[dict[str, Any]]:
    """For each split and method: how many of the images that were tried were recovered under at least one mask."""
    rows = []
    for split in results.splits:
        outcomes = gather_outcomes(results, split)
        back = {verdict: outcomes.came_back(verdict) for verdict in results.verdicts}
        for number, method in enumerate(results.methods):
            tried = outcomes.tried[number].any(axis=0)
            if not tried.any():
                continue
            row: dict[str, Any] = {"split": split, "method": method, "images": int(tried.sum())}
            for verdict in results.verdicts:
                row |= {verdict: int(back[verdict][number].sum()), **_rate(verdict, back[verdict][number, tried])}
            rows.append(row)
    return rows


def summarise_iterations(results: Results) -> list[dict[str, Any]]:
    """For each method, over all masks and splits: how the recoveries ended, and after how many outer iterations."""
    rows = []
    for method in results.methods:
        ours = [columns for cell, columns in results.cells.items() if cell.method == method]
        if not ours:
            continue
        iterations = np.concatenate([columns["outer_iterations"] for columns in ours])
        status = np.concatenate([columns["status"] for columns in ours])
        row: dict[str, Any] = {"method": method, "recoveries": len(iterations)}
        row |= {one.name.lower(): int((status == one.name).sum()) for one in Status}
        row |= {"median": float(np.median(iterations)), "longest": int(iterations.max())}
        rows.append(row)
    return rows


def _rate(verdict: str, positive: NDArray[Any]) -> dict[str, Any]:
    return {
        f"{verdict}_rate": float(positive.mean()),
        f"{verdict}_interval": list(rate_interval(int(positive.sum()), len(positive))),
    }


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """An interval as two columns."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if name.endswith("_interval"):
            low, high = value or (None, None)
            flat |= {f"{name}_low": low, f"{name}_high": high}
        else:
            flat[name] = value
    return flat
