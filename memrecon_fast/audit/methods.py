"""The methods that an audit compares, and the solver behind each."""

from __future__ import annotations

from collections.abc import Sequence

from memrecon_fast.precision import Autoencoder
from memrecon_fast.recovery import prepare_iterate, prepare_recover
from memrecon_fast.settings import Settings
from memrecon_fast.solvers.iteration import IterationSolver
from memrecon_fast.solvers.paper import PaperSolver

METHODS = ("paper", "known-mask", "iterate")
BLIND = ("paper",)
"""Those that estimate the mask."""
ITERATE_TOLERANCE = 1e-12
"""Of "iterate": stricter than `iterate`'s default, so that the baseline is not cut short of an accurate recovery."""
ITERATE_MAX_ITERATIONS = 1000


Solver = PaperSolver | IterationSolver


def headline_of(methods: Sequence[str]) -> str:
    """The method that is spoken of first: the first blind one, or else the first."""
    return next((method for method in methods if method in BLIND), methods[0])


def prepare_method(
    method: str,
    autoencoder: Autoencoder,
    image_shape: Sequence[int],
    settings: Settings,
    backend: str,
) -> Solver:
    """The solver of a method of `METHODS`. Raises as `recover` does.

    paper       the mask is estimated
    known-mask  the true mask is given
    iterate     the autoencoder alone, x ← f(x)
    """
    if method == "iterate":
        return prepare_iterate(autoencoder, image_shape, ITERATE_MAX_ITERATIONS, ITERATE_TOLERANCE, backend=backend)
    known_masks = method == "known-mask"
    return prepare_recover(autoencoder, image_shape, settings, known_masks=known_masks, backend=backend)
