"""One image on its way through a solver."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from memrecon_fast.settings import Status


@dataclasses.dataclass(frozen=True)
class Sample:
    """An image that waits: its index (the key of its random choices), and what is known of it; tensors on the CPU."""

    index: int
    degraded: Tensor
    """float32, image_shape."""
    mask: Tensor | None = None
    """bool, image_shape, True = kept: where the mask is known."""
    initial_mask: Tensor | None = None
    """bool, image_shape: the first estimate of the mask, where it is not to be drawn as the settings say."""
    iterations_before: int = 0
    """Outer iterations that were made for it before; they count in the result."""
    evaluations_before: int = 0
    """Applications of f that were made for it before; they count in the result."""
    label: Any = None
    """Whatever the caller wants to have back with the result."""


@dataclasses.dataclass(frozen=True)
class Staged:
    """A sample made ready to be loaded into a slot."""

    sample: Sample
    rows: Mapping[str, Tensor]
    """By the name of the slots' tensor: what is loaded there, [d]."""


@dataclasses.dataclass(frozen=True)
class Finished:
    """An image that left its slot; its tensors are on the CPU."""

    index: int
    image: Tensor
    """float32, image_shape."""
    mask: Tensor
    """bool, image_shape."""
    outer_iterations: int
    evaluations: int
    status: Status
    residual: float
    label: Any = None
    """That of the sample."""
