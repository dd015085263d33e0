"""The galleries of a report: for each mask and split the best, the borderline and the worst images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from memrecon_fast.audit.analysis.recognitions import Recognition
from memrecon_fast.audit.analysis.results import VERDICTS, Results
from memrecon_fast.audit.analysis.statistics import errors, scores
from memrecon_fast.audit.report.embedding import embed_image, embed_mask
from memrecon_fast.audit.store import pictures as gallery
from memrecon_fast.audit.store.pictures import GROUPS, Picture
from memrecon_fast.audit.store.records import Cell, Columns
from memrecon_fast.methods import BLIND

MAX_CHARACTERS = 9_000_000
"""Of all pictures of a report together, about; beyond, they are shown with half or a quarter of their pixels."""
_REDUCTIONS = (1, 2, 4)


def choose_shown(columns: Columns) -> dict[int, str]:
    """The images of a cell that the gallery shows: index → group."""
    return {int(columns["index"][at]): group for at, group in gallery.choose(errors(columns)).items()}


def make_showcase(results: Results) -> list[dict[str, Any]]:
    """For each mask and split: the images that were chosen by the errors of the headline's method, and what every
    method made of them. Raises ValueError where pictures cannot be read."""
    sections = []
    recognitions = results.recognitions
    names = {split: results.images_of(split)["name"].tolist() for split in results.splits}
    for mask in results.masks:
        for split in results.splits:
            chosen = Cell(split, mask, results.headline)
            if chosen in results.cells:
                groups = choose_shown(results.cells[chosen])
                found = {
                    cell.method: {one.index: one for one in results.folder.pictures(cell, list(groups))}
                    for cell in (Cell(split, mask, method) for method in results.methods)
                    if cell in results.cells
                }
                sections.append((chosen, groups, found))
    for reduce in _REDUCTIONS:
        shown = [
            {
                "mask": cell.mask,
                "split": cell.split,
                "groups": [
                    {
                        "name": name,
                        "images": [
                            _show(results, recognitions, cell, index, names[cell.split], found, reduce)
                            for index, of in groups.items()
                            if of == name
                        ],
                    }
                    for name in GROUPS
                    if name in groups.values()
                ],
            }
            for cell, groups, found in sections
        ]
        if _characters(shown) <= MAX_CHARACTERS:
            break
    return shown


def _show(
    results: Results,
    recognitions: Mapping[tuple[str, str], Recognition],
    cell: Cell,
    index: int,
    names: Sequence[str],
    found: Mapping[str, Mapping[int, Picture]],
    reduce: int,
) -> dict[str, Any]:
    """One image; None for what is not known of it."""
    pictures = {method: of_method[index] for method, of_method in found.items() if index in of_method}
    first = next(iter(pictures.values()), None)
    outcomes: dict[str, dict[str, Any] | None] = {}
    for method in results.methods:
        columns = results.cells.get(Cell(cell.split, cell.mask, method))
        at = -1 if columns is None else _position(columns, index)
        if columns is None or at < 0:
            outcomes[method] = None
            continue
        picture = pictures.get(method)
        recognition = recognitions.get((cell.mask, method))
        score = None if recognition is None else float(scores(columns)[at])
        recognized = score is not None and recognition is not None and score < recognition.calibration.threshold
        outcomes[method] = {
            "recovered": embed_image(picture.recovered, reduce) if picture else None,
            "mask": embed_mask(picture.mask, reduce) if picture and method in BLIND else None,
            "psnr": float(columns["psnr"][at]),
            "score": score,
            "recognized": recognized,
            "verdict": _verdict(columns, at, recognized),
        }
    return {
        "name": names[index],
        "original": embed_image(first.original, reduce) if first else None,
        "degraded": embed_image(first.degraded, reduce) if first else None,
        "outcomes": outcomes,
    }


def _position(columns: Columns, index: int) -> int:
    """-1: it is not among them."""
    found = np.flatnonzero(columns["index"] == index)
    return int(found[0]) if len(found) else -1


def _verdict(columns: Columns, at: int, recognized: bool) -> str:
    if columns["diverged"][at]:
        return "diverged"
    if "approximate" not in columns:  # the original is unknown
        return "recognized" if recognized else "not recognized"
    return next((verdict for verdict in VERDICTS if columns[verdict][at]), "not recovered")


def _characters(shown: Any) -> int:
    """Of all texts in nested lists and dictionaries, the pictures."""
    if isinstance(shown, str):
        return len(shown)
    if isinstance(shown, dict):
        return sum(map(_characters, shown.values()))
    return sum(map(_characters, shown)) if isinstance(shown, list) else 0
