"""`attractors.json`: what identifies a survey, hashes and settings, and when and where it was worked on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memrecon_fast.audit.store.manifest import ERRORS, ERRORS_SHAPE, PLACE, digest_of
from memrecon_fast.common.files import read_json, write_json
from memrecon_fast.common.shapes import Each, Fields, Listed, Of
from memrecon_fast.images.listing import MARKER_OF_ATTRACTORS

DESCRIPTION = MARKER_OF_ATTRACTORS
"""The file that says what a survey is."""
_SHAPE = Fields(
    {
        "id": Of(str),
        "model": Of(str),
        "sources": Each(Of(str)),
        "counts": Each(Fields({"images": Of(int), "unusable": Of(int)})),
        "remarks": Each(Listed(Of(str))),
        "plan": Fields(
            {
                "model": Of(str),
                "images": Each(Of(str)),
                "image_shape": Listed(Of(int)),
                "k": Of(int),
                "tolerance": Of(int, float),
                "seed": Of(int),
                "harvest": Of(int),
                "curve": Of(int),
                "times": Listed(Of(int)),
                "kind": Of(str),
                "basins": Each(Listed(Of(int, float))),
                "draws": Of(int),
                "device": Of(str),
                "rows_in_block": Of(int),
            }
        ),
        "sessions": Listed(Fields({**PLACE, "rows": Of(int, type(None))}, optional={"doubts": Listed(Of(str))})),
    },
    optional={ERRORS: ERRORS_SHAPE},
)
"""What `attractors.json` must have; it may have more."""


def read_description(run: Path) -> dict[str, Any]:
    """The content of `attractors.json`. Raises ValueError for what is no survey."""
    path = run / DESCRIPTION
    try:
        description = read_json(path)
    except FileNotFoundError as error:
        raise ValueError(f"{run} is not the folder of a survey of attractors: there is no {path}") from error
    if fault := _SHAPE.fault(description, "it") or _contradiction(description):
        raise ValueError(f"{path} does not describe a survey of attractors: {fault}")
    return dict(description)


def write_description(run: Path, description: Mapping[str, Any]) -> None:
    """Write `attractors.json`, whole or not at all."""
    write_json(run / DESCRIPTION, description)


def plan_digest(description: Mapping[str, Any]) -> str:
    """SHA-256 of the plan, by which a file of rows is known to be of this survey."""
    return digest_of(description["plan"])


def _contradiction(description: Mapping[str, Any]) -> str:
    """What its parts, each of the right kind, say that cannot be; "" if nothing is wrong."""
    plan, counts = description["plan"], description["counts"]
    if list(plan["images"]) not in ([], ["members"], ["members", "controls"]) or counts.keys() != plan["images"].keys():
        return "its splits must be none, members, or members and controls"
    if len(plan["image_shape"]) != 3 or min(plan["image_shape"]) < 1:
        return "its image_shape must be three sizes"
    if any(not 0 <= count["unusable"] <= count["images"] for count in counts.values()):
        return "its counts of images must not be less than those of unusable ones"
    if plan["k"] < 1 or plan["rows_in_block"] < 1:
        return "its k and its rows in a block must be at least 1"
    return ""
