"""The verdict without the original: whether an image was recovered, told by the score of its estimate alone.

A training image is a fixed point x of the autoencoder f and, under the mask H, explains the degraded image y: the score
is ‖f(x) − x‖²/d + ‖y − Hx‖²/d. How well it tells what was recovered from what was not, on nets at train losses from
1e-4 to 4e-9, is in benchmarks/results/accelerated.md.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from memrecon_fast.audit.analysis.statistics import CONFIDENCE

RECOGNIZED_BELOW = 1e-4
"""The highest threshold, above what noise leaves. The lowest score of a control that was measured was 1.4e-4. Controls
never raise it: a few of them need not hold the one that comes closest. (`Settings.recognized_below` is lower: what can
be recognized may still be made more exact.)"""
MARGIN = 2.0
"""The lowest score of a control is so many times the threshold at least, both above what noise leaves."""


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What counts as recovered."""

    threshold: float
    """A score below this; 0 where scores cannot tell: noise leaves more of the members than a control has."""
    limit: float
    """The threshold that would hold without controls."""
    controls: int
    """How many calibrated it."""

    @property
    def false_positive_bound(self) -> float | None:
        """The rate of false positives among images like the controls is at most this, with 95 % confidence.

        None without controls: then nothing is known of it. The threshold is no higher than the lowest of the n scores,
        and with probability (1 − p)^n that of more than a share p of all such images is; about 3/n. Holds for
        controls that are drawn independently of each other from the images that are asked about.
        """
        return 1 - (1 - CONFIDENCE) ** (1 / self.controls) if self.controls else None


def noise_floor(noise_std: float, noisy: int, pixels: int) -> float:
    """What the noise in y leaves of the score of a perfect estimate, at most (two standard deviations).

    noisy: how many of the `pixels` entries of y carry noise and count: all where the mask is estimated, those that are
    kept where it is known. Of n entries the noise adds σ²n/d to the misfit, with a relative standard deviation √(2/n).
    An estimate that holds some of the noise has a smaller misfit and is less of a fixed point: no more in all.
    """
    return noise_std**2 * noisy / pixels * (1 + 2 * math.sqrt(2 / noisy)) if noisy else 0.0


def calibrate(controls: NDArray[np.float64], floor: float = 0.0) -> Calibration:
    """The threshold for the images of one mask and method.

    controls: scores of images that the autoencoder was not trained on, without those that are nearly a member.
    floor: of `noise_floor`; it is what noise adds to every score, so that margins are counted from there.

    It is `RECOGNIZED_BELOW` above the floor, or lower where a control comes close: then in the middle between the floor
    and the lowest control. So no control passes.
    """
    lowest = float(controls.min(initial=np.inf))
    above = min(RECOGNIZED_BELOW, (lowest - floor) / MARGIN)
    return Calibration(floor + above if above > 0 else 0.0, floor + RECOGNIZED_BELOW, len(controls))


def auc(members: NDArray[np.float64], controls: NDArray[np.float64]) -> float:
    """The area under the ROC: the share of pairs where the member has the lower score, equal ones counted half.

    members, controls: scores, at least one each; `statistics.roc` has the points.
    """
    ordered = np.sort(controls)
    higher = len(ordered) - np.searchsorted(ordered, members, side="right")
    not_lower = len(ordered) - np.searchsorted(ordered, members, side="left")
    return float((higher + not_lower).mean() / (2 * len(ordered)))
