"""Near-duplicates: controls that are nearly a member, whose recovery says nothing about unknown images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from memrecon_fast import metrics
from memrecon_fast.images.scan import CELLS, Images, cell_edges

MAX_COMPARED = 16
"""So many members, at most, are compared with a control pixel by pixel."""
_CONTROLS, _MEMBERS = 512, 4096  # in a block: 8 MB of distances
# Of squared distances in float32: those are of points within a ball of radius 1/2, given by some 200 coordinates.
_ROUNDING = 1e-5


def find_near_duplicates(members: Images, controls: Images) -> dict[int, int]:
    """For each control that is nearly a member: its index, and that of the member nearest to it.

    Nearly means an MSE below `metrics.APPROXIMATE_MSE`: such a control would be "recovered" where that member is. The
    MSE of averages over cells is never larger than that of the images, so that thumbnails rule out nearly all pairs; of
    the members that remain, only the `MAX_COMPARED` with the most similar thumbnails are looked at.

    Raises ValueError where the images differ in shape, or have changed since they were checked.
    """
    if members.image_shape != controls.image_shape:
        raise ValueError(f"the members are of shape {members.image_shape}, the controls of {controls.image_shape}")
    same = {members.sha256[index]: index for index in reversed(members.usable())}
    found = {index: same[controls.sha256[index]] for index in controls.usable() if controls.sha256[index] in same}
    others = [index for index in controls.usable() if index not in found]
    for control, candidates in _candidates(members, controls, others):
        nearest = _nearest(members, controls, control, candidates)
        if nearest is not None:
            found[control] = nearest
    return dict(sorted(found.items()))


def _nearest(members: Images, controls: Images, control: int, candidates: list[tuple[float, int]]) -> int | None:
    """The member with the least MSE below the limit, of pairs (lower bound of the MSE, index), in ascending order."""
    image = controls[control][None]
    least, nearest = metrics.APPROXIMATE_MSE, None
    for bound, member in candidates:
        if bound >= least + _ROUNDING:
            break
        mse = metrics.mse(members[member][None], image).item()
        if mse < least:
            least, nearest = mse, member
    return nearest


def _candidates(members: Images, controls: Images, indices: list[int]) -> Iterator[tuple[int, list[tuple[float, int]]]]:
    """The controls, of these, that may be near a member; with the members, each after a lower bound of its MSE."""
    usable = np.array(members.usable())
    right = np.ones((len(usable), members.thumbnails.shape[1] + 2), np.float32)
    for begin in range(0, len(usable), _MEMBERS):
        points = _factors(members, usable[begin : begin + _MEMBERS])
        right[begin : begin + _MEMBERS, :-2] = points
        right[begin : begin + _MEMBERS, -1:] = _squares(points)
    limit = metrics.APPROXIMATE_MSE + _ROUNDING
    buffer = np.empty((_CONTROLS, min(_MEMBERS, len(usable))), np.float32)
    for begin in range(0, len(indices), _CONTROLS):
        block = indices[begin : begin + _CONTROLS]
        left = _factors(controls, np.array(block))
        left = np.hstack([-2 * left, _squares(left), np.ones((len(left), 1), np.float32)])  # |a|² + |b|² - 2ab at once
        bounds = np.full((len(block), MAX_COMPARED), np.inf, np.float32)
        nearest = np.zeros((len(block), MAX_COMPARED), np.int64)
        for first in range(0, len(usable), _MEMBERS):
            part = right[first : first + _MEMBERS].T
            distances = np.matmul(left, part, out=buffer[: len(block), : part.shape[1]])
            rows = np.flatnonzero(distances.min(axis=1) < limit)
            if not len(rows):
                continue
            columns = _least(distances[rows])
            both_bounds = np.hstack([bounds[rows], np.take_along_axis(distances[rows], columns, axis=1)])
            both_nearest = np.hstack([nearest[rows], first + columns])
            columns = _least(both_bounds)
            bounds[rows] = np.take_along_axis(both_bounds, columns, axis=1)
            nearest[rows] = np.take_along_axis(both_nearest, columns, axis=1)
        for row in np.flatnonzero(bounds.min(axis=1) < limit):
            pairs = zip(bounds[row].tolist(), usable[nearest[row]].tolist(), strict=True)
            yield block[row], sorted(pair for pair in pairs if pair[0] < limit)


def _least(bounds: NDArray[np.float32]) -> NDArray[np.int64]:
    """The columns of the `MAX_COMPARED` least of each row, or of all, in any order."""
    count = min(MAX_COMPARED, bounds.shape[1])
    return np.argpartition(bounds, count - 1, axis=1)[:, :count]


def _factors(images: Images, indices: NDArray[np.int64]) -> NDArray[np.float32]:
    """Points whose squared distance is a lower bound of the MSE: thumbnails, each cell weighted by its size.

    The squares of n differences sum to no less than n times the square of their average. An MSE is over all pixels, so
    that a cell counts with its share of them. Around 1/2, which makes what is subtracted, and its rounding, small.
    """
    channels, height, width = images.image_shape
    rows, columns = np.diff(cell_edges(height)) / height, np.diff(cell_edges(width)) / width
    shares = np.broadcast_to(np.outer(rows, columns) / channels, (channels, CELLS, CELLS))
    points: NDArray[np.float32] = (images.thumbnails[indices] - np.float32(0.5)) * np.sqrt(shares).reshape(-1).astype(
        "f4"
    )
    return points


def _squares(points: NDArray[np.float32]) -> NDArray[np.float32]:
    squares: NDArray[np.float32] = np.square(points, dtype=np.float64).sum(axis=1, keepdims=True).astype(np.float32)
    return squares
