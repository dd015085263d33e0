"""What a survey is made of: tables of rows with an index, each divided into blocks that are computed as a whole."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa
import torch
from torch import Tensor

from memrecon_fast.attractors.jacobian import Jacobian
from memrecon_fast.attractors.starts import KINDS
from memrecon_fast.attractors.survey.plan import Survey
from memrecon_fast.images.nearest import Nearest
from memrecon_fast.images.scan import Images

INDEX = "index"
Rows = Callable[[Jacobian, Sequence[int]], Mapping[str, Any]]
"""Computes the rows with these indices: the columns beside the index, as sequences or arrays. What comes of a block
depends on nothing but the model, what the function is made of, and the indices."""


class UnreadableError(ValueError):
    """An image that could be used cannot be read any more, or is another now; the message names it."""


def read_images(images: Images, indices: Sequence[int]) -> Tensor:
    """These images, float32 (n, C, H, W). Raises UnreadableError."""
    try:
        return torch.stack([images[index] for index in indices])
    except ValueError as error:
        raise UnreadableError(str(error)) from error


def pictures_of(survey: Survey) -> Usable | None:
    """What random starts of its kind are made of: the controls, or nothing."""
    return Usable(survey.splits["controls"]) if KINDS[survey.kind].takes_pictures else None


class Usable(Sequence[Tensor]):
    """The images that can be used, in their order."""

    def __init__(self, images: Images) -> None:
        self._images, self._usable = images, images.usable()

    def __len__(self) -> int:
        return len(self._usable)

    def __getitem__(self, position: Any) -> Any:
        return read_images(self._images, [self._usable[position]])[0]


def tensor_of(rows: pa.Table, name: str) -> Tensor:
    """A column of lists of numbers, all as long as each other: (n, length)."""
    column = rows[name].combine_chunks()
    return torch.from_numpy(column.flatten().to_numpy().reshape(len(rows), -1).copy())


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """Images that others are compared with. They are read where this is first done, and then kept."""

    images: Images

    @property
    def nearest(self) -> Nearest:
        """The nearest of them to any others. Raises UnreadableError."""
        if isinstance(self._read, str):
            raise UnreadableError(self._read)
        return self._read

    @functools.cached_property
    def _read(self) -> Nearest | str:
        """Or why it could not be read: once for all blocks."""
        try:
            return Nearest(self.images)
        except ValueError as error:
            return str(error)


class Stop(Protocol):
    """Sees the blocks of a table in their order."""

    def add(self, rows: pa.Table) -> bool:
        """One more block; whether the table needs no more of them."""


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """A table of a survey. It can be sent to workers."""

    name: str
    schema: pa.Schema
    """Its first field is `INDEX`, int64."""
    indices: tuple[int, ...]
    """Of all rows, ascending."""
    size: int
    """A block is the rows whose index, divided by this, is the block's number: done whole or not at all."""
    rows: Rows
    stop: Callable[[], Stop] | None = None
    """Begins to look whether the table may end early: after which block does not depend on who computes them."""

    @functools.cached_property
    def blocks(self) -> dict[int, tuple[int, ...]]:
        """The indices of each block that has any, by its number, ascending."""
        found: dict[int, list[int]] = {}
        for index in self.indices:
            found.setdefault(index // self.size, []).append(index)
        return {block: tuple(indices) for block, indices in found.items()}

    def compute(self, jacobian: Jacobian, block: int) -> pa.Table:
        """The rows of a block."""
        indices = self.blocks[block]
        columns = {INDEX: indices, **self.rows(jacobian, indices)}
        return pa.table({field.name: columns[field.name] for field in self.schema}, schema=self.schema)
