"""Which ends of iterations are the same: clusters of a stream of images, in the memory of what is different.

An image that is linked (MSE below `LINKED_MSE`) with no leader before it becomes a leader. One that is linked with
leaders joins them, and where they are of several clusters, these become one. So clusters are sets of leaders, chained
by images between them. Where no cluster is wider than a link, this is single linkage of all images; where one is, it
may stay in more pieces than single linkage would leave, and is never joined to more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from memrecon_fast.metrics import mse_of_rows

LINKED_MSE = 1e-5
_BYTES_AT_ONCE = 2**24
"""Of leaders in float64, as they are compared."""
_ROUNDING = 4 * np.finfo(np.float64).eps


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Images that are the same."""

    first: int
    """The index of the first of them."""
    count: int
    image: NDArray[np.float32]
    """[d]: the first of them."""


class Clusters:
    """Clusters of images [d] that come in the order of their indices; memory grows with the number of leaders."""

    def __init__(self, entries: int) -> None:
        self.firsts: list[int] = []
        """The index of each leader: that of an image which was like none before it."""
        self._leaders = np.empty((0, entries), np.float32)  # with room for more
        self._squares = np.empty(0, np.float64)
        self._parents: list[int] = []
        """Of each leader one before it in the same cluster; itself, of the first."""
        self._counts: list[int] = []
        """Of each leader the images that joined it: of those that it is linked with, it is the first."""

    def add(self, indices: NDArray[np.int64], images: NDArray[np.float32]) -> None:
        """More images [n, d], with indices above those before, ascending; all of them finite."""
        links = self._links(images)
        for row, index in enumerate(indices.tolist()):
            if not links[row]:
                leader = self._lead(index, images[row])
                links[row].append(leader)
                later = mse_of_rows(images[row + 1 :], images[row : row + 1])
                for other in np.flatnonzero(later < LINKED_MSE).tolist():
                    links[row + 1 + other].append(leader)
            self._counts[links[row][0]] += 1
            for other in links[row][1:]:
                self._join(links[row][0], other)

    def clusters(self) -> list[Cluster]:
        """In the order of their first images."""
        found: dict[int, int] = {}
        for leader, count in enumerate(self._counts):
            root = self._root(leader)
            found[root] = found.get(root, 0) + count
        return [Cluster(self.firsts[root], count, self._leaders[root]) for root, count in sorted(found.items())]

    def _links(self, images: NDArray[np.float32]) -> list[list[int]]:
        """Of each image the leaders that it is linked with, ascending.

        |a|² + |b|² − 2ab in float64 says which may be; these are compared pixel by pixel.
        """
        links: list[list[int]] = [[] for _ in images]
        exact = images.astype(np.float64)
        squares = np.einsum("ij,ij->i", exact, exact)
        entries = max(images.shape[1], 1)
        for part in self._parts():
            sums = squares[:, None] + self._squares[part]
            distances = sums - 2 * exact @ self._leaders[part].astype(np.float64).T
            near = distances <= entries * (LINKED_MSE + _ROUNDING * sums)
            for row in np.flatnonzero(near.any(axis=1)).tolist():
                candidates = part.start + np.flatnonzero(near[row])
                mse = mse_of_rows(self._leaders[candidates], images[row : row + 1])
                links[row] += candidates[mse < LINKED_MSE].tolist()
        return links

    def _parts(self) -> Iterator[slice]:
        count = len(self.firsts)
        step = max(1, _BYTES_AT_ONCE // (8 * max(self._leaders.shape[1], 1)))
        return (slice(first, min(first + step, count)) for first in range(0, count, step))

    def _lead(self, index: int, image: NDArray[np.float32]) -> int:
        """A new leader."""
        leader = len(self.firsts)
        if leader == len(self._leaders):
            room = max(16, leader // 2)
            self._leaders = np.concatenate([self._leaders, np.empty((room, self._leaders.shape[1]), np.float32)])
            self._squares = np.concatenate([self._squares, np.empty(room)])
        self._leaders[leader] = image
        self._squares[leader] = np.square(image, dtype=np.float64).sum()
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
