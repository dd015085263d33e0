"""The methods that an audit compares, and the solver behind each."""

from __future__ import annotations

from collections.abc import Sequence

from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.solver import AnySolver
from memrecon_fast.recovery import prepare_iterate, prepare_recover
from memrecon_fast.settings import Settings

METHODS = ("accelerated", "paper", "known-mask", "iterate")
BLIND = ("accelerated", "paper")
"""Those that estimate the mask; the one that is spoken of first comes first."""
RECOGNIZED = (*BLIND, "known-mask")
"""Those with a mask, under which an estimate must explain the degraded image: by its score it is recognized."""
ITERATE_TOLERANCE = 1e-12
"""Of "iterate": stricter than `iterate`'s default, so that the baseline is not cut short of an accurate recovery."""
ITERATE_MAX_ITERATIONS = 1000


def headline_of(methods: Sequence[str]) -> str:
    """The method that is spoken of first: the first of `BLIND` that is among them, or else the first of them."""
    return next((method for method in BLIND if method in methods), methods[0])


def prepare_method(
    method: str,
    autoencoder: Autoencoder,
    image_shape: Sequence[int],
    settings: Settings,
    backend: str,
) -> AnySolver:
    """The solver of a method of `METHODS`. Raises as `recover` does.

    settings: theirs, but for the solver, which the method says.

    accelerated  the mask is estimated, by the accelerated solver
    paper        the mask is estimated, by the paper's solver
    known-mask   the true mask is given, the paper's solver
    iterate      the autoencoder alone, x ← f(x)
    """
    if method == "iterate":
        return prepare_iterate(autoencoder, image_shape, ITERATE_MAX_ITERATIONS, ITERATE_TOLERANCE, backend=backend)
    known_masks = method == "known-mask"
    settings = settings.with_solver("accelerated" if method == "accelerated" else "paper")
    return prepare_recover(autoencoder, image_shape, settings, known_masks=known_masks, backend=backend)
