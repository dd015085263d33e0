"""What several runs have in common, so that they can be compared, and what of them is left out, in words."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memrecon_fast.audit.analysis.reconstruction_error import warning_of
from memrecon_fast.audit.analysis.results import Results
from memrecon_fast.audit.analysis.unfinished import unfinished
from memrecon_fast.audit.opened import Run
from memrecon_fast.audit.report.remarks import remarks_of
from memrecon_fast.audit.store.manifest import ERRORS
from memrecon_fast.common.text import escaped, listed

Key = tuple[str, int]
"""Of an image: the SHA-256 of its pixels, and which of the images with these pixels it is."""


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """A run that is compared."""

    label: str
    """What its lines are called; no two runs share one."""
    group: str
    """Runs of one group are repetitions, whose mean and spread are told."""
    run: Run

    @functools.cached_property
    def indices(self) -> dict[str, dict[Key, int]]:
        """For each split: where in it each usable image is."""
        return {split: _keys_of(self.run.results, split) for split in self.run.results.splits}

    @property
    def error(self) -> float | None:
        """The mean squared error with which its model reconstructs its members, see `reconstruction_error`. None where
        an earlier version did not measure it; infinite where the model's answer is not finite."""
        errors = self.run.description.get(ERRORS)
        if errors is None or not errors["members"]["images"]:
            return None
        mean = errors["members"]["mean"]
        return float("inf") if mean is None else float(mean)

    def where(self, split: str, keys: Sequence[Key]) -> NDArray[np.int64]:
        """The indices of these images."""
        return np.array([self.indices[split][key] for key in keys], np.int64)


@dataclasses.dataclass(frozen=True, eq=False)
class Common:
    """What all runs have."""

    masks: list[str]
    methods: list[str]
    images: dict[str, list[Key]]
    """By split, in the order of the first run; without splits that have none in common."""


def find_common(entries: Sequence[Entry]) -> tuple[list[Entry], Common, list[str]]:
    """The runs that can be compared, each with those before it, what they have in common, and what is to be said.

    Raises ValueError where no two of them can be compared.
    """
    kept, said = [entries[0]], []
    for entry in entries[1:]:
        if why := _why_not(kept, entry):
            said.append(f"{entry.label} is left out: {why}.")
        else:
            kept.append(entry)
    if len(kept) < 2:
        raise ValueError(f"no two of these runs can be compared. {' '.join(said)}")
    common = _common_of(kept)
    return kept, common, [*said, *_left_out(kept, common), *_differences(kept), *_conditions(kept)]


def _common_of(entries: Sequence[Entry]) -> Common:
    """Masks and methods of one name are the same where they have the same pixels, and the same parameters."""
    plans = [_plan(entry) for entry in entries]
    images = {
        split: [key for key in keys if all(key in entry.indices.get(split, {}) for entry in entries)]
        for split, keys in entries[0].indices.items()
    }
    return Common(
        [
            mask
            for mask, pixels in plans[0]["masks"].items()
            if all(plan["masks"].get(mask) == pixels for plan in plans)
        ],
        [
            method
            for method in plans[0]["methods"]
            if all(method in plan["methods"] and plan.get(method) == plans[0].get(method) for plan in plans)
        ],
        {split: keys for split, keys in images.items() if keys},
    )


def _why_not(kept: Sequence[Entry], entry: Entry) -> str:
    """Why a run cannot be compared with those before it; "" where it can."""
    plan, first = _plan(entry), _plan(kept[0])
    if same := [one.label for one in kept if one.run.path.resolve() == entry.run.path.resolve()]:
        return f"it is the same folder as {same[0]}"
    if plan["degraded"] != first["degraded"]:
        return f"the originals of its images are {'unknown, others' if plan['degraded'] else 'known, others'} are not"
    common = _common_of([*kept, entry])
    for what, there in (("mask", common.masks), ("method", common.methods), ("member", common.images.get("members"))):
        if not there:
            return f"it has no {what} in common with the runs before it"
    return ""


def _left_out(entries: Sequence[Entry], common: Common) -> Iterable[str]:
    plans = {entry.label: _plan(entry) for entry in entries}
    for what, of, kept in (("mask", "masks", common.masks), ("method", "methods", common.methods)):
        for name in dict.fromkeys(name for plan in plans.values() for name in plan[of]):
            lacking = [label for label, plan in plans.items() if name not in plan[of]]
            if lacking:
                yield f"The {what} {escaped(name)} is left out: it is not in {listed(lacking)}."
            elif name not in kept:
                why = "its pixels are others in some of the runs, as those of random masks are with another seed"
                why = why if what == "mask" else "its parameters are others in some of the runs"
                yield f"The {what} {escaped(name)} is left out: {why}."
    for split in ("members", "controls"):
        counts = {entry.label: len(entry.indices.get(split, {})) for entry in entries}
        shared = len(common.images.get(split, ()))
        if lacking := [label for label, count in counts.items() if not count]:
            if len(lacking) < len(counts):
                yield f"The {split} are left out: there are none in {listed(lacking)}."
        elif more := [f"{count - shared} of {count} in {label}" for label, count in counts.items() if count > shared]:
            yield f"{split.capitalize()} that are not in all runs are left out: {listed(more)}."


def _differences(entries: Sequence[Entry]) -> Iterable[str]:
    """Settings that differ: such runs are compared all the same, as that may be what is asked."""
    found = {}
    for entry in entries:
        plan = _plan(entry)
        found[entry.label] = {**plan["settings"], "noise_std": plan["noise_std"]}
    for name in dict.fromkeys(name for settings in found.values() for name in settings):
        values = {label: json.dumps(settings.get(name)) for label, settings in found.items()}
        if len(set(values.values())) > 1:
            yield f"They differ in {name}: {listed([f'{value} in {label}' for label, value in values.items()])}."
    thresholds: dict[str, list[str]] = {}  # where the originals are unknown, controls set them, in each run its own
    for entry in entries:
        for row in entry.run.summary["recognition"] if _plan(entry)["degraded"] else ():
            thresholds.setdefault(row["method"], []).append(f"{row['threshold']:.1e} in {entry.label}")
    for method, found_by in thresholds.items():
        yield f"The score of {method} below which an image counts as recognized is {listed(found_by)}."
    models: dict[str, list[str]] = {}
    for entry in entries:
        models.setdefault(_plan(entry)["model"], []).append(entry.label)
    for labels in models.values():
        if len(labels) > 1:
            yield f"{listed(labels)} are runs of the same model."


def _conditions(entries: Sequence[Entry]) -> Iterable[str]:
    """What must be known of a run; what is said of several, once."""
    said: dict[str, list[str]] = {}
    for entry in entries:
        for sentence in _conditions_of(entry):
            said.setdefault(sentence, []).append(entry.label)
    for sentence, labels in said.items():
        yield f"{listed(labels)}: {sentence}"


def _conditions_of(entry: Entry) -> Iterable[str]:
    summary = entry.run.summary
    if left := unfinished(summary):
        yield f"{left} Compared is what all runs have done."
    if summary["doubts"]:
        yield f"in doubt: {escaped('; '.join(summary['doubts']))}."
    errors = summary.get(ERRORS)
    if errors and (warning := warning_of(errors)):
        yield warning
    if entry.error is None:
        yield "how well the model reconstructs its members was not measured."
    yield from map(escaped, remarks_of(summary))


def _keys_of(results: Results, split: str) -> dict[Key, int]:
    images, seen = results.images_of(split), Counter[str]()
    found = {}
    for sha256, problem, index in zip(images["sha256"], images["problem"], images["index"], strict=True):
        if problem is None:
            found[str(sha256), seen[sha256]] = int(index)
            seen[sha256] += 1
    return found


def _plan(entry: Entry) -> dict[str, Any]:
    return dict(entry.run.description["plan"])
