"""What is missing of a run, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def unfinished(summary: Mapping[str, Any]) -> str | None:
    """A sentence on the recoveries that are missing, how many of which method; None where none is. summary: of
    `make_summary`."""
    missing = summary["missing"]
    if not missing:
        return None
    each = sum(summary["images"].values()) * len(summary["masks"])
    left = dict.fromkeys(summary["methods"], each)
    for row in summary["rows"]:
        left[row["method"]] -= row["images"] + row["nothing_erased"]
    total = each * len(left)
    are = "recovery is" if missing == 1 else "recoveries are"
    of = ", ".join(f"{count} of {method}" for method, count in left.items() if count)
    return f"Unfinished: {missing} of {total} {are} missing ({of})."
