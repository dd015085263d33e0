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
from memrecon_fast.attractors.starts import Pictures, check_kind, check_pictures, make_start
from memrecon_fast.attractors.unseen import BLOCK
from memrecon_fast.common.checks import check_integer, check_seed
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.prox import Prox, device_of
from memrecon_fast.engine.transfer import working_on
from memrecon_fast.results import Status

MAX_ITERATIONS = 1000
TOLERANCE = 1e-12
"""Of the successive MSE. What shrinks by a factor λ in each iteration is still λ/(1 − λ) times the last step from its
end: an MSE below 1e-8 for λ up to 0.99."""
LONGEST_CYCLE = 32
_CPU = torch.device("cpu")


class End(enum.IntEnum):
    """What iteration from a start comes to."""

    FIXED_POINT = 0
    """Within `metrics.APPROXIMATE_MSE` of the last iterate f(x) = x, to a mean squared residual below 1e-9."""
    CYCLE = 1
    """It comes back after 2 to 32 iterations, to a mean squared difference below 1e-9."""
    MOVING = 2
    """It still moves after 1,000 iterations: it comes to rest slowly, drifts, or has no order."""
    DIVERGED = 3
    """NaN, infinite, or so large that its mean square is."""


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
    check_kind(kind)
    check_pictures(kind, shape, pictures)
    check_seed(seed)
    return Search(make_jacobian(autoencoder, shape, device_of(autoencoder, default=_CPU)), kind, pictures, seed)


def ends_of(search: Search, indices: Sequence[int]) -> Ends:
    """What comes of the starts with these indices, ascending: a function of the model, the kind, the seed and the
    indices, whatever else is computed before or beside it.

    Iteration x ← f(x) from each; where that has not come to rest, the fixed point near its last iterate, see
    `fixed_points`; where there is none, it is looked for a cycle. (Those that need Newton's method are worked on
    together with others of their block of 64 starts, and may differ in the last bits where a block is divided.)
    """
    shape = search.image_shape
    starts = torch.empty(len(indices), *shape, dtype=torch.float32, device="cpu")
    for row, index in enumerate(indices):
        starts[row] = make_start(search.kind, shape, search.seed, index, search.pictures)
    prox = search.jacobian.prox
    reached = iterate_from(prox, starts, MAX_ITERATIONS, TOLERANCE)
    images, evaluations = reached.images, reached.evaluations
    places = torch.tensor(list(indices), dtype=torch.int64, device="cpu")
    residual = torch.full((len(indices),), torch.nan, dtype=torch.float32, device="cpu")
    status = torch.full((len(indices),), int(End.DIVERGED), dtype=torch.int8, device="cpu")
    stayed = reached.status != int(Status.DIVERGED)
    for block in (places[stayed] // BLOCK).unique().tolist():
        rows = (stayed & (places // BLOCK == block)).nonzero().flatten()
        fixed = fixed_points_of(search.jacobian, images[rows], FIXED)
        near = fixed.near
        images[rows[near]] = fixed.images[near]
        residual[rows] = fixed.residual_mse
        evaluations[rows] += fixed.iterations
        status[rows] = int(End.MOVING)
        status[rows[near]] = int(End.FIXED_POINT)
    moving = (status == int(End.MOVING)).nonzero().flatten()
    if len(moving):
        comes_back, residual[moving] = _comes_back(prox, images[moving])
        evaluations[moving] += LONGEST_CYCLE
        status[moving[comes_back]] = int(End.CYCLE)
    return Ends(places, images, residual, evaluations, status)


def _comes_back(prox: Prox, images: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each image comes back, bool (n,); and the mean square of its first step, float32 (n,)."""
    with working_on(prox.device):
        first = prox.to_rows(images.to(prox.device))
        x = prox(first)
        residual = (x - first).double().square().mean(dim=1)
        back = torch.zeros(len(images), dtype=torch.bool, device=prox.device)
        for _ in range(LONGEST_CYCLE - 1):
            x = prox(x)
            back |= (x - first).double().square().mean(dim=1) < FIXED
        return back.cpu(), residual.float().cpu()


def check_image_shape(image_shape: object) -> tuple[int, ...]:
    """The shape. Raises TypeError or ValueError unless it is at least one integer, each at least 1."""
    if isinstance(image_shape, (str, bytes)) or not isinstance(image_shape, Sequence):
        raise TypeError(f"image_shape must be a tuple of integers, such as (3, 32, 32), not {image_shape!r}")
    if not len(image_shape):
        raise ValueError("image_shape must have at least one axis, such as (3, 32, 32); it has none")
    for side in image_shape:
        check_integer("each axis of image_shape", side, low=1)
    return tuple(image_shape)
