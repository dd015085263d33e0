"""The galleries of a report: for each mask and split the best, the borderline and the worst images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from memrecon_fast.audit.analysis.given_out import choose_given_out, given_out
from memrecon_fast.audit.analysis.groups import grouped
from memrecon_fast.audit.analysis.recognition import Recognition, recognitions_of
from memrecon_fast.audit.analysis.results import VERDICTS, Results
from memrecon_fast.audit.analysis.statistics import choose_shown, errors, scores
from memrecon_fast.audit.report.embedding import Encoding, embed_image, embed_mask, fitting
from memrecon_fast.audit.store.pictures import Picture
from memrecon_fast.audit.store.records import Cell, Columns
from memrecon_fast.metrics import ACCURATE_MSE, APPROXIMATE_MSE

MAX_CHARACTERS = 2_200_000
"""The most for all pictures of the galleries together, roughly; beyond, they are encoded with loss or reduced."""
MAX_GIVEN_OUT = 400_000
"""The same for what came out of controls."""


def make_showcase(results: Results) -> list[dict[str, Any]]:
    """For each mask and split: the images that were chosen by the errors of the headline method, and what every
    method made of them. Raises ValueError where pictures cannot be read."""
    sections = []
    recognitions = recognitions_of(results)
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

    def shown(encoding: Encoding) -> list[dict[str, Any]]:
        return [
            {
                "mask": cell.mask,
                "split": cell.split,
                "groups": [
                    {
                        "name": heading,
                        "images": [
                            _show(results, recognitions, cell, index, names[cell.split], found, encoding)
                            for index in indices
                        ],
                    }
                    for heading, indices in _grouped(results, recognitions, cell, groups).items()
                ],
            }
            for cell, groups, found in sections
        ]

    return fitting(shown, MAX_CHARACTERS)


def make_given_out(results: Results) -> list[dict[str, Any]]:
    """For each method that uses the model, of the mask under which most members came out of controls: the controls,
    what was shown of them, what came out, and the member that it is; the method by which most came out is first.

    Raises ValueError where pictures cannot be read.
    """
    if "controls" not in results.splits:
        return []
    names = {split: results.images_of(split)["name"].tolist() for split in results.splits}
    sections: list[dict[str, Any]] = []
    for method, traits in results.traits.items():
        if not traits.uses_model:
            continue
        cells = [Cell("controls", mask, method) for mask in results.masks]
        found = {cell: one for cell in cells if (one := given_out(results, cell)) is not None and one.other.any()}
        if not found:
            continue
        cell = max(found, key=lambda one: len(found[one].different()))  # of equal ones the first
        one, columns = found[cell], results.cells[cell]
        members = dict(zip(one.index[one.other].tolist(), one.member[one.other].tolist(), strict=True))
        chosen = [index for index in columns["index"][choose_given_out(columns)].tolist() if index in members]
        pictures = sorted(results.folder.pictures(cell, chosen), key=lambda picture: picture.index)
        mse = dict(zip(columns["index"].tolist(), columns["nearest_member_mse"].tolist(), strict=True))
        images = [
            {
                "picture": picture,
                "name": names["controls"][picture.index],
                "member_name": names["members"][members[picture.index]],
                "mse": mse[picture.index],
            }
            for picture in pictures
        ]
        counts = {"giving": int(one.other.sum()), "images": len(one.index), "members": len(one.different())}
        sections.append({"mask": cell.mask, "method": method, "shown": images, **counts})
    sections.sort(key=lambda section: -section["members"])
    return fitting(partial(_embedded, sections), MAX_GIVEN_OUT)


def _embedded(sections: Sequence[Mapping[str, Any]], encoding: Encoding) -> list[dict[str, Any]]:
    """With the four pictures of each control as addresses; None stands for a member that was not kept."""
    return [{**one, "shown": [_embed(image, encoding) for image in one["shown"]]} for one in sections]


def _embed(image: Mapping[str, Any], encoding: Encoding) -> dict[str, Any]:
    pixels = {name: getattr(image["picture"], name) for name in ("original", "degraded", "recovered", "member")}
    rest = {name: value for name, value in image.items() if name != "picture"}
    return rest | {name: None if one is None else embed_image(one, encoding) for name, one in pixels.items()}


def _grouped(
    results: Results, recognitions: Mapping[tuple[str, str], Recognition], cell: Cell, groups: Mapping[int, str]
) -> dict[str, list[int]]:
    """The chosen images of a cell under their headings."""
    columns = results.cells[cell]
    of = dict(zip(columns["index"].tolist(), errors(columns).tolist(), strict=True))
    thresholds: tuple[float, ...] = (ACCURATE_MSE, APPROXIMATE_MSE)
    if results.degraded:
        recognition = recognitions.get((cell.mask, cell.method))
        thresholds = () if recognition is None else (recognition.calibration.threshold,)
    return grouped(groups, of, thresholds)


def _show(
    results: Results,
    recognitions: Mapping[tuple[str, str], Recognition],
    cell: Cell,
    index: int,
    names: Sequence[str],
    found: Mapping[str, Mapping[int, Picture]],
    encoding: Encoding,
) -> dict[str, Any]:
    """One image for the template; None stands for what is unknown."""
    pictures = {method: of_method[index] for method, of_method in found.items() if index in of_method}
    first = next(iter(pictures.values()), None)
    outcomes: dict[str, dict[str, Any] | None] = {}
    for method, traits in results.traits.items():
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
            "recovered": embed_image(picture.recovered, encoding) if picture else None,
            "mask": embed_mask(picture.mask, encoding) if picture and traits.is_blind else None,
            "psnr": float(columns["psnr"][at]),
            "error": float(errors(columns)[at]),
            "score": score,
            "recognized": recognized,
            "verdict": _verdict(columns, at, recognized),
        }
    return {
        "name": names[index],
        "original": embed_image(first.original, encoding) if first else None,
        "degraded": embed_image(first.degraded, encoding) if first else None,
        "outcomes": outcomes,
    }


def _position(columns: Columns, index: int) -> int:
    """The row of an image; -1 where there is none."""
    found = np.flatnonzero(columns["index"] == index)
    return int(found[0]) if len(found) else -1


def _verdict(columns: Columns, at: int, recognized: bool) -> str:
    if columns["diverged"][at]:
        return "diverged"
    if "approximate" not in columns:  # the original is unknown
        return "recognized" if recognized else "not recognized"
    return next((verdict for verdict in VERDICTS if columns[verdict][at]), "not recovered")
