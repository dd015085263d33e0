"""How long the rest of an audit takes, from what was measured of it so far.

A recovery's time is that of its evaluations of the model, and these differ by method and split: where nothing comes
back, as of most controls, the paper's method goes on to its limit. So each kind of recovery is counted by itself: how
many are left, times the mean evaluations of those that are done, in this session or before, times the seconds that an
evaluation took in this session. Images are worked on many at a time: when the first are done, most of the work is in
those that are not, and nothing is said before enough are.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping

from memrecon_fast.audit.store.records import Cell
from memrecon_fast.methods import METHODS

Kind = tuple[str, str]
"""Method and split."""
_ENOUGH, _ENOUGH_OF_FEW = 256, 0.5
"""So many recoveries of a method, four times the slots of a CPU; or of few of them this share of the session's."""


@dataclasses.dataclass(frozen=True)
class Left:
    """What is still to be done."""

    seconds: float
    """Of all kinds that something is known of."""
    unknown: tuple[str, ...]
    """What nothing is known of yet, in the order in which it is done: methods, and splits of the method at work."""


class Pace:
    """Is told of each recovery, and says what is left.

    left: the recoveries of each cell that are not done. before: of each cell, how many were done in earlier sessions,
    and their evaluations together.
    """

    def __init__(self, left: Mapping[Cell, int], before: Mapping[Cell, tuple[int, int]]) -> None:
        self._left, self._done = Counter[Kind](), Counter[Kind]()
        self._evaluations: Counter[Kind] = Counter()
        self._seconds: dict[str, float] = {}
        self._work: Counter[str] = Counter()
        self._new: Counter[str] = Counter()
        for cell, count in left.items():
            self._left[cell.method, cell.split] += count
        todo: Counter[str] = Counter()
        for (method, _), count in self._left.items():
            todo[method] += count
        self._enough = {method: min(_ENOUGH, _ENOUGH_OF_FEW * count) for method, count in todo.items()}
        for cell, (count, evaluations) in before.items():
            self._note((cell.method, cell.split), count, evaluations)

    def add(self, cell: Cell, evaluations: int, seconds: float) -> None:
        """One more is done, so long after the one before: methods are worked on one after the other."""
        kind = (cell.method, cell.split)
        self._left[kind] -= 1
        self._note(kind, 1, evaluations)
        self._new[cell.method] += 1
        self._work[cell.method] += max(evaluations, 1)
        self._seconds[cell.method] = self._seconds.get(cell.method, 0.0) + seconds

    def left(self) -> Left:
        """As of now."""
        seconds, unknown = 0.0, []
        for (method, split), count in self._left.items():
            if count <= 0:
                continue
            done, of_evaluation = self._done[method, split], self._seconds_of_evaluation(method)
            if done and of_evaluation is not None:
                seconds += count * self._evaluations[method, split] / done * of_evaluation
            else:
                unknown.append(split if self._is_known(method) else method)
        return Left(seconds, tuple(dict.fromkeys(unknown)))

    def _seconds_of_evaluation(self, method: str) -> float | None:
        """That of the method; of one that too little was done of in this session that of all others, if it is the same
        model that is evaluated; None where nothing is known."""
        if self._is_known(method):
            return self._seconds[method] / self._work[method]
        known = [name for name in self._work if _uses_model(name) and self._is_known(name)]
        if not known or not _uses_model(method):
            return None
        return sum(self._seconds[name] for name in known) / sum(self._work[name] for name in known)

    def _is_known(self, method: str) -> bool:
        return self._new[method] >= max(self._enough.get(method, 1), 1)

    def _note(self, kind: Kind, count: int, evaluations: int) -> None:
        self._done[kind] += count
        # one of each by a method that evaluates something else, all of whose images cost the same
        self._evaluations[kind] += max(evaluations, count)


def _uses_model(method: str) -> bool:
    return method in METHODS and METHODS[method].uses_model
