"""In-flight batching: images stream through fixed slots, finished ones leave, waiting ones take their place.

The occupied slots are always the first ones, so that only they, rounded up to a multiple of 4 or 16, go through the
autoencoder. An image's result does not depend on its slot, its neighbours or the order of arrival.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from memrecon_fast.prox import Prox
from memrecon_fast.settings import Status, check_integer
from memrecon_fast.solvers.samples import Finished, Sample
from memrecon_fast.solvers.slots import RUNNING, SomeSlots, move, narrow


class Solver(Protocol[SomeSlots]):
    """What advances the slots; `solvers/` has the implementations."""

    @property
    def prox(self) -> Prox:
        """The autoencoder."""

    def allocate(self, slots: int) -> SomeSlots:
        """Empty slots."""

    def load(self, slots: SomeSlots, samples: Sequence[Sample]) -> None:
        """Begin with these samples, one for each of the slots."""

    def advance(self, slots: SomeSlots) -> None:
        """One block: afterwards `slots.status` says which images are done."""

    def estimate(self, slots: SomeSlots, slot: int) -> Tensor:
        """The image in this slot, [d]."""

    def mask(self, slots: SomeSlots, slot: int) -> Tensor:
        """The mask in this slot, [d]."""

    def evaluations(self, iterations: int) -> int:
        """Applications of the autoencoder for one image with this count of iterations."""


def stream(solver: Solver[Any], samples: Iterable[Sample], slots: int) -> Iterator[Finished]:
    """Pass `samples` through `slots` slots (rounded up, to a multiple of 4 or 16); yields each image as it is done.

    No more samples are taken from the iterable than there are slots free. Raises ValueError for a sample whose shape is
    not that of the others; what the autoencoder raises passes through, and the images yielded before are not lost.
    """
    check_integer("slots", slots, low=1)
    waiting = iter(samples)
    table = solver.allocate(solver.prox.round_up(slots))
    capacity = len(table.status)
    indices: list[int] = []  # of the image in each occupied slot
    while True:
        arriving = list(itertools.islice(waiting, capacity - len(indices)))
        if arriving:
            _check_shapes(arriving, solver.prox.image_shape)
            with torch.inference_mode():
                solver.load(narrow(table, len(indices), len(indices) + len(arriving)), arriving)
            indices += [sample.index for sample in arriving]
        if not indices:
            return
        done = (table.status[: len(indices)] != RUNNING).nonzero().flatten().tolist()
        for slot in reversed(done):
            yield _finished(solver, table, slot, indices[slot])
            last = indices.pop()
            if slot < len(indices):
                move(table, len(indices), slot)
                indices[slot] = last
        if not done:
            with torch.inference_mode():
                solver.advance(narrow(table, 0, solver.prox.round_up(len(indices))))


def _check_shapes(samples: Sequence[Sample], image_shape: tuple[int, ...]) -> None:
    for sample in samples:
        for what, tensor in (("", sample.degraded), ("the mask of ", sample.mask)):
            if tensor is not None and tuple(tensor.shape) != image_shape:
                raise ValueError(f"{what}image {sample.index} is of shape {tuple(tensor.shape)}, not {image_shape}")


def _finished(solver: Solver[SomeSlots], table: SomeSlots, slot: int, index: int) -> Finished:
    iterations = int(table.iterations[slot])
    return Finished(
        index=index,
        image=solver.prox.to_images(solver.estimate(table, slot)[None])[0],
        mask=solver.prox.to_images(solver.mask(table, slot)[None])[0],
        outer_iterations=iterations,
        evaluations=solver.evaluations(iterations),
        status=Status(int(table.status[slot])),
        residual=float(table.residual[slot]),
    )
