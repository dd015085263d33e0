"""How many slots of a CPU are filled."""

from __future__ import annotations

import math

FEWEST = 64
"""Where so many images wait, no fewer are worked on at a time."""
BLOCKS = 3
"""So many blocks of each number are timed; the shortest counts, as other work on the machine only makes them longer."""
WORTH = 0.95
"""Twice as many slots are filled where an image then takes less than this share of the time."""


class Width:
    """The number of slots that are filled: that with which an image takes the least time, found while they work.

    A forward pass of more rows reads the weights less often for each of them, until what is between the layers no
    longer fits into the caches: large fully connected nets are fastest with 256 rows, U-Nets with 64. Results do not
    depend on it.

    most: so many slots there are. found: False: all of them are filled, whatever time it takes.
    """

    def __init__(self, most: int, found: bool) -> None:
        self.now = min(FEWEST, most) if found else most
        """So many are filled, where enough images wait."""
        self._most = most
        self._searching = 2 * self.now <= most
        self._best = math.inf
        self._times: list[float] = []

    def note(self, images: int, seconds: float) -> None:
        """A block with so many images took so long. What was not with `now` of them says nothing, and is left out."""
        if not self._searching or images != self.now:
            return
        self._times.append(seconds / images)
        if len(self._times) < BLOCKS:
            return
        shortest = min(self._times)
        self._times.clear()
        if shortest > WORTH * self._best:
            self.now //= 2
            self._searching = False
            return
        self._best = shortest
        self._searching = 2 * self.now <= self._most
        if self._searching:
            self.now *= 2
