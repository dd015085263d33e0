"""What a run says of each image: `verdicts.csv`, one line each, and the few images that the summary names."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memrecon_fast.audit.analysis.outcomes import Outcomes, gather_outcomes
from memrecon_fast.audit.analysis.results import Results
from memrecon_fast.audit.store.records import Columns
from memrecon_fast.common.files import write_csv
from memrecon_fast.metrics import APPROXIMATE_MSE

VERDICTS_FILE = "verdicts.csv"
MAX_NAMED = 20
"""Images that the summary names of a kind; `verdicts.csv` has all of them."""
_OF_IMAGE = ("split", "index", "name", "sha256", "problem", "near_duplicate_of")


def write_verdicts(results: Results) -> None:
    """Write the file: a line for each image of each split, whether it could be used or not.

    split, index, name, sha256, problem, near_duplicate_of: as in `images.parquet`; index and sha256 are exact, text
    may have an apostrophe in front, see `files.write_csv`.
    verdict: the best over all masks and all methods that use the model, if there are any: accurate, approximate, not
        recovered (without the originals: recognized, not recognized), diverged, nothing erased, not done or unusable.
    best_psnr: dB, the highest of the same. best_score: the lowest.
    only_approximate, only_accurate: the method that recovered it where exactly one of several did; empty where none
        did, or more than one. Only masks under which all methods have tried the image count.
    nothing_erased: under how many masks it does not count, as nothing was erased of it.
    METHOD_tried, METHOD_approximate, METHOD_accurate, METHOD_recognized, METHOD_diverged: under how many of the masks
    where it counts.

    Where the originals are unknown, there are no best_psnr, approximate and accurate, but only_recognized.
    """
    columns = [_columns(results, split) for split in results.splits]
    rows = (dict(zip(one, values, strict=True)) for one in columns for values in zip(*one.values(), strict=True))
    write_csv(results.folder.path / VERDICTS_FILE, list(columns[0]), rows)


def tabulate_verdicts(results: Results) -> pa.Table:
    """The content of `verdicts.csv`, text as it is."""
    parts = [_columns(results, split) for split in results.splits]
    return pa.table(
        {name: pa.array([value for part in parts for value in part[name]], _type_of(name)) for name in parts[0]}
    )


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
    """All verdicts of `judge`, the best first."""
    return (*results.verdicts, results.otherwise, "diverged", "nothing erased", "not done", "unusable")


def judge(results: Results, outcomes: Outcomes, usable: NDArray[np.bool_]) -> NDArray[np.str_]:
    """(N,): the best verdict on each image over all masks and all methods that use the model, if there are any.

    "accurate", "approximate", "not recovered" (without the originals "recognized", "not recognized"), "diverged"
    (wherever it was tried), "nothing erased" (wherever it was done), "not done" (nowhere) or "unusable".
    """
    outcomes = outcomes.of_model(results.traits)
    both = (0, 1)
    tried = outcomes.tried.any(axis=both)
    conditions = {
        "unusable": ~usable,
        "nothing erased": ~tried & outcomes.left_out.any(axis=both),
        "not done": ~tried,
        **{verdict: getattr(outcomes, verdict).any(axis=both) for verdict in results.verdicts},
        "diverged": (outcomes.diverged | ~outcomes.tried).all(axis=both),
    }
    return np.select(list(conditions.values()), list(conditions), results.otherwise)


def unusable(results: Results) -> dict[str, dict[str, Any]]:
    """For each split: how many images cannot be used, and the first of them with the reasons."""
    found = {}
    for split in results.splits:
        images = results.images_of(split)
        rows = [
            {"name": str(name), "problem": str(problem)}
            for name, problem in zip(images["name"], images["problem"], strict=True)
            if problem is not None
        ]
        found[split] = {"count": len(rows), "first": rows[:MAX_NAMED]}
    return found


def near_duplicates(results: Results) -> dict[str, Any]:
    """How many controls are nearly a member, how many the headline method recovered, and the first pairs."""
    pairs = [
        {"control": str(name), "member": str(member)}
        for name, member in zip(results.images["name"], results.images["near_duplicate_of"], strict=True)
        if member is not None
    ]
    back = 0
    if "controls" in results.splits:
        method = results.methods.index(results.headline)
        recovered = gather_outcomes(results, "controls").came_back("approximate")[method]
        back = int((recovered & results.near_duplicates("controls")).sum())
    return {"count": len(pairs), "approximate": back, "first": pairs[:MAX_NAMED]}


def low_contrast(results: Results) -> dict[str, dict[str, int] | None]:
    """For each split: how many images have so little contrast that their mean colour alone passes for them, see
    `Record.flat_mse`, and how many of these came back approximately, over all masks and all methods that use the
    model, if there are any. None where an earlier version made some of the records, which did not measure it."""
    found: dict[str, dict[str, int] | None] = {}
    for split in results.splits:
        cells = [columns for cell, columns in results.cells.items() if cell.split == split]
        if any(np.isnan(columns["flat_mse"]).any() for columns in cells):
            found[split] = None
            continue
        flat = np.zeros(len(results.images_of(split)["index"]), bool)
        for columns in cells:
            flat[columns["index"]] |= columns["flat_mse"] < APPROXIMATE_MSE
        back = gather_outcomes(results, split).of_model(results.traits).approximate.any(axis=(0, 1))
        found[split] = {"count": int(flat.sum()), "approximate": int((flat & back).sum())}
    return found


def copies(results: Results) -> dict[str, Any]:
    """Images with the same pixels. within: for each split how many images have copies in it, and how many images these
    are, each counted once. controls_in_members: how many controls are members."""
    hashes = {}
    for split in results.splits:
        images = results.images_of(split)
        hashes[split] = Counter(images["sha256"][_usable(images)].tolist())
    return {
        "within": {
            split: [sum(count for count in counts.values() if count > 1), sum(count > 1 for count in counts.values())]
            for split, counts in hashes.items()
        },
        "controls_in_members": sum(
            count for sha256, count in hashes.get("controls", Counter()).items() if sha256 in hashes["members"]
        ),
    }


def alone(results: Results) -> list[dict[str, Any]]:
    """For each method and verdict: members that it recovered under some mask, and no other method under any.

    Only masks under which all methods have tried an image count: a method that is not finished would seem worse than
    it is. Empty where there is only one method.
    """
    if len(results.methods) == 1:
        return []
    names = results.images_of("members")["name"]
    found = []
    for verdict in results.verdicts:
        winners = only_method(results, "members", verdict)
        for number, method in enumerate(results.methods):
            ours = names[winners == number]
            found.append(
                {
                    "method": method,
                    "verdict": verdict,
                    "count": len(ours),
                    "first": [str(name) for name in ours[:MAX_NAMED]],
                }
            )
    return found


def only_method(results: Results, split: str, verdict: str) -> NDArray[np.int64]:
    """(N,): the number of the method that alone recovered the image, see `alone`; -1 where there is none."""
    outcomes = gather_outcomes(results, split)
    fair = outcomes.tried.all(axis=0)
    back = (getattr(outcomes, verdict) & fair).any(axis=1)
    winners: NDArray[np.int64] = np.where(back.sum(axis=0) == 1, back.argmax(axis=0), -1)
    return winners


def _columns(results: Results, split: str) -> dict[str, list[Any]]:
    images, outcomes = results.images_of(split), gather_outcomes(results, split)
    usable = _usable(images)
    columns: dict[str, list[Any]] = {name: images[name].tolist() for name in _OF_IMAGE}
    columns["verdict"] = judge(results, outcomes, usable).tolist()
    if not results.degraded:
        best = np.nan_to_num(outcomes.of_model(results.traits).psnr, nan=-np.inf).max(axis=(0, 1))
        columns["best_psnr"] = [round(psnr, 4) if np.isfinite(psnr) else None for psnr in best.tolist()]
    columns["nothing_erased"] = outcomes.left_out.any(axis=0).sum(axis=0).tolist()
    lowest = outcomes.scores.min(axis=(0, 1))
    columns["best_score"] = [float(f"{score:.4g}") if np.isfinite(score) else None for score in lowest.tolist()]
    for verdict in reversed(results.verdicts):
        several = len(results.methods) > 1
        winners = only_method(results, split, verdict).tolist() if several else [-1] * len(usable)
        columns[f"only_{verdict}"] = [results.methods[winner] if winner >= 0 else None for winner in winners]
    counted = dict.fromkeys(("tried", *reversed(results.verdicts), "recognized", "diverged"))
    for number, (method, traits) in enumerate(results.traits.items()):
        for what in counted:
            if what != "recognized" or traits.scored:
                counts = (getattr(outcomes, what)[number] & outcomes.tried[number]).sum(axis=0)
                columns[f"{method}_{what}"] = counts.tolist()
    return columns


def _type_of(column: str) -> pa.DataType:
    """Said, as a column may hold nothing."""
    if column.startswith("best_"):
        return pa.float64()
    is_text = column == "verdict" or column.startswith("only_") or (column in _OF_IMAGE and column != "index")
    return pa.string() if is_text else pa.int64()


def _usable(images: Columns) -> NDArray[np.bool_]:
    return np.array([problem is None for problem in images["problem"]], bool)
