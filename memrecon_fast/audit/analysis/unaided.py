"""How much comes back without the model: what its methods can be compared with, image by image."""

from __future__ import annotations

import dataclasses

import numpy as np

from memrecon_fast.audit.analysis.outcomes import gather_outcomes
from memrecon_fast.audit.analysis.results import Results
from memrecon_fast.methods import without_model


@dataclasses.dataclass(frozen=True)
class Unaided:
    """Of a split and a mask, or of all masks: how many images were tried by methods that know nothing of the model, and
    how many of them came back approximately by at least one of these."""

    split: str
    mask: str | None
    """None: under at least one mask."""
    images: int
    approximate: int

    @property
    def rate(self) -> float:
        """The share of the images that came back."""
        return self.approximate / self.images


def unaided(results: Results) -> list[Unaided]:
    """For each split and mask, and for all masks, where anything was tried; empty where the run has no method without
    the model, or no other, or where the originals are unknown."""
    without = without_model(results.traits)
    if not without or results.degraded:
        return []
    chosen = [number for number, method in enumerate(results.methods) if method in without]
    found = []
    for split in results.splits:
        outcomes = gather_outcomes(results, split)
        tried = outcomes.tried[chosen]
        back = tried & outcomes.approximate[chosen]
        masks: list[tuple[str | None, list[int]]] = [
            *((mask, [k]) for k, mask in enumerate(results.masks)),
            (None, [*range(len(results.masks))]),
        ]
        for mask, which in masks:
            counts = [int(np.count_nonzero(one[:, which].any(axis=(0, 1)))) for one in (tried, back)]
            if counts[0]:
                found.append(Unaided(split, mask, *counts))
    return found
