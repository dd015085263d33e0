"""Which ends of iterations are the same: clusters of a stream of images, in the memory of what is different.

An image that is linked (MSE below `LINKED_MSE`) with no leader before it becomes a leader. One that is linked with
leaders joins them, and where they are of several clusters, these become one. So clusters are sets of leaders, chained
by images between them. Where no cluster is wider than a link, this is single linkage of all images; where one is, it
may stay in more pieces than single linkage would leave, and is never joined to more.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from memrecon_fast.metrics import mse_of_rows

LINKED_MSE = 1e-5
_AXES = 64
_ROUNDING = 16 * np.finfo(np.float64).eps
"""Of squared distances made of products in float64, for each entry of the products, relative to the squares."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Images that are the same."""

    first: int
    """The index of the first of them."""
    count: int
    image: NDArray[np.float32]
    """[d]: the first of them."""


@dataclasses.dataclass(frozen=True)
class _Seen:
    """Images, and what is compared of them first."""

    images: NDArray[np.float32]
    """[n, d]."""
    along: NDArray[np.float64]
    """[n, axes]: their parts along some axes of length 1 that are orthogonal to each other."""
    squares: NDArray[np.float64]
    """[n]: sums of squares."""

    def first(self, count: int) -> _Seen:
        """So many of them, not copied."""
        return _Seen(self.images[:count], self.along[:count], self.squares[:count])

    def with_room(self, count: int) -> _Seen:
        """With so many rows more."""
        return _Seen(*(np.concatenate([x, np.empty((count, *x.shape[1:]), x.dtype)]) for x in vars(self).values()))

    def put(self, row: int, others: _Seen, at: int) -> None:
        """Row `at` of the others becomes this row."""
        self.images[row], self.along[row], self.squares[row] = others.images[at], others.along[at], others.squares[at]


class Clusters:
    """Clusters of images [d] that come in the order of their indices; memory grows with the number of leaders."""

    def __init__(self, entries: int) -> None:
        self.firsts: list[int] = []
        """The index of each leader: that of an image which was like none before it."""
        random = np.random.Generator(np.random.Philox(0)).standard_normal((entries, min(_AXES, entries)))
        self._axes, _ = np.linalg.qr(random)
        self._leaders = self._seen(np.empty((0, entries), np.float32))  # with room for more
        self._parents: list[int] = []
        """Of each leader one before it in the same cluster; itself, of the first."""
        self._counts: list[int] = []
        """Of each leader the images that joined it: of those that it is linked with, it is the first."""

    def add(self, indices: NDArray[np.int64], images: NDArray[np.float32]) -> None:
        """More images [n, d], with indices above those before, ascending; all of them finite."""
        known, these = self._leaders.first(len(self.firsts)), self._seen(images)
        links = [_linked(known, row, image) for row, image in zip(_near(these, known), images, strict=True)]
        near = _near(these, these)
        for row, index in enumerate(indices.tolist()):
            if not links[row]:
                leader = self._lead(index, these, row)
                links[row].append(leader)
                near[row, : row + 1] = False
                for other in _linked(these, near[row], images[row]):
                    links[other].append(leader)
            self._counts[links[row][0]] += 1
            for other in links[row][1:]:
                self._join(links[row][0], other)

    def clusters(self) -> list[Cluster]:
        """In the order of their first images."""
        found: dict[int, int] = {}
        for leader, count in enumerate(self._counts):
            root = self._root(leader)
            found[root] = found.get(root, 0) + count
        return [Cluster(self.firsts[root], count, self._leaders.images[root]) for root, count in sorted(found.items())]

    def _seen(self, images: NDArray[np.float32]) -> _Seen:
        return _Seen(images, images @ self._axes, np.square(images, dtype=np.float64).sum(axis=1))

    def _lead(self, index: int, images: _Seen, row: int) -> int:
        """A new leader."""
        leader = len(self.firsts)
        if leader == len(self._leaders.images):
            self._leaders = self._leaders.with_room(max(16, leader // 2))
        self._leaders.put(leader, images, row)
        self.firsts.append(index)
        self._parents.append(leader)
        self._counts.append(0)
        return leader

    def _root(self, leader: int) -> int:
        """The first leader of its cluster."""
        while self._parents[leader] != leader:
            self._parents[leader] = self._parents[self._parents[leader]]
            leader = self._parents[leader]
        return leader

    def _join(self, leader: int, other: int) -> None:
        first, second = sorted((self._root(leader), self._root(other)))
        self._parents[second] = first


def _near(a: _Seen, b: _Seen) -> NDArray[np.bool_]:
    """bool [n, m]: which images of a may be linked with which of b. Along axes no two are further apart than they are,
    so that nearly all pairs are ruled out."""
    apart = np.square(a.along).sum(axis=1)[:, None] + np.square(b.along).sum(axis=1) - 2 * a.along @ b.along.T
    sums = a.squares[:, None] + b.squares
    near: NDArray[np.bool_] = apart <= a.images.shape[1] * (LINKED_MSE + _ROUNDING * sums)
    return near


def _linked(others: _Seen, near: NDArray[np.bool_], image: NDArray[np.float32]) -> list[int]:
    """Which of the others that are near, bool [n], are linked with an image [d]; compared pixel by pixel."""
    candidates = np.flatnonzero(near)
    mse = mse_of_rows(others.images[candidates], image[None])
    linked: list[int] = candidates[mse < LINKED_MSE].tolist()
    return linked
