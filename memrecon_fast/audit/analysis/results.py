"""The content of a run's folder, finished or not, from which its summary and report are made."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memrecon_fast.audit.analysis.statistics import something_erased
from memrecon_fast.audit.store.folder import Folder
from memrecon_fast.audit.store.manifest import cells_of, read_description, traits_of
from memrecon_fast.audit.store.opening import open_parts, read_known_images
from memrecon_fast.audit.store.records import Cell, Columns
from memrecon_fast.methods import Traits, headline_of

VERDICTS = ("accurate", "approximate")
"""An accurate recovery is an approximate one too."""


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """The content of a run's folder."""

    folder: Folder
    description: dict[str, Any]
    """The content of `audit.json`."""
    images: Columns
    """Of `images.parquet`: one row for each image, usable or not."""
    cells: dict[Cell, Columns]
    """The records of each cell that has any that count, as columns; without names and hashes, which `images` has."""
    left_out: dict[Cell, NDArray[np.int64]]
    """The indices of the images that do not count, as nothing was erased of them: see `statistics.something_erased`."""
    unknown: int
    """Records that do not say how much was erased, as an earlier version wrote them; they count."""

    @property
    def splits(self) -> list[str]:
        """ "members", and "controls" where there are any."""
        return list(self.description["plan"]["images"])

    @property
    def masks(self) -> list[str]:
        """The names of the masks."""
        return list(self.description["plan"]["masks"])

    @property
    def methods(self) -> list[str]:
        """The methods, in the order of the command."""
        return list(self.description["plan"]["methods"])

    @property
    def traits(self) -> dict[str, Traits]:
        """Of each method, what must be known to show its results."""
        return traits_of(self.description)

    @property
    def degraded(self) -> bool:
        """Whether the images were degraded already, so that their originals are unknown."""
        return bool(self.description["plan"]["degraded"])

    @property
    def verdicts(self) -> tuple[str, ...]:
        """The verdicts on a recovery, the strictest first: `VERDICTS`, or the one that needs no original."""
        return ("recognized",) if self.degraded else VERDICTS

    @property
    def otherwise(self) -> str:
        """The verdict on what none of these applies to, though it did not diverge."""
        return "not recognized" if self.degraded else "not recovered"

    @property
    def headline(self) -> str:
        """The headline method: see `methods.headline_of`."""
        return headline_of(self.traits)

    def images_of(self, split: str) -> Columns:
        """The rows of `images` of a split, in the order of their indices, which are 0, 1, 2, …"""
        ours = np.flatnonzero(self.images["split"] == split)
        ours = ours[np.argsort(self.images["index"][ours], kind="stable")]
        return {name: column[ours] for name, column in self.images.items()}

    def near_duplicates(self, split: str) -> NDArray[np.bool_]:
        """(N,): which images of a split are near-duplicates of a member; all False for the members themselves."""
        found = [name is not None for name in self.images_of(split)["near_duplicate_of"]]
        return np.array(found, bool)

    def missing(self) -> int:
        """How many recoveries of usable images are still to be done."""
        usable = sum(name is None for name in self.images["problem"])
        done = sum(len(columns["index"]) for columns in self.cells.values())
        done += sum(map(len, self.left_out.values()))
        return usable * len(self.masks) * len(self.methods) - done


def read_results(run: Path) -> Results:
    """Read a run. Raises ValueError for a folder that is not a run's, and for a run without any record."""
    description = read_description(run)
    try:
        traits_of(description)
    except ValueError as error:
        raise ValueError(f"{run}: {error}") from error
    folder = Folder(run, open_parts(run, description))
    images = read_known_images(run, description)
    cells: dict[Cell, Columns] = {}
    left_out: dict[Cell, NDArray[np.int64]] = {}
    unrecorded = 0
    for cell in cells_of(description):
        columns = _condense(folder.read(cell, images))
        counted = something_erased(columns)
        unrecorded += int(np.isnan(columns["erased_mse"]).sum())
        if counted.any():
            cells[cell] = {name: column[counted] for name, column in columns.items()}
        if not counted.all():
            left_out[cell] = columns["index"][~counted]
    if not cells and not left_out:
        raise ValueError(f"{run} holds no records of an audit: no image was done")
    return Results(folder, description, images, cells, left_out, unrecorded)


def _condense(columns: Columns) -> Columns:
    """Without text, which takes most of the memory, except the status, whose few values are shared.

    Where the originals are unknown, the verdicts are dropped too: they are columns of None.
    """
    names, which = np.unique(columns["status"].astype(str), return_inverse=True)
    numbers = {name: column for name, column in columns.items() if column.dtype != object}
    return {**numbers, "status": names.astype(object)[which]}
