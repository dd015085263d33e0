"""`verdicts.csv`: what a run says of each image, one line each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from memrecon_fast.audit.analysis.outcomes import Outcomes, gather_outcomes
from memrecon_fast.audit.analysis.results import Results
from memrecon_fast.audit.report.notable import only_method
from memrecon_fast.audit.report.spreadsheet import write_csv
from memrecon_fast.audit.store.records import Columns
from memrecon_fast.methods import RECOGNIZED

VERDICTS_FILE = "verdicts.csv"
_OF_IMAGE = ("split", "index", "name", "sha256", "problem", "near_duplicate_of")


def write_verdicts(results: Results) -> None:
    """Write the file: a line for each image of each split, whether it could be used or not.

    split, index, name, sha256, problem, near_duplicate_of: as in `images.parquet`; index and sha256 are exact, text
    may have an apostrophe in front, see `spreadsheet.write_csv`.
    verdict: over all methods and masks, see `judge`. best_psnr: dB, the highest. best_score: the lowest.
    only_approximate, only_accurate: the one method that recovered it, if there are several, see `notable.alone`.
    METHOD_tried, METHOD_approximate, METHOD_accurate, METHOD_recognized, METHOD_diverged: under how many masks.

    Where the originals are unknown, there are no best_psnr, approximate and accurate, but only_recognized.
    """
    columns = [_columns(results, split) for split in results.splits]
    rows = (dict(zip(one, values, strict=True)) for one in columns for values in zip(*one.values(), strict=True))
    write_csv(results.folder.path / VERDICTS_FILE, list(columns[0]), rows)


def count_verdicts(results: Results) -> dict[str, dict[str, int]]:
    """For each split: how many images have each verdict of `judge`; those that none has are left out."""
    counts = {}
    for split in results.splits:
        judged = judge(results, gather_outcomes(results, split), _usable(results.images_of(split)))
        counts[split] = {
            verdict: int(count) for verdict in all_verdicts(results) if (count := (judged == verdict).sum())
        }
    return counts


def all_verdicts(results: Results) -> tuple[str, ...]:
    """Those of an image over all methods and masks."""
    return (*results.verdicts, _otherwise(results), "diverged", "not done", "unusable")


def judge(results: Results, outcomes: Outcomes, usable: NDArray[np.bool_]) -> NDArray[np.str_]:
    """(N,): the best that came of each image: "accurate", "approximate", "not recovered" (without the originals
    "recognized", "not recognized"), "diverged" (wherever it was tried), "not done" (tried nowhere) or "unusable"."""
    both = (0, 1)
    tried = outcomes.tried.any(axis=both)
    conditions = {
        "unusable": ~usable,
        "not done": ~tried,
        **{verdict: getattr(outcomes, verdict).any(axis=both) for verdict in results.verdicts},
        "diverged": (outcomes.diverged | ~outcomes.tried).all(axis=both),
    }
    return np.select(list(conditions.values()), list(conditions), _otherwise(results))


def _otherwise(results: Results) -> str:
    return "not recognized" if results.degraded else "not recovered"


def _columns(results: Results, split: str) -> dict[str, list[Any]]:
    images, outcomes = results.images_of(split), gather_outcomes(results, split)
    usable = _usable(images)
    columns: dict[str, list[Any]] = {name: images[name].tolist() for name in _OF_IMAGE}
    columns["verdict"] = judge(results, outcomes, usable).tolist()
    if not results.degraded:
        best = np.nan_to_num(outcomes.psnr, nan=-np.inf).max(axis=(0, 1))
        columns["best_psnr"] = [round(psnr, 4) if np.isfinite(psnr) else None for psnr in best.tolist()]
    lowest = outcomes.scores.min(axis=(0, 1))
    columns["best_score"] = [float(f"{score:.4g}") if np.isfinite(score) else None for score in lowest.tolist()]
    for verdict in reversed(results.verdicts):
        several = len(results.methods) > 1
        winners = only_method(results, split, verdict).tolist() if several else [-1] * len(usable)
        columns[f"only_{verdict}"] = [results.methods[winner] if winner >= 0 else None for winner in winners]
    counted = dict.fromkeys(("tried", *reversed(results.verdicts), "recognized", "diverged"))
    for number, method in enumerate(results.methods):
        for what in counted:
            if what != "recognized" or method in RECOGNIZED:
                counts = (getattr(outcomes, what)[number] & outcomes.tried[number]).sum(axis=0)
                columns[f"{method}_{what}"] = counts.tolist()
    return columns


def _usable(images: Columns) -> NDArray[np.bool_]:
    return np.array([problem is None for problem in images["problem"]], bool)
