"""Several runs side by side: seeds, models, checkpoints or losses."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memrecon_fast.audit.analysis.outcomes import gather_outcomes
from memrecon_fast.audit.analysis.statistics import rate_interval
from memrecon_fast.audit.exporting.common_part import Common, Entry, find_common
from memrecon_fast.audit.exporting.files import check_folder, write_all
from memrecon_fast.audit.exporting.several_figures import drawings_of
from memrecon_fast.audit.exporting.several_tables import sheets_of
from memrecon_fast.audit.exporting.side_by_side import OVER_MASKS, Compared, SideBySide
from memrecon_fast.audit.opened import Run, open_run
from memrecon_fast.common.text import escaped

Given = Run | str | os.PathLike[str]


def compare(
    runs: Sequence[Given] | Mapping[str, Given | Sequence[Given]], folder: str | os.PathLike[str] | None = None
) -> SideBySide:
    """Put runs side by side, of several seeds, models, checkpoints or losses: each image, mask and method that all of
    them have. What is left out, and why, is in `remarks`.

    runs: of `open` or `run`, or their folders. By name, those of one name are repetitions, for instance with several
        seeds, whose mean and spread are told; without names, all are.
    folder: where to write tables (LaTeX with booktabs, Markdown, CSV) and figures (SVG, PDF) as well, see `write`.

    Raises ValueError for what is no run or has no records, for fewer than two, and where no two can be compared.
    """
    entries = _entries(runs)
    if len(entries) < 2:
        raise ValueError(f"give at least two runs to compare, not {len(entries)}")
    if folder is not None:
        check_folder(Path(folder))
    kept, common, remarks = find_common(entries)
    rows = list(_rows(kept, common))
    nothing = dict.fromkeys((row["split"], row["mask"], row["method"]) for row in rows if not row["images"])
    for split, mask, method in nothing:
        under = "any mask" if mask is OVER_MASKS else escaped(mask)
        remarks.append(f"No recovery of {split} under {under} by {method} was done by all runs.")
    remarks += _no_repetitions(kept)
    side = SideBySide(
        runs=tuple(
            Compared(one.label, one.group, str(one.run.path), one.run.description["model"], one.error) for one in kept
        ),
        masks=common.masks,
        methods=common.methods,
        verdicts=kept[0].run.results.verdicts,
        images={split: len(keys) for split, keys in common.images.items()},
        rows=rows,
        spread=list(_spread(rows, kept[0].run.results.verdicts)),
        remarks=remarks,
    )
    if folder is not None:
        write(side, folder)
    return side


def _no_repetitions(entries: Sequence[Entry]) -> Iterator[str]:
    """Runs whose mean is told, of models that learned their members ten times better or worse."""
    for group in dict.fromkeys(one.group for one in entries):
        errors = [one.error for one in entries if one.group == group and one.error is not None]
        if errors and max(errors) > 10 * min(errors):
            yield (
                f"The models of {group or 'these runs'} miss their members by {min(errors):.1e} to {max(errors):.1e}: "
                "what is told as their mean is not that of repetitions. By names, a=RUN b=RUN, they stand side by side."
            )


def write(side: SideBySide, folder: str | os.PathLike[str]) -> list[Path]:
    """Write tables and figures of a comparison; files of the same names are replaced. Returns the paths."""
    return write_all(Path(folder), sheets_of(side), drawings_of(side))


def _entries(runs: Sequence[Given] | Mapping[str, Given | Sequence[Given]]) -> list[Entry]:
    if isinstance(runs, (str, os.PathLike, Run)):
        raise TypeError(f"expected several runs, or several by name, not one: {runs!r}")
    pairs: list[tuple[str, Run]] = []
    for group, given in runs.items() if isinstance(runs, Mapping) else [("", runs)]:
        some = [given] if isinstance(given, (str, os.PathLike, Run)) else given
        pairs += [(group, one if isinstance(one, Run) else open_run(one)) for one in some]
    short = _short_names([run.path for _, run in pairs])
    alone = Counter(group for group, _ in pairs)
    labels = []
    for (group, _), name in zip(pairs, short, strict=True):
        label = group if group and alone[group] == 1 else f"{group}: {name}" if group else name
        labels.append(escaped(label))
    return [Entry(label, escaped(group), run) for label, (group, run) in zip(_numbered(labels), pairs, strict=True)]


def _short_names(paths: Sequence[Path]) -> list[str]:
    """The last parts of each path, as many as it takes to tell them apart; a folder that is named again is numbered."""
    parts = {path: path.resolve().parts for path in paths}
    distinct = list(dict.fromkeys(parts.values()))
    names = {part: part[-1] for part in distinct}
    for length in range(2, max(map(len, distinct)) + 1):
        twice = {name for name, count in Counter(names.values()).items() if count > 1}
        names = {part: os.path.join(*part[-length:]) if name in twice else name for part, name in names.items()}
    return _numbered([names[parts[path]] for path in paths])


def _numbered(names: Sequence[str]) -> list[str]:
    """The same without any twice."""
    found: list[str] = []
    for name in names:
        numbers = itertools.chain([name], (f"{name} ({number})" for number in itertools.count(2)))
        found.append(next(one for one in numbers if one not in found))
    return found


def _rows(entries: Sequence[Entry], common: Common) -> Iterator[dict[str, Any]]:
    for split, keys in common.images.items():
        found = [_aligned(entry, split, common, entry.where(split, keys)) for entry in entries]
        tried = np.logical_and.reduce([one["tried"] for one in found])
        settled = np.logical_and.reduce([one["tried"] | one["left_out"] for one in found])
        over_masks = settled.all(axis=1) & tried.any(axis=1)
        for entry, one in zip(entries, found, strict=True):
            verdicts = {name: one[name] & tried for name in entry.run.results.verdicts}
            about = {"run": entry.label, "group": entry.group, "error": entry.error}
            for m, method in enumerate(common.methods):
                for mask, which in [(OVER_MASKS, slice(None)), *((mask, k) for k, mask in enumerate(common.masks))]:
                    counts = over_masks[m] if mask is OVER_MASKS else tried[m, which]
                    row = {**about, "mask": mask, "method": method, "split": split, "images": int(counts.sum())}
                    for verdict, flags in verdicts.items():
                        came_back = flags[m].any(axis=0) if mask is OVER_MASKS else flags[m, which]
                        row |= _rate(verdict, came_back[counts])
                    yield row


def _aligned(entry: Entry, split: str, common: Common, indices: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    """What became of the common images, (methods, masks, images), in the order of `common`."""
    results = entry.run.results
    outcomes = gather_outcomes(results, split)
    methods = np.array([results.methods.index(method) for method in common.methods])
    masks = np.array([results.masks.index(mask) for mask in common.masks])
    names = ("tried", "left_out", *results.verdicts)
    return {name: getattr(outcomes, name)[np.ix_(methods, masks, indices)] for name in names}


def _rate(verdict: str, came_back: NDArray[np.bool_]) -> dict[str, Any]:
    if not len(came_back):
        return {f"{verdict}_rate": None, f"{verdict}_interval": None}
    interval = rate_interval(int(came_back.sum()), len(came_back))
    return {f"{verdict}_rate": float(came_back.mean()), f"{verdict}_interval": list(interval)}


def _spread(rows: Sequence[Mapping[str, Any]], verdicts: Sequence[str]) -> Iterator[dict[str, Any]]:
    cells: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        cells.setdefault(tuple(row[name] for name in ("group", "mask", "method", "split")), []).append(row)
    for (group, mask, method, split), ours in cells.items():
        found: dict[str, Any] = {"group": group, "mask": mask, "method": method, "split": split, "runs": len(ours)}
        for verdict in verdicts:
            rates = [row[f"{verdict}_rate"] for row in ours if row["images"]]
            found |= {
                f"{verdict}_mean": float(np.mean(rates)) if rates else None,
                f"{verdict}_deviation": float(np.std(rates, ddof=1)) if len(rates) > 1 else None,
                f"{verdict}_lowest": min(rates, default=None),
                f"{verdict}_highest": max(rates, default=None),
            }
        yield found
