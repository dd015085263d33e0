"""Images through the steps of an iteration on their matrices, many at a time; those that are done leave."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from memrecon_fast.attractors.krylov import Basis, Found, Linear, gather
from memrecon_fast.common.checks import check_integer
from memrecon_fast.engine.memory import SHARE_OF_MEMORY, free_memory
from memrecon_fast.engine.prox import Prox
from memrecon_fast.engine.transfer import working_on

LOOKS = (12, 16, 20, 24, 32, 48, 64)
"""After so many steps it is looked whether the values are found; after the last of them an image is given up."""
MAX_ROWS_ON_CPU = 64
MAX_ROWS_ON_GPU = 1024
_GRAPHS = 4
"""The graphs of a forward and a backward pass keep about so many times the tensors of a forward pass."""


def values_of(
    prox: Prox,
    images: Tensor,
    linearise: Callable[[Tensor], Linear],
    begin: Callable[[int, int], Basis],
    k: int,
    tolerance: float,
    rows: int | None,
) -> tuple[Found, Tensor]:
    """The k values of the matrix at each image, in their order; and int32 (B,) steps.

    images: float32 (B, *image_shape). linearise: the matrices at rows [n, d]. begin: a basis of n rows with room for so
    many steps. rows: so many images are worked on at a time, see `rows_at_once`.

    All images begin in full batches. At each look those that are done leave; the others wait until there are enough of
    them for a batch. Making f ready for a batch costs two products, and a product costs the same whether its rows are
    done or not: so what is left of a batch does not go on alone.
    """
    looks = sorted({min(look, prox.pixels) for look in LOOKS})
    none = begin(0, 1).look(k)
    values = torch.full((len(images), k), torch.nan, dtype=none.values.dtype, device="cpu")
    residuals = torch.full((len(images), k), torch.inf, dtype=torch.float32, device="cpu")
    ended = torch.zeros(len(images), dtype=torch.bool, device="cpu")
    steps = torch.zeros(len(images), dtype=torch.int32, device="cpu")
    with working_on(prox.device):
        waiting = _Waiting(images, prox, looks, begin, rows_at_once(prox, rows))
        for batch, look in waiting.batches():
            matrices = linearise(batch.rows)
            while batch.basis.steps < look:
                batch.basis.step(matrices)
            del matrices  # their graphs
            found = batch.basis.look(k)
            values[batch.indices], residuals[batch.indices] = found.values, found.residuals
            ended[batch.indices], steps[batch.indices] = found.ended, look
            left = (~found.done(tolerance)).nonzero().flatten()
            if look < looks[-1] and len(left):
                waiting.put(batch.part(left))
    return Found(values, residuals, ended), steps


def rows_at_once(prox: Prox, wanted: int | None = None) -> int:
    """How many images are worked on at a time: as many as are wanted, or else 64, on a GPU 1024, or as many as half of
    the free memory should hold. Raises ValueError for less than one."""
    if wanted is not None:
        check_integer("rows", wanted, low=1)
        return min(wanted, prox.most_rows)
    bases = 3 * (LOOKS[-1] + 1) * 4 * prox.pixels  # that of the batch, and those that wait
    most = MAX_ROWS_ON_GPU if prox.device.type == "cuda" else MAX_ROWS_ON_CPU
    fitting = int(SHARE_OF_MEMORY * free_memory(prox.device) / (_GRAPHS * prox.bytes_per_row + bases))
    return max(1, min(most, fitting, prox.most_rows))


@dataclasses.dataclass(frozen=True)
class _Batch:
    """Images that have made as many steps."""

    indices: Tensor
    """int64 [n]."""
    rows: Tensor
    """float32 [n, d], on the device."""
    basis: Basis

    def part(self, which: Tensor) -> _Batch:
        """These alone, copied."""
        rows = self.rows[which.to(self.rows.device)]
        return _Batch(self.indices[which], rows, gather([(self.basis, which)], self.basis.steps))


class _Waiting:
    """Images that wait for a batch, by how many steps they have made."""

    def __init__(
        self,
        images: Tensor,
        prox: Prox,
        looks: Sequence[int],
        begin: Callable[[int, int], Basis],
        at_once: int,
    ) -> None:
        self._images, self._prox, self._begin, self._at_once = images, prox, begin, at_once
        self._next_look = dict(zip([0, *looks], looks, strict=False))
        self._begun: dict[int, list[_Batch]] = {look: [] for look in looks[:-1]}

    def put(self, batch: _Batch) -> None:
        """These wait from now on."""
        self._begun[batch.basis.steps].append(batch)

    def batches(self) -> Iterator[tuple[_Batch, int]]:
        """Full batches, and how many steps each is to have made; those that are not full come last."""
        for first in range(0, len(self._images), self._at_once):
            yield self._new(first), self._next_look[0]
            while full := [steps for steps in self._begun if self._count(steps) >= self._at_once]:
                yield self._take(full[-1])
        while left := [steps for steps in self._begun if self._begun[steps]]:
            yield self._take(left[0])

    def _new(self, first: int) -> _Batch:
        some = self._images[first : first + self._at_once]
        indices = torch.arange(first, first + len(some), device="cpu")
        rows = self._prox.to_rows(some.to(self._prox.device))
        return _Batch(indices, rows, self._begin(len(some), self._next_look[0]))

    def _count(self, steps: int) -> int:
        return sum(len(batch.indices) for batch in self._begun[steps])

    def _take(self, steps: int) -> tuple[_Batch, int]:
        begun, look = self._begun[steps], self._next_look[steps]
        indices, rows = (torch.cat([getattr(batch, name) for batch in begun]) for name in ("indices", "rows"))
        every = [torch.arange(len(batch.indices), device="cpu") for batch in begun]
        basis = gather([(batch.basis, which) for batch, which in zip(begun, every, strict=True)], steps)
        together = _Batch(indices, rows, basis)
        some, rest = torch.arange(len(indices), device="cpu").tensor_split([self._at_once])
        self._begun[steps] = [together.part(rest)] if len(rest) else []
        taken, whole = together.part(some), torch.arange(len(some), device="cpu")
        return dataclasses.replace(taken, basis=gather([(taken.basis, whole)], look)), look
