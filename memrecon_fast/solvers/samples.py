"""One image on its way through a solver."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from memrecon_fast.settings import Status


@dataclasses.dataclass(frozen=True)
class Sample:
    """An image that waits: its index (the key of its random choices), and what is known of it."""

    index: int
    degraded: Tensor
    """float32, image_shape."""
    mask: Tensor | None = None
    """bool, image_shape, True = kept: where the mask is known."""


@dataclasses.dataclass(frozen=True)
class Finished:
    """An image that left its slot."""

    index: int
    image: Tensor
    """float32, image_shape."""
    mask: Tensor
    """bool, image_shape."""
    outer_iterations: int
    evaluations: int
    status: Status
    residual: float
