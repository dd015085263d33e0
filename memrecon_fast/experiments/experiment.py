"""What an experiment is: cells that are measured one by one, a table of their rows, and figures of what they kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]
"""Of a table: texts, numbers and None, by column."""


@dataclasses.dataclass(frozen=True)
class Pictures:
    """How many images an experiment takes, and what it takes where none are given: crops of photographs."""

    members: int
    controls: int
    size: int
    """Of the photographs: size × size pixels in colour."""
    fewest: int = 1
    """Members that it cannot do without."""


@dataclasses.dataclass(frozen=True)
class Given:
    """What a cell is measured with."""

    seed: int
    folder: Path
    """Its own, for what it may keep before it is done; it may hold what an interrupted one left."""
    members: Tensor | None = None
    """float32 (n, C, H, W); None for experiments that make their own data."""
    controls: Tensor | None = None
    kept: Path = Path()
    """The cell's own, for what stays beside the numbers: models, audits with their reports."""
    device: str = "cpu"
    """For experiments that are `on_device`: "cpu" or "cuda"."""

    def images(self) -> tuple[Tensor, Tensor]:
        """Members and controls, of an experiment that has `pictures`."""
        assert self.members is not None
        assert self.controls is not None
        return self.members, self.controls


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one cell measured."""

    rows: Sequence[Row]
    arrays: Mapping[str, NDArray[Any]] = dataclasses.field(default_factory=dict)
    """What figures are drawn from besides."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """The cells of an experiment at one size, by their names, each with the arguments that it is measured with."""

    cells: Mapping[str, Mapping[str, Any]]
    minutes: float
    """Of all cells on one thread, about."""
    pictures: Pictures | None = None
    """Where it takes others than the experiment's."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table for a paper."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | float | None]]
    """Texts, numbers as they are to be read, and None for what there is not."""


Measure = Callable[..., Outcome]
"""measure(given, **arguments of the cell)."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A table or a figure of a paper, made again. Cells are what is measured, and kept, one by one."""

    name: str
    what: str
    """In one line."""
    reproduces: str
    """The paper's table or figure."""
    differs: Sequence[str]
    """What is not as in the paper, in sentences."""
    scales: Mapping[str, Scale]
    """By name: "small", and "paper" where the published size differs and is known."""
    measure: Measure
    columns: Sequence[str]
    """Of its rows, those that are printed, where it has no `tables`; the files have all."""
    draw: Callable[[Mapping[str, Outcome]], Mapping[str, Figure]]
    """The figures, by file name without a suffix, of the outcomes by cell."""
    pictures: Pictures | None = None
    """None for an experiment that makes its own data."""
    tables: Callable[[Mapping[str, Outcome]], Mapping[str, Table]] | None = None
    """By file name without a suffix, of the outcomes by cell; they are printed in place of the rows."""
    family: str = ""
    """Experiments that show the same cells in other ways have one folder in common, and name the first of them."""
    on_device: bool = False
    """Whether it can be made on a GPU, and with more than one thread."""
    check_shape: Callable[[tuple[int, ...], Mapping[str, Mapping[str, Any]]], None] | None = None
    """Raises ValueError for a shape (C, H, W) of images that the cells of a scale cannot be made with."""


def columns_of(outcomes: Mapping[str, Outcome], name: str) -> NDArray[Any]:
    """A column of all rows."""
    return np.array([row[name] for outcome in outcomes.values() for row in outcome.rows])
