"""One image on its way through a solver."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from memrecon_fast.results import Status


@dataclasses.dataclass(frozen=True)
class Sample:
    """An image that waits: its index (the key of its random choices), and what is known of it; tensors on the CPU."""

    index: int
    degraded: Tensor
    """float32, image_shape."""
    mask: Tensor | None = None
    """bool, image_shape, True = kept: where the mask is known; only solvers that were made for that look at it."""
    initial_mask: Tensor | None = None
    """bool, image_shape: the first estimate of the mask, where it is not to be drawn as the settings say."""
    initial_state: Tensor | None = None
    """float32, image_shape: the first input of the autoencoder, where a solver that keeps its state is to go on."""
    attempt: int = 0
    """Which of the solver's attempts at the image is to be made."""
    best: Finished | None = None
    """The best estimate of the attempts before."""
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
    images: Mapping[str, Tensor]
    """By the name of the slots' tensor: what is loaded there; image_shape, on the CPU."""
    gamma: float = math.nan
    """The penalty γ, of a solver that has one."""


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
    gamma: float = math.nan
    accepted: int = 0
    rejected: int = 0
    mask_changes: int = 0
    attempts: int = 1
    fixed_point_mse: float = math.nan
    """NaN until it is measured."""
    misfit: float = math.nan
    explained: float = math.nan
    score: float = math.nan
    """`results.score_of` the three before."""
    label: Any = None
    """That of the sample."""


@dataclasses.dataclass(frozen=True)
class Results:
    """What came of S images, on the device; row i of every tensor belongs to image i."""

    images: Tensor
    """float32 [S, d]: the estimates."""
    masks: Tensor
    """bool [S, d]: those of the estimates."""
    given: Tensor
    """float32 [S, d]: the degraded images, 0 where a pixel is known to be erased."""
    outer_iterations: Tensor
    """int32 [S]."""
    evaluations: Tensor
    """int32 [S]."""
    status: Tensor
    """int8 [S]."""
    residual: Tensor
    """float32 [S]."""
    gamma: Tensor | None = None
    """float64 [S]."""
    accepted: Tensor | None = None
    """int32 [S]."""
    rejected: Tensor | None = None
    """int32 [S]."""
    mask_changes: Tensor | None = None
    """int32 [S]."""
    fixed_point_mse: Tensor | None = None
    """float32 [S], as the three that follow; None until they are measured, see `review.score`."""
    misfit: Tensor | None = None
    explained: Tensor | None = None
    score: Tensor | None = None


@dataclasses.dataclass(frozen=True)
class Done:
    """Images that left their slots, and what came of them, on the device."""

    samples: list[Sample]
    results: Results
