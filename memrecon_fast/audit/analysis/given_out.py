"""Which training images came out of the model: estimates that are some member, whatever image was degraded.

An estimate is a member where its mean squared error from it is below `metrics.APPROXIMATE_MSE`. Where the degraded copy
already was that member by the same measure, it was shown, not given out, and does not count; nor do near-duplicates of
members among the controls, as what is shown of them is a member, nor images of which nothing is erased.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memrecon_fast.audit.analysis.results import Results
from memrecon_fast.audit.analysis.statistics import something_erased
from memrecon_fast.audit.store.records import NEAREST, Cell, Columns
from memrecon_fast.metrics import APPROXIMATE_MSE

COLUMNS = ("erased_mse", *NEAREST)
"""Of the records, with "mse" and "index", that this needs."""
SHOWN = 8
"""So many of a cell, at most, have a picture."""


@dataclasses.dataclass(frozen=True)
class GivenOut:
    """Of the estimates of a cell that count, in the order of their indices."""

    index: NDArray[np.int64]
    """(n,): of the image that was degraded."""
    own: NDArray[np.bool_]
    """(n,): whether the estimate is the image itself, a member; an equal or nearly equal member is the same."""
    other: NDArray[np.bool_]
    """(n,): whether it is another image than the degraded one, and a member."""
    member: NDArray[np.int64]
    """(n,): the index of the member that it is nearest to; -1 where none is near."""

    def different(self) -> set[int]:
        """The members that came out of other images."""
        return set(self.member[self.other].tolist())


def given_out(results: Results, cell: Cell) -> GivenOut | None:
    """Of a cell; None where none of its images counts, or where it is not known."""
    columns = results.cells.get(cell)
    if columns is None:
        return None
    known = ~np.isnan(columns["nearest_member_mse"].astype(np.float64)) | columns["diverged"].astype(bool)
    counted = known & ~(columns["shown_member_mse"] < APPROXIMATE_MSE)
    counted &= ~results.near_duplicates(cell.split)[columns["index"]]
    if not counted.any():
        return None
    some = {name: columns[name][counted] for name in ("index", "mse", *NEAREST)}
    is_member = some["nearest_member_mse"] < APPROXIMATE_MSE
    itself = some["mse"] < APPROXIMATE_MSE
    member = np.nan_to_num(some["nearest_member"].astype(np.float64), nan=-1).astype(np.int64)
    return GivenOut(some["index"], is_member & itself & (cell.split == "members"), is_member & ~itself, member)


def choose_given_out(columns: Columns) -> list[int]:
    """The positions of estimates whose pictures are kept: for each member that came out of another image the first, no
    more than `SHOWN`. columns: of a cell, with those of `COLUMNS`, in the order of the indices.

    Those of all images are among those of any part of them that holds them.
    """
    is_other = (columns["nearest_member_mse"] < APPROXIMATE_MSE) & ~(columns["shown_member_mse"] < APPROXIMATE_MSE)
    is_other &= something_erased(columns) & ~(columns["mse"] < APPROXIMATE_MSE)
    positions = np.flatnonzero(is_other)
    _, first = np.unique(columns["nearest_member"][positions], return_index=True)
    chosen: list[int] = positions[np.sort(first)[:SHOWN]].tolist()
    return chosen


def summarise_given_out(results: Results) -> dict[str, Any]:
    """For `summary.json`: over all masks, what came out of each split by each method, and by all that use the model.

    images: those that count under some mask. giving: of how many of them another image came out, which is a member.
    members: how many different members these are. None, where nothing is known.
    """
    of_model = [method for method, traits in results.traits.items() if traits.uses_model]
    rows = [
        _over_masks(results, split, [method]) | {"method": method}
        for split in results.splits
        for method in results.methods
    ]
    return {
        "by_method": [row for row in rows if row["images"]],
        "by_model": {split: _over_masks(results, split, of_model) for split in results.splits},
    }


def _over_masks(results: Results, split: str, methods: list[str]) -> dict[str, Any]:
    found = [given_out(results, Cell(split, mask, method)) for method in methods for mask in results.masks]
    known = [one for one in found if one is not None]
    return {
        "split": split,
        "images": len({index for one in known for index in one.index.tolist()}),
        "giving": len({index for one in known for index in one.index[one.other].tolist()}),
        "members": len(set().union(*(one.different() for one in known))),
    }
