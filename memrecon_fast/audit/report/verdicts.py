"""`verdicts.csv`: what a run says of each image, one line each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memrecon_fast.audit.records import Columns
from memrecon_fast.audit.report.notable import only_method
from memrecon_fast.audit.report.outcomes import VERDICTS, Outcomes, gather_outcomes
from memrecon_fast.audit.report.results import Results
from memrecon_fast.audit.report.spreadsheet import write_csv

VERDICTS_FILE = "verdicts.csv"
ALL_VERDICTS = ("accurate", "approximate", "not recovered", "diverged", "not done", "unusable")
"""Those of an image over all methods and masks."""
_OF_IMAGE = ("split", "index", "name", "sha256", "problem", "near_duplicate_of")
_COUNTED = ("tried", "approximate", "accurate", "diverged")


def write_verdicts(results: Results) -> None:
    """Write the file: a line for each image of each split, whether it could be used or not.

    split, index, name, sha256, problem, near_duplicate_of: as in `images.parquet`; index and sha256 are exact, text
    may have an apostrophe in front, see `spreadsheet.write_csv`.
    verdict: over all methods and masks, see `judge`. best_psnr: dB, the highest.
    only_approximate, only_accurate: the one method that recovered it, if there are several, see `notable.alone`.
    METHOD_tried, METHOD_approximate, METHOD_accurate, METHOD_diverged: under how many masks.
    """
    counted = [f"{method}_{what}" for method in results.methods for what in _COUNTED]
    only = [f"only_{verdict}" for verdict in reversed(VERDICTS)]
    header = [*_OF_IMAGE, "verdict", "best_psnr", *only, *counted]
    path = results.folder.path / VERDICTS_FILE
    write_csv(path, header, (row for split in results.splits for row in _rows(results, split)))


def count_verdicts(results: Results) -> dict[str, dict[str, int]]:
    """For each split: how many images have each verdict of `judge`; those that none has are left out."""
    counts = {}
    for split in results.splits:
        judged = judge(gather_outcomes(results, split), _usable(results.images_of(split)))
        counts[split] = {verdict: int(count) for verdict in ALL_VERDICTS if (count := (judged == verdict).sum())}
    return counts


def judge(outcomes: Outcomes, usable: NDArray[np.bool_]) -> NDArray[np.str_]:
    """(N,): the best that came of each image: "accurate", "approximate", "not recovered", "diverged" (wherever it was
    tried), "not done" (tried nowhere) or "unusable"."""
    both = (0, 1)
    tried = outcomes.tried.any(axis=both)
    conditions = {
        "unusable": ~usable,
        "not done": ~tried,
        "accurate": outcomes.accurate.any(axis=both),
        "approximate": outcomes.approximate.any(axis=both),
        "diverged": (outcomes.diverged | ~outcomes.tried).all(axis=both),
    }
    return np.select(list(conditions.values()), list(conditions), "not recovered")


def _rows(results: Results, split: str) -> Iterator[dict[str, Any]]:
    images, outcomes = results.images_of(split), gather_outcomes(results, split)
    usable = _usable(images)
    best = np.nan_to_num(outcomes.psnr, nan=-np.inf).max(axis=(0, 1))
    columns: dict[str, list[Any]] = {name: images[name].tolist() for name in _OF_IMAGE}
    columns["verdict"] = judge(outcomes, usable).tolist()
    columns["best_psnr"] = [round(psnr, 4) if np.isfinite(psnr) else None for psnr in best.tolist()]
    for verdict in VERDICTS:
        several = len(results.methods) > 1
        winners = only_method(results, split, verdict).tolist() if several else [-1] * len(usable)
        columns[f"only_{verdict}"] = [results.methods[winner] if winner >= 0 else None for winner in winners]
    for number, method in enumerate(results.methods):
        for what in _COUNTED:
            counts = (getattr(outcomes, what)[number] & outcomes.tried[number]).sum(axis=0)
            columns[f"{method}_{what}"] = counts.tolist()
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _usable(images: Columns) -> NDArray[np.bool_]:
    return np.array([problem is None for problem in images["problem"]], bool)
