"""Members against controls, without near-duplicates of members: recovering one means recovering that member."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memrecon_fast.audit.analysis.outcomes import Outcomes, gather_outcomes
from memrecon_fast.audit.analysis.results import Results
from memrecon_fast.audit.analysis.statistics import FALSE_POSITIVE_RATES, true_positives_at


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The MSEs that tell members from controls, at least one of each."""

    method: str
    mask: str | None
    """None: for each image the least MSE over all masks, of the images that were tried under all of them."""
    members: NDArray[np.float64]
    controls: NDArray[np.float64]

    def row(self) -> dict[str, Any]:
        """For `summary.json`: how many members are found where few controls are."""
        row: dict[str, Any] = (
            {"method": self.method} if self.mask is None else {"mask": self.mask, "method": self.method}
        )
        return {
            **row,
            "members": len(self.members),
            "controls": len(self.controls),
            "at": [true_positives_at(rate, self.members, self.controls) for rate in FALSE_POSITIVE_RATES],
        }


def compare_by_mask(results: Results) -> list[Comparison]:
    """A comparison for each mask and method that has members and controls."""
    if "controls" not in results.splits:
        return []
    members, controls = gather_outcomes(results, "members"), gather_outcomes(results, "controls")
    allowed = ~results.near_duplicates("controls")
    found = [
        Comparison(
            method,
            mask,
            members.errors[m, k, members.tried[m, k]],
            controls.errors[m, k, controls.tried[m, k] & allowed],
        )
        for m, method in enumerate(results.methods)
        for k, mask in enumerate(results.masks)
    ]
    return [one for one in found if len(one.members) and len(one.controls)]


def compare_over_masks(results: Results) -> list[Comparison]:
    """A comparison for each method, over all masks: an image counts once."""
    if "controls" not in results.splits:
        return []
    members, controls = gather_outcomes(results, "members"), gather_outcomes(results, "controls")
    allowed = ~results.near_duplicates("controls")
    everything = np.ones(members.tried.shape[-1], bool)
    found = [
        Comparison(method, None, _least(members, m, everything), _least(controls, m, allowed))
        for m, method in enumerate(results.methods)
    ]
    return [one for one in found if len(one.members) and len(one.controls)]


def _least(outcomes: Outcomes, method: int, allowed: NDArray[np.bool_]) -> NDArray[np.float64]:
    least = outcomes.least_errors(method)
    return least[allowed & ~np.isnan(least)]
