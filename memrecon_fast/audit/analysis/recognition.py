"""The verdict without the original: whether an image was recovered, told by the score of its estimate alone.

A training image is a fixed point x of the autoencoder f and, under the mask H, explains the degraded image y: the score
is ‖f(x) − x‖²/d + ‖y − Hx‖²/d. How well it tells what was recovered from what was not, on nets at train losses from
1e-4 to 4e-9, is in benchmarks/results/accelerated.md.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from memrecon_fast.audit.analysis.results import Results
from memrecon_fast.audit.analysis.statistics import CONFIDENCE, scores
from memrecon_fast.audit.store.records import Cell
from memrecon_fast.results import RECOGNIZED_BELOW, noise_floor

MARGIN = 2.0
"""The threshold is at most the lowest score of a control divided by this, both counted from the noise floor."""


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What counts as recovered."""

    threshold: float
    """A score below this counts as recovered. 0 where scores cannot tell: a control scores no higher than noise alone
    makes members score."""
    limit: float
    """The threshold that would hold without controls."""
    controls: int
    """How many controls it was calibrated with."""

    @property
    def false_positive_bound(self) -> float | None:
        """The rate of false positives among images like the controls is at most this, with 95 % confidence.

        None without controls. All n controls score at least the threshold; if a share p of such images scored below
        it, that would happen with probability (1 − p)^n. The bound is the p for which this is 5 %, about 3/n. It holds
        for controls that are drawn independently of each other from the images in question.
        """
        return 1 - (1 - CONFIDENCE) ** (1 / self.controls) if self.controls else None


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
    pairs = mannwhitneyu(controls, members, method="asymptotic").statistic  # exact all the same: p-values are not used
    return float(pairs / len(members) / len(controls))


@dataclasses.dataclass(frozen=True)
class Recognition:
    """The scores of a mask and method, and the threshold that its controls calibrate."""

    mask: str
    method: str
    calibration: Calibration
    members: NDArray[np.float64]
    """Scores of the members that were tried."""
    controls: NDArray[np.float64]
    """Of the controls that were tried, without near-duplicates of members."""
    closest: str | None = None
    """The name of the control with the lowest score."""

    def row(self) -> dict[str, Any]:
        """For `summary.json`; None stands for what is unknown."""
        lowest = float(self.controls.min(initial=np.inf))
        both = len(self.members) and len(self.controls)
        return {
            "mask": self.mask,
            "method": self.method,
            "threshold": self.calibration.threshold,
            "limit": self.calibration.limit,
            "controls": len(self.controls),
            "controls_below_limit": int((self.controls < self.calibration.limit).sum()),
            "lowest_control": lowest if np.isfinite(lowest) else None,
            "lowered_by": self.closest if self.calibration.threshold < self.calibration.limit else None,
            "false_positive_bound": self.calibration.false_positive_bound,
            "auc": auc(self.members, self.controls) if both else None,
        }


@functools.lru_cache(maxsize=1)
def recognitions_of(results: Results) -> Mapping[tuple[str, str], Recognition]:
    """By (mask, method), for the methods whose estimates can be recognized. The last answer is cached."""
    gathered = {}
    names, near_duplicates = results.images_of("controls")["name"], results.near_duplicates("controls")
    for method, traits in results.traits.items():
        for mask in results.masks:
            members, controls = (results.cells.get(Cell(split, mask, method)) for split in ("members", "controls"))
            if not traits.scored or (members is None and controls is None):
                continue
            of_members = np.empty(0) if members is None else scores(members)
            of_controls, closest = np.empty(0), None
            if controls is not None:
                others = ~near_duplicates[controls["index"]]
                of_controls = scores(controls)[others]
                if len(of_controls):
                    closest = names[controls["index"][others][of_controls.argmin()]]
            pixels = int(np.prod(results.description["plan"]["image_shape"]))
            noisy = pixels if traits.is_blind else results.description["kept"][mask]
            floor = noise_floor(results.description["plan"]["noise_std"], noisy, pixels)
            calibration = calibrate(of_controls, floor)
            gathered[mask, method] = Recognition(mask, method, calibration, of_members, of_controls, closest)
    return types.MappingProxyType(gathered)
