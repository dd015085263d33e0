"""Which controls are nearly members, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_NAMED = 3


def near_members(summary: Mapping[str, Any]) -> str | None:
    """A line that names the first of them, each with its member; None where there are none. summary: of
    `make_summary`."""
    found = summary.get("near_duplicates", {"count": 0})  # nothing is known where the originals are unknown
    if not found["count"]:
        return None
    pairs = [f"{pair['control']} (the member {pair['member']})" for pair in found["first"][:MAX_NAMED]]
    more = found["count"] - len(pairs)
    rest = f" and {more} more, which verdicts.csv names" if more else ""
    return f"Nearly a member: {', '.join(pairs)}{rest}."
