"""The images of a run that are named one by one: a few here, all of them in `verdicts.csv`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from memrecon_fast.audit.analysis.outcomes import gather_outcomes
from memrecon_fast.audit.analysis.results import Results

MAX_NAMED = 20


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
    """How many controls are nearly a member, how many of them came back by the method spoken of first, and the first
    pairs."""
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


def alone(results: Results) -> list[dict[str, Any]]:
    """For each method and verdict: members that came back by it under some mask, and by no other under any.

    Only masks under which all methods have tried an image count, or else a method might seem better than one that has
    not got so far. Nothing where there is one method only.
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
