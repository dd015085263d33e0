"""What of a run is recognized as recovered without a look at the originals, and how well that tells."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from memrecon_fast.audit.analysis.recognition import Calibration, auc, calibrate, noise_floor
from memrecon_fast.audit.analysis.statistics import scores
from memrecon_fast.audit.store.records import Cell
from memrecon_fast.methods import BLIND, RECOGNIZED

if TYPE_CHECKING:
    from memrecon_fast.audit.analysis.results import Results


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
        """For `summary.json`; None for what nothing is known of."""
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


def gather_recognitions(results: Results) -> dict[tuple[str, str], Recognition]:
    """By mask and method, for the methods whose estimates can be recognized: see `Results.recognitions`."""
    gathered = {}
    names, near_duplicates = results.images_of("controls")["name"], results.near_duplicates("controls")
    for method in results.methods:
        for mask in results.masks:
            members, controls = (results.cells.get(Cell(split, mask, method)) for split in ("members", "controls"))
            if method not in RECOGNIZED or (members is None and controls is None):
                continue
            of_members = np.empty(0) if members is None else scores(members)
            of_controls, closest = np.empty(0), None
            if controls is not None:
                others = ~near_duplicates[controls["index"]]
                of_controls = scores(controls)[others]
                if len(of_controls):
                    closest = names[controls["index"][others][of_controls.argmin()]]
            pixels = int(np.prod(results.description["plan"]["image_shape"]))
            noisy = pixels if method in BLIND else results.description["kept"][mask]
            floor = noise_floor(results.description["plan"]["noise_std"], noisy, pixels)
            calibration = calibrate(of_controls, floor)
            gathered[mask, method] = Recognition(mask, method, calibration, of_members, of_controls, closest)
    return gathered
