"""The outcome for each image of a split under every mask by every method, as arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from memrecon_fast.audit.analysis.recognition import recognitions_of
from memrecon_fast.audit.analysis.results import Results
from memrecon_fast.audit.analysis.statistics import errors, scores
from memrecon_fast.audit.store.records import Cell
from memrecon_fast.methods import Traits, without_model


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """Arrays (methods, masks, N), in the order of the run's methods, masks and the N images of a split."""

    tried: NDArray[np.bool_]
    """Whether the recovery was done; the other arrays are meaningless where it was not."""
    accurate: NDArray[np.bool_]
    """All False, like `approximate`, where the originals are unknown."""
    approximate: NDArray[np.bool_]
    recognized: NDArray[np.bool_]
    """Whether its score is below the threshold of `recognition`."""
    diverged: NDArray[np.bool_]
    errors: NDArray[np.float64]
    """MSE, or score where the originals are unknown; infinite where it diverged or was not done."""
    scores: NDArray[np.float64]
    """See `statistics.scores`; infinite where it diverged or was not done, and by a method that has no score."""
    psnr: NDArray[np.float64]
    """dB, of the estimate clipped to [0, 1]; NaN where it was not done, or where the originals are unknown."""
    left_out: NDArray[np.bool_]
    """Whether it was done, but does not count, as nothing was erased; it is not `tried` then."""

    def of_model(self, methods: Mapping[str, Traits]) -> Outcomes:
        """Those of the methods that use the model; all, where none does. methods: those
        of the run, `Results.traits`."""
        left_out = without_model(methods)
        which = [number for number, method in enumerate(methods) if method not in left_out]
        return Outcomes(**{name: array[which] for name, array in vars(self).items()})

    def came_back(self, verdict: str) -> NDArray[np.bool_]:
        """(methods, N): whether the image was recovered under at least one mask. verdict: of `Results.verdicts`."""
        found: NDArray[np.bool_] = getattr(self, verdict).any(axis=1)
        return found

    def least_errors(self, method: int) -> NDArray[np.float64]:
        """(N,): the least MSE over the masks that count; NaN where one of them was not tried, which is not comparable,
        and where none counts."""
        tried = self.tried[method]
        comparable = (tried | self.left_out[method]).all(axis=0) & tried.any(axis=0)
        return np.where(comparable, self.errors[method].min(axis=0), np.nan)


def gather_outcomes(results: Results, split: str) -> Outcomes:
    """The outcomes of a split of a run, however much of it is done."""
    shape = (len(results.methods), len(results.masks), len(results.images_of(split)["index"]))
    flags = {name: np.zeros(shape, bool) for name in ("tried", "accurate", "approximate", "diverged", "left_out")}
    least, score, psnr = np.full(shape, np.inf), np.full(shape, np.inf), np.full(shape, np.nan)
    thresholds = np.zeros((*shape[:2], 1))
    recognitions = recognitions_of(results)
    for m, method in enumerate(results.methods):
        for k, mask in enumerate(results.masks):
            cell = Cell(split, mask, method)
            flags["left_out"][m, k, results.left_out.get(cell, [])] = True
            columns = results.cells.get(cell)
            if columns is None:
                continue
            at = (m, k, columns["index"])
            flags["tried"][at] = True
            for name in flags.keys() & columns.keys():
                flags[name][at] = columns[name]
            least[at] = errors(columns)
            psnr[at] = columns["psnr"]
            if (mask, method) in recognitions:
                score[at] = scores(columns)
                thresholds[m, k] = recognitions[mask, method].calibration.threshold
    return Outcomes(**flags, recognized=score < thresholds, errors=least, scores=score, psnr=psnr)
