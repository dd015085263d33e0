"""What came out of nothing, beside the nearest member and the nearest control, for the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from memrecon_fast.attractors.report.summary import is_near
from memrecon_fast.attractors.survey.curve_table import PICTURES
from memrecon_fast.audit.report.embedding import embed_image
from memrecon_fast.audit.store.parts import unpack

SHOWN = 24
"""Of each kind."""


def make_gallery(table: pa.Table, starts: int) -> list[dict[str, Any]]:
    """Sections of fixed points that are members, by falling share of the starts, each member once; and of those that
    are none. table: of `harvested.FOUND_SCHEMA`. starts: of the harvest."""
    member = is_near(table, "member")
    rows = table.to_pylist()
    seen: set[int] = set()
    members, others = [], []
    for row, near in zip(rows, member, strict=True):
        if not near:
            others.append(row)
        elif row["member"] not in seen:
            seen.add(row["member"])
            members.append(row)
    compared = any(row["member"] is not None for row in rows)
    named = [
        ("training images" if len(members) != 1 else "training image", members),
        ("that are no training image, and may still resemble one" if compared else "came out", others),
    ]
    return [
        {"name": name, "count": len(found), "images": [_shown(row, starts) for row in found[:SHOWN]]}
        for name, found in named
        if found
    ]


def make_steps(table: pa.Table) -> list[dict[str, Any]]:
    """Starts, what one application makes of each, and the member nearest to that. table: of
    `curve_table.CURVE_SCHEMA`."""
    shown = [row for row in table.to_pylist() if row["start_picture"] is not None]
    return [
        {name: None if row[name] is None else embed_image(unpack(row[name])) for name in PICTURES}
        | {"mse": row["nearest_mse"][0]}
        for row in shown
    ]


def _shown(row: Mapping[str, Any], starts: int) -> dict[str, Any]:
    """One fixed point for the template; None stands for what there is not."""
    return {
        "picture": embed_image(unpack(row["picture"])),
        "share": row["starts"] / starts,
        "verdict": row["verdict"].lower().replace("_", " "),
        "radius": row["radius"] if np.isfinite(row["radius"]) else None,
        **{split: _neighbour(row, split) for split in ("member", "control")},
    }


def _neighbour(row: Mapping[str, Any], split: str) -> dict[str, Any] | None:
    if row[split] is None:
        return None
    return {
        "picture": embed_image(unpack(row[f"{split}_picture"])),
        "name": row[f"{split}_name"],
        "mse": row[f"{split}_mse"],
        "correlation": row[f"{split}_correlation"],
    }
