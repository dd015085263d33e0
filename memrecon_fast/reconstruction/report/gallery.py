"""What came back, as pictures: beside the true ones where these are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from memrecon_fast.audit.report.embedding import embed_image
from memrecon_fast.metrics import ACCURATE_MSE, APPROXIMATE_MSE
from memrecon_fast.reconstruction.kept.results import Against, OfTarget

SHOWN = 40
"""Of a target."""


def make_gallery(
    one: OfTarget, summary: Mapping[str, Any], truth: Tensor | None, names: Sequence[str]
) -> dict[str, Any]:
    """Of a target, for the template: pairs with the truth, or what came out alone. summary: of the target."""
    if one.pictures is None:
        return {"pairs": [], "alone": [], "count": 0}
    if one.against is not None and truth is not None:
        pairs = [_pair(one.against, truth, names, row) for row in range(min(len(truth), SHOWN))]
        return {"pairs": pairs, "alone": [], "count": len(truth)}
    alone = [
        {"picture": _embedded(picture), **row}
        for picture, row in zip(one.pictures[:SHOWN], summary["inputs"][:SHOWN], strict=True)
    ]
    return {"pairs": [], "alone": alone, "count": len(one.pictures)}


def _pair(against: Against, truth: Tensor, names: Sequence[str], row: int) -> dict[str, Any]:
    mse = float(against.mse[row])
    there = int(against.comparison.index[row]) >= 0
    return {
        "name": names[row],
        "original": _embedded(truth[row]),
        "picture": _embedded(against.pictures[row]) if there else None,
        "mse": mse if there else None,
        "distance": float(against.comparison.distance[row]),
        "verdict": "accurate" if mse < ACCURATE_MSE else "approximate" if mse < APPROXIMATE_MSE else "",
    }


def _embedded(picture: Tensor) -> str:
    """Of channels that are neither one nor three, their mean."""
    shown = picture if len(picture) in (1, 3) else picture.mean(0, keepdim=True)
    return embed_image((255 * shown.clamp(0, 1)).round().byte().numpy())
