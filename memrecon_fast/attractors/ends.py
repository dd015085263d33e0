"""Where iteration comes to from random starts: the part of a harvest that takes the time, start by start."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence

import torch
from torch import Tensor

from memrecon_fast.attractors.fixed_points import FIXED, fixed_points_of
from memrecon_fast.attractors.iterating import iterate_from
from memrecon_fast.attractors.jacobian import Jacobian, make_jacobian
from memrecon_fast.attractors.starts import Pictures, check_kind, make_start
from memrecon_fast.attractors.unseen import BLOCK
from memrecon_fast.common.checks import check_integer, check_seed
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.prox import device_of

MAX_ITERATIONS = 1000
TOLERANCE = 1e-12
"""Of the successive MSE: what converges slowly is further from its end than that, and is mended."""
_CPU = torch.device("cpu")


class End(enum.IntEnum):
    """What iteration from a start comes to."""

    FIXED_POINT = 0
    """Within `metrics.APPROXIMATE_MSE` of the last iterate f(x) = x, to a mean squared residual below 1e-9."""
    NO_FIXED_POINT = 1
    """It still moves after the last iteration: on a cycle, by a slow drift, or without order."""
    DIVERGED = 2
    """NaN or infinite."""


@dataclasses.dataclass(frozen=True)
class Search:
    """A model that was tried, and what it is iterated from; see `prepare_harvest`."""

    jacobian: Jacobian
    kind: str
    pictures: Pictures | None
    seed: int

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Of starts and ends."""
        return self.jacobian.prox.image_shape


@dataclasses.dataclass(frozen=True)
class Ends:
    """What came of n starts, on the CPU; row i of every column belongs to start `indices[i]`."""

    indices: Tensor
    """int64 (n,), ascending."""
    images: Tensor
    """float32 (n, *image_shape): the fixed point, or the last iterate."""
    residual_mse: Tensor
    """float32 (n,): ‖f(x) − x‖²/d of it."""
    evaluations: Tensor
    """int32 (n,): applications of f, and products with its Jacobian."""
    status: Tensor
    """int8 (n,) of `End`."""

    def part(self, which: slice) -> Ends:
        """These rows alone."""
        return Ends(**{name: column[which] for name, column in vars(self).items()})


def prepare_harvest(
    autoencoder: Autoencoder,
    image_shape: Sequence[int],
    kind: str = "smooth",
    pictures: Pictures | None = None,
    seed: int = 42,
) -> Search:
    """All that can be wrong is found out here, before any work; arguments and errors are those of `harvest`."""
    shape = check_image_shape(image_shape)
    check_kind(kind, pictures)
    check_seed(seed)
    return Search(make_jacobian(autoencoder, shape, device_of(autoencoder, default=_CPU)), kind, pictures, seed)


def ends_of(search: Search, indices: Sequence[int]) -> Ends:
    """What comes of the starts with these indices, ascending: a function of the model, the kind, the seed and the
    indices, whatever else is computed before or beside it.

    Iteration x ← f(x) from each; where that has not come to rest, the fixed point near its last iterate, see
    `fixed_points`. (Those that need Newton's method are worked on together with others of their block of 64 starts, and
    may differ in the last bits where a block is divided.)
    """
    shape = search.image_shape
    starts = torch.empty(len(indices), *shape, dtype=torch.float32, device="cpu")
    for row, index in enumerate(indices):
        starts[row] = make_start(search.kind, shape, search.seed, index, search.pictures)
    reached = iterate_from(search.jacobian.prox, starts, MAX_ITERATIONS, TOLERANCE)
    places = torch.tensor(list(indices), dtype=torch.int64, device="cpu")
    residual = torch.full((len(indices),), torch.nan, dtype=torch.float32, device="cpu")
    status = torch.full((len(indices),), int(End.DIVERGED), dtype=torch.int8, device="cpu")
    finite = reached.images.flatten(1).isfinite().all(dim=1)
    for block in (places // BLOCK).unique().tolist():
        rows = (finite & (places // BLOCK == block)).nonzero().flatten()
        fixed = fixed_points_of(search.jacobian, reached.images[rows], FIXED)
        reached.images[rows] = torch.where(fixed.near.view(-1, *[1] * len(shape)), fixed.images, reached.images[rows])
        residual[rows] = fixed.residual_mse
        reached.evaluations[rows] += fixed.iterations
        status[rows] = torch.where(fixed.near, int(End.FIXED_POINT), int(End.NO_FIXED_POINT)).to(torch.int8)
    return Ends(places, reached.images, residual, reached.evaluations, status)


def check_image_shape(image_shape: object) -> tuple[int, ...]:
    """The shape. Raises TypeError or ValueError unless it is at least one integer, each at least 1."""
    if isinstance(image_shape, (str, bytes)) or not isinstance(image_shape, Sequence):
        raise TypeError(f"image_shape must be a tuple of integers, such as (3, 32, 32), not {image_shape!r}")
    if not len(image_shape):
        raise ValueError("image_shape must have at least one axis, such as (3, 32, 32); it has none")
    for side in image_shape:
        check_integer("each axis of image_shape", side, low=1)
    return tuple(image_shape)
