"""The galleries of a report: for each mask and split the best, the borderline and the worst images.

Pictures are embedded in the page as data addresses.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memrecon_fast.audit.analysis.given_out import choose_given_out, given_out
from memrecon_fast.audit.analysis.recognition import Recognition, recognitions_of
from memrecon_fast.audit.analysis.results import VERDICTS, Results
from memrecon_fast.audit.analysis.statistics import GROUPS, choose_shown, scores
from memrecon_fast.audit.store.pictures import Picture
from memrecon_fast.audit.store.records import Cell, Columns
from memrecon_fast.methods import find, is_blind

MAX_CHARACTERS = 9_000_000
"""The most for all pictures of a report together, roughly; beyond, their sides are halved or quartered."""
_REDUCTIONS = (1, 2, 4)


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


def make_given_out(results: Results) -> list[dict[str, Any]]:
    """For each method that uses the model, of the mask under which most members came out of controls: the controls,
    what was shown of them, what came out, and the member that it is; the method by which most came out is first.

    Raises ValueError where pictures cannot be read.
    """
    if "controls" not in results.splits:
        return []
    names = {split: results.images_of(split)["name"].tolist() for split in results.splits}
    sections = []
    for method in results.methods:
        if not find(method).uses_model:
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
        errors = dict(zip(columns["index"].tolist(), columns["nearest_member_mse"].tolist(), strict=True))
        images = [
            {
                **{what: embed_image(getattr(picture, what)) for what in ("original", "degraded", "recovered")},
                "member": None if picture.member is None else embed_image(picture.member),
                "name": names["controls"][picture.index],
                "member_name": names["members"][members[picture.index]],
                "mse": errors[picture.index],
            }
            for picture in pictures
        ]
        counts = {"giving": int(one.other.sum()), "images": len(one.index), "members": len(one.different())}
        sections.append({"mask": cell.mask, "method": method, "shown": images, **counts})
    return sorted(sections, key=lambda section: -section["members"])


def embed_image(pixels: NDArray[np.uint8], reduce: int = 1) -> str:
    """uint8 (C, H, W), C = 1 or 3, as the address of a PNG, 1/`reduce` as high and wide."""
    image = Image.fromarray(np.ascontiguousarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)))
    return _png(image.reduce(reduce))


def embed_mask(mask: NDArray[np.uint8], reduce: int = 1) -> str:
    """The same for a mask of 0 and 255, as a palette of 2 or 8 colours: a quarter of the size."""
    if reduce > 1:
        whole = Image.fromarray(np.ascontiguousarray(mask.transpose(1, 2, 0).squeeze()))
        mask = np.atleast_3d(np.asarray(whole.reduce(reduce))).transpose(2, 0, 1)
    bits = mask > 127
    weights = 1 << np.arange(len(bits))
    image = Image.fromarray(np.tensordot(weights, bits, 1).astype(np.uint8))
    colours = (np.arange(1 << len(bits))[:, None] & weights > 0) * np.uint8(255)
    image.putpalette(np.broadcast_to(colours, (len(colours), 3)).tobytes())
    return _png(image)


def embed_svg(svg: str) -> str:
    """A chart."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _show(
    results: Results,
    recognitions: Mapping[tuple[str, str], Recognition],
    cell: Cell,
    index: int,
    names: Sequence[str],
    found: Mapping[str, Mapping[int, Picture]],
    reduce: int,
) -> dict[str, Any]:
    """One image for the template; None stands for what is unknown."""
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
            "mask": embed_mask(picture.mask, reduce) if picture and is_blind(method) else None,
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
    """The row of an image; -1 where there is none."""
    found = np.flatnonzero(columns["index"] == index)
    return int(found[0]) if len(found) else -1


def _verdict(columns: Columns, at: int, recognized: bool) -> str:
    if columns["diverged"][at]:
        return "diverged"
    if "approximate" not in columns:  # the original is unknown
        return "recognized" if recognized else "not recognized"
    return next((verdict for verdict in VERDICTS if columns[verdict][at]), "not recovered")


def _characters(shown: Any) -> int:
    """The length of all texts in nested lists and dictionaries: nearly all of it is pictures."""
    if isinstance(shown, str):
        return len(shown)
    if isinstance(shown, dict):
        return sum(map(_characters, shown.values()))
    return sum(map(_characters, shown)) if isinstance(shown, list) else 0


def _png(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
