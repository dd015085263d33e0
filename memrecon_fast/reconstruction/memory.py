"""Whether there is memory enough, before work starts."""

from __future__ import annotations

from memrecon_fast.common.memory import available_memory, in_units
from memrecon_fast.reconstruction.head import Head
from memrecon_fast.reconstruction.random_features import RandomFeatures
from memrecon_fast.reconstruction.results import GAUSS_NEWTON, ReconstructionSettings

_NUMBER = 8
"""Bytes of a float64."""


def check_memory(model: RandomFeatures | Head, images: int, settings: ReconstructionSettings) -> None:
    """Raise ValueError, which says how much is needed, where so many inputs would not fit beside the model."""
    needed, free = needed_memory(model, images, settings), available_memory()
    if free is not None and needed > free:
        raise ValueError(
            f"to find {images} inputs of {model.d} numbers from {model.p} features takes about {in_units(needed)} of "
            f"memory beside the model; {in_units(free)} are free"
        )


def needed_memory(model: RandomFeatures | Head, images: int, settings: ReconstructionSettings) -> int:
    """Bytes, roughly, beyond the model and θ."""
    p, d = model.p, model.d
    if isinstance(model, RandomFeatures) and model.activation == "relu" and settings.method == GAUSS_NEWTON:
        rows = min(p, int(settings.rows_per_unknown * images * d))
        reduced = 3 * _NUMBER * rows * images  # their products with a basis, and what is made of these
        return reduced + 2 * p * images + 3 * _NUMBER * p + 4 * _NUMBER * d * d
    return 5 * _NUMBER * p * images  # features and their changes, at a point and beside it
