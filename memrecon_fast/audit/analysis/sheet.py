"""The members in the order in which a contact sheet shows them: which of them came back, and from how little.

Best first: what came back accurately before what came back approximately, and among these what came back under a harder
mask, then what has the lower error under that mask. Judged is the headline method alone.
"""

from __future__ import annotations

import dataclasses
import heapq

import numpy as np
from numpy.typing import NDArray

from memrecon_fast.audit.analysis.outcomes import Outcomes, gather_outcomes
from memrecon_fast.audit.analysis.results import Results
from memrecon_fast.audit.analysis.statistics import errors, something_erased
from memrecon_fast.audit.store.records import Columns

MAX_SHOWN = 200
"""Members on a contact sheet, and thumbnails that are kept of a mask.

The first of the sheet are among the images with the lowest errors under the mask that they stand under: whatever has a
lower error there comes before them.
"""


class Leaders:
    """The `MAX_SHOWN` images with the lowest errors of those that were added; of equal ones those that come first."""

    def __init__(self) -> None:
        self._worst_first: list[tuple[float, int]] = []

    def add(self, error: float, index: int) -> bool:
        """Whether the image is one of them now; those of all images are, when they are added, in whatever order."""
        one = (-error, -index)
        if len(self._worst_first) < MAX_SHOWN:
            heapq.heappush(self._worst_first, one)
            return True
        return heapq.heappushpop(self._worst_first, one) != one


def leading(columns: Columns) -> list[int]:
    """The indices of these images of a cell, of those that count, ascending. columns: in the order of the indices."""
    counted = something_erased(columns)
    first = np.argsort(errors(columns)[counted], kind="stable")[:MAX_SHOWN]
    indices: list[int] = np.sort(columns["index"][counted][first]).tolist()
    return indices


@dataclasses.dataclass(frozen=True)
class Standing:
    """What came of a member by the headline method."""

    index: int
    verdict: str
    """The best over all masks: of `Results.verdicts`, "not recovered" ("not recognized") or "diverged"."""
    mask: str
    """The hardest mask under which it has this verdict; the one with the lowest error where it did not come back."""
    psnr: float
    """dB, under this mask; NaN where the originals are unknown."""
    error: float
    """Under this mask: MSE, or score where the originals are unknown."""
    back: int
    """Under how many masks it came back, at least approximately, ..."""
    tried: int
    """... of how many that count."""
    harder: str | None
    """The hardest mask under which it came back approximately, if that is harder still."""


def hardest_first(outcomes: Outcomes, method: int, verdict: str) -> NDArray[np.int64]:
    """(masks,): their numbers, by the share of images that came back with this verdict at least; of equal ones the one
    with the higher median error first. Those that were not tried are the last."""
    tried = outcomes.tried[method]
    back = (getattr(outcomes, verdict)[method] & tried).sum(axis=1)
    shares = np.where(tried.any(axis=1), back / np.maximum(tried.sum(axis=1), 1), np.inf)
    counted = zip(outcomes.errors[method], tried, strict=True)
    medians = [np.median(error[one]) if one.any() else 0.0 for error, one in counted]
    order: NDArray[np.int64] = np.lexsort((np.negative(medians), shares))
    return order


def best_first(results: Results) -> tuple[list[Standing], list[str]]:
    """Of each member that counts under some mask, what came of it by the headline method, the best first; and the
    masks, the hardest first."""
    outcomes, method = gather_outcomes(results, "members"), results.methods.index(results.headline)
    weakest = results.verdicts[-1]
    order = hardest_first(outcomes, method, weakest)
    tried, error, psnr = (array[method, order] for array in (outcomes.tried, outcomes.errors, outcomes.psnr))
    back = [getattr(outcomes, verdict)[method, order] & tried for verdict in results.verdicts]
    images = np.flatnonzero(tried.any(axis=0))
    level = np.select([one.any(axis=0) for one in back], range(len(back)), len(back))
    level += (level == len(back)) & (outcomes.diverged[method, order] | ~tried).all(axis=0)
    at = np.where(tried, error, np.nan)
    at[:, ~tried.any(axis=0)] = 0  # these are left out
    place = np.nanargmin(at, axis=0)
    for number, one in reversed([*enumerate(back)]):
        place = np.where(level == number, one.argmax(axis=0), place)
    columns = np.arange(tried.shape[1])
    difficulty = np.where(level < len(back), place, 0)
    images = images[np.lexsort((images, error[place, columns][images], difficulty[images], level[images]))]
    verdicts = [*results.verdicts, results.otherwise, "diverged"]
    names = [results.masks[number] for number in order.tolist()]
    hardest = np.where(back[-1].any(axis=0), back[-1].argmax(axis=0), len(order))
    standings = [
        Standing(
            index=i,
            verdict=verdicts[level[i]],
            mask=names[place[i]],
            psnr=float(psnr[place[i], i]),
            error=float(error[place[i], i]),
            back=int(back[-1][:, i].sum()),
            tried=int(tried[:, i].sum()),
            harder=names[hardest[i]] if hardest[i] < place[i] else None,
        )
        for i in images.tolist()
    ]
    return standings, names
