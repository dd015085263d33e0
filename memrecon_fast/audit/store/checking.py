"""What the files of a run must say: rows of the cell that their name tells, of the images that the run was begun with.

A file is not trusted by its name: another cell's in its place, or one with rows taken out or put in twice, would change
what a run says without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memrecon_fast.audit.store.records import NEAR_MSE, NEAREST, Cell, Columns
from memrecon_fast.images.scan import digest_of
from memrecon_fast.metrics import ACCURATE_MSE, APPROXIMATE_MSE


def fault_of_rows(table: pa.Table, cell: Cell, images: Columns, complete: bool) -> str:
    """What is wrong with the rows of a file of this cell, in words; "" if nothing is.

    images: of all splits, as `scan.read_images` gives them. complete: whether all images of the cell must be there, in
    the order of their indices; otherwise some of them, in any order.
    """
    for name in ("split", "mask", "method"):
        others = set(table[name].unique().to_pylist()) - {getattr(cell, name)}
        if others:
            return f"it holds rows of the {name} {min(others)!r}, not of {getattr(cell, name)!r}"
    ours = _of_split(images, cell.split)
    index = table["index"].to_numpy()
    usable = _usable(ours)
    outside = index[~np.isin(index, usable)]
    if len(outside):
        return f"it holds a row of image {outside[0]}, and there is no such image among the {cell.split}"
    if len(np.unique(index)) < len(index):
        return "it holds an image twice"
    for name in ("sha256", "name"):
        wrong = np.flatnonzero(table[name].to_numpy() != ours[name][index])
        if len(wrong):
            return f"the {name} of image {index[wrong[0]]} is not that of this image"
    mse, diverged = table["mse"].to_numpy(), table["diverged"].to_numpy()
    for name, threshold in (("accurate", ACCURATE_MSE), ("approximate", APPROXIMATE_MSE)):
        said = table[name].fill_null(False).to_numpy()
        contradicted = np.flatnonzero(said != (~diverged & (mse < threshold)))
        if len(contradicted):
            return f"the verdict {name!r} on image {index[contradicted[0]]} is not what its mse says"
    if fault := _fault_of_members(table, images, mse, diverged):
        return fault
    if complete and len(index) < len(usable):
        return f"it holds {len(index)} images; there are {len(usable)}"
    return "it is not in order" if complete and (np.diff(index) < 0).any() else ""


def _fault_of_members(table: pa.Table, images: Columns, mse: NDArray[np.float64], diverged: NDArray[np.bool_]) -> str:
    """What is wrong with the nearest members; "" if nothing is."""
    index, split = table["index"].to_numpy(), table["split"].to_numpy()
    columns = [table[name].to_numpy().astype(np.float64) for name in NEAREST]  # NaN for null
    nearest, error, shown = columns
    known, far = ~np.isnan(nearest), error == np.inf
    in_part = (np.isnan(shown) == known) | (np.isnan(error) == (known | far)) | (known & far)
    if (in_part | ((known | far) & diverged)).any():
        return "it names the nearest member of some estimates in part, or of diverged ones"
    wrong = np.flatnonzero(known & ~np.isin(nearest, _usable(_of_split(images, "members"))))
    if len(wrong):
        said = f"{nearest[wrong[0]]:.0f}"
        return f"the nearest member of image {index[wrong[0]]} is {said}, and there is no such member"
    # a member itself is one of those that were compared; noise aside, the same numbers make the same error
    own = known & (split == "members")
    further = known & ((error < 0) | (shown < 0))
    further |= own & ((error > mse) | ((nearest == index) & (error != mse)))
    further |= far & (split == "members") & (mse <= NEAR_MSE)
    if further.any():
        return f"the nearest member of image {index[further][0]} is further away than it is itself"
    return ""


def fault_of_images(images: Columns, description: Mapping[str, Any]) -> str:
    """What is wrong with the content of `images.parquet`, in words; "" if nothing is that can be told without them.

    images: as `scan.read_images` gives them. description: the content of `audit.json`.
    """
    plan = description["plan"]
    if set(images["split"]) != set(plan["images"]):
        return f"its splits are {', '.join(map(repr, sorted(set(images['split']))))}"
    for split, digest in plan["images"].items():
        ours = _of_split(images, split)
        problems = {at: problem for at, problem in enumerate(ours["problem"]) if problem is not None}
        in_order = np.array_equal(ours["index"], np.arange(len(ours["index"])))
        if not in_order or digest_of(ours["name"].tolist(), ours["sha256"].tolist(), problems) != digest:
            return f"the {split} in it are not those that the run was begun with"
    near = [(name, split) for name, split in zip(images["near_duplicate_of"], images["split"], strict=True) if name]
    members = _of_split(images, "members")
    if {split for _, split in near} - {"controls"} or {name for name, _ in near} - set(members["name"]):
        return "its near-duplicates are no controls that are nearly a member"
    known = set(members["sha256"]) - {""}  # np.isin compares text each with each
    same = np.array([one in known for one in images["sha256"]]) & (images["split"] == "controls")
    if not plan.get("degraded") and any(name is None for name in images["near_duplicate_of"][same]):
        return "it does not say which controls are members"
    return ""


def _of_split(images: Columns, split: str) -> Columns:
    ours: NDArray[np.bool_] = images["split"] == split
    return {name: column[ours] for name, column in images.items()}


def _usable(images: Columns) -> NDArray[np.int64]:
    """The indices of the images of a split that can be used, ascending."""
    return np.flatnonzero([problem is None for problem in images["problem"]])
