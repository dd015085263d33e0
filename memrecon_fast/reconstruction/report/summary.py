"""`summary.json`, `inputs.csv` and the inputs as arrays: what a reconstruction found, as numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from memrecon_fast.common.files import replacing, write_csv, write_json
from memrecon_fast.metrics import ACCURATE_MSE, APPROXIMATE_MSE, psnr_of
from memrecon_fast.reconstruction.compare import RECOVERED
from memrecon_fast.reconstruction.kept.results import Against, OfTarget, Results
from memrecon_fast.reconstruction.verdicts import Verdict
from memrecon_fast.results import Status

SUMMARY, INPUTS = "summary.json", "inputs.csv"
_COLUMNS = (
    "target", "input", "verdict", "share", "found_by", "starts", "sign_known", "true_image", "distance", "flipped",
    "mse", "psnr",
)  # fmt: skip


def make_summary(results: Results) -> dict[str, Any]:
    """The content of `summary.json`; numbers that are not known are None."""
    description = results.description
    plan = description["plan"]
    return {
        "targets": [
            {"name": described["name"], "done": False} if one is None else _of_target(one, plan["starts"])
            for one, described in zip(results.targets, description["targets"], strict=True)
        ],
        "plan": plan,
        "truth": description["truth"],
        "law": description["law"],
        "sessions": description["sessions"],
        "seconds": sum(session["seconds"] for session in description["sessions"]),
    }


def write_summary(results: Results, summary: Mapping[str, Any]) -> None:
    """Write `summary.json`, `inputs.csv`, and the inputs of each target as an array, `inputs-0.npy`, …: float64
    (n, d), by falling share."""
    rows = []
    for index, (one, numbers) in enumerate(zip(results.targets, summary["targets"], strict=True)):
        if one is None:
            continue
        with replacing(results.run / f"inputs-{index}.npy") as temporary, open(temporary, "wb") as stream:
            np.save(stream, one.judged.best.inputs.numpy())
        rows += [{name: {"target": index, **row}.get(name) for name in _COLUMNS} for row in numbers["inputs"]]
    write_csv(results.run / INPUTS, _COLUMNS, rows)
    write_json(results.run / SUMMARY, summary)


def _of_target(one: OfTarget, starts: int) -> dict[str, Any]:
    judged, described = one.judged, one.described
    best = judged.best
    return {
        **described,
        "done": True,
        "found": len(best.inputs),
        "explained": best.status == Status.CONVERGED,
        "residual": best.residual,
        "certain": best.certain,
        "moved": best.moved,
        "starts": starts,
        "starts_made": judged.starts,
        "starts_explained": judged.explained,
        "verdicts": {verdict.name.lower(): int((judged.verdict == int(verdict)).sum()) for verdict in Verdict},
        "signs_known": int(best.signs_known.sum()),
        "iterations": sum(solution.found.iterations for solution in one.solutions),
        "passes": sum(solution.found.passes for solution in one.solutions),
        "seconds": sum(solution.seconds for solution in one.solutions),
        "truth": None if one.against is None else _of_truth(one.against),
        "inputs": _rows(one),
    }


def _rows(one: OfTarget) -> list[dict[str, Any]]:
    """A row for each input that came out."""
    best, judged, against = one.judged.best, one.judged, one.against
    true_image = {} if against is None else {int(at): row for row, at in enumerate(against.comparison.index) if at >= 0}
    rows = []
    for index in range(len(best.inputs)):
        row = {
            "input": index,
            "verdict": Verdict(int(judged.verdict[index])).name.lower(),
            "share": float(best.gains[index]),
            "found_by": int(judged.found_by[index]),
            "starts": judged.starts,
            "sign_known": bool(best.signs_known[index]),
        }
        if against is not None and index in true_image:
            row |= _of_true_image(against, true_image[index])
        rows.append(row)
    return rows


def _of_true_image(against: Against, row: int) -> dict[str, Any]:
    mse = float(against.mse[row])
    return {
        "true_image": row,
        "distance": float(against.comparison.distance[row]),
        "flipped": bool(against.comparison.flipped[row]),
        "mse": None if math.isnan(mse) else mse,
        "psnr": None if math.isnan(mse) else min(float(psnr_of(mse)), 999.0),
    }


def _of_truth(against: Against) -> dict[str, Any]:
    comparison, mse = against.comparison, against.mse
    residual = against.feature_residual
    return {
        "images": len(mse),
        "error": comparison.error,
        "recovered": int((comparison.distance <= RECOVERED).sum()),
        "accurate": int((mse < ACCURATE_MSE).sum()),
        "approximate": int((mse < APPROXIMATE_MSE).sum()),
        "missing": int((comparison.index < 0).sum()),
        "feature_residual": None if np.isnan(residual).any() else residual.tolist(),
        "rescaled": None if against.rescaled is None else dataclasses.asdict(against.rescaled),
    }
