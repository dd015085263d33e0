"""The contact sheet of a report: the members, best first, what came back of each, and under which mask."""

from __future__ import annotations

from typing import Any

from memrecon_fast.audit.analysis.results import Results
from memrecon_fast.audit.analysis.sheet import MAX_SHOWN, Standing, best_first
from memrecon_fast.audit.report.embedding import Encoding, embed_image, fitting
from memrecon_fast.audit.store.pictures import Picture, Thumbnail
from memrecon_fast.audit.store.records import Cell

MAX_CHARACTERS = 1_200_000
"""The most for all pictures of the sheet together, roughly."""
IN_SIGHT = 24
"""So many are seen at once, the others in a part of the page that opens."""


def make_sheet(results: Results) -> dict[str, Any]:
    """Members that have pictures, at most `MAX_SHOWN`, in the order of `best_first`; `ranked`, of how many members;
    `hardest_first`, the masks.

    Raises ValueError where pictures cannot be read.
    """
    standings, masks = best_first(results)
    pictures = {mask: _pictures(results, mask, standings) for mask in results.masks}
    shown = [one for one in standings if one.index in pictures[one.mask]][:MAX_SHOWN]
    names = results.images_of("members")["name"].tolist()

    def tiles(encoding: Encoding) -> list[dict[str, Any]]:
        return [_tile(one, pictures[one.mask][one.index], names[one.index], encoding) for one in shown]

    found = fitting(tiles, MAX_CHARACTERS)
    counts = {"shown": len(found), "ranked": len(standings)}
    return {"in_sight": found[:IN_SIGHT], "others": found[IN_SIGHT:], "hardest_first": masks, **counts}


def _pictures(results: Results, mask: str, standings: list[Standing]) -> dict[int, Thumbnail | Picture]:
    """By index, of the members that stand under this mask; of runs of earlier versions those in the gallery alone."""
    cell = Cell("members", mask, results.headline)
    wanted = {one.index for one in standings if one.mask == mask}
    if not wanted:
        return {}
    found: dict[int, Thumbnail | Picture] = {one.index: one for one in results.folder.pictures(cell, wanted)}
    return found | {one.index: one for one in results.folder.thumbnails(cell, wanted)}


def _tile(one: Standing, picture: Thumbnail | Picture, name: str, encoding: Encoding) -> dict[str, Any]:
    return {
        "name": name,
        "standing": one,
        "original": embed_image(picture.original, encoding),
        "recovered": embed_image(picture.recovered, encoding),
    }
