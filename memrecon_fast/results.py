"""What a recovery returns (`Recovery`, `Status`), and the score by which an estimate is recognised."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:  # slow to import, and not needed before a result is shown
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from memrecon_fast.showing.recovered import Recovered

RUNNING = -1
"""In the place of a `Status`: the image is still worked on."""
MIN_EXPLAINED = 0.9
"""Of ‖y‖²: what an estimate must explain for its score to mean anything. Where the kept pixels are nearly black, a mask
of zeros explains them away, and any fixed point of the autoencoder would do."""
RECOGNIZED_BELOW = 1e-4
"""The highest threshold for scores, above what noise leaves. The lowest score of a control that was measured was
1.4e-4. Controls never raise it: a few of them need not hold the one that comes closest. (`Settings.recognized_below` is
lower: what can be recognized may still be made more exact.)"""
MAX_SHOWN = 8
"""So many images of a result are shown, the first ones, where nobody says which."""
_NUMBERS = (
    "score", "residual", "fixed_point_mse", "misfit", "explained", "gamma", "attempts", "outer_iterations",
    "evaluations", "accepted", "rejected", "mask_changes",
)  # fmt: skip


class Status(enum.IntEnum):
    """Why the work on an image ended."""

    CONVERGED = 0
    """The successive MSE, of "accelerated" the fixed-point residual as well, stayed below the tolerance for `patience`
    comparisons running."""
    MAX_ITERATIONS = 1
    """All the iterations that were allowed were made; with "paper" and a known mask always so: its one inner loop has
    no stopping rule."""
    DIVERGED = 2
    """The last estimate was NaN, infinite, or so large that its MSE is. "accelerated" returns the best one before."""
    STALLED = 3
    """The last estimates of "accelerated" were no progress, as many as `Settings.stall` says: the score no longer
    falls, or a map without bounds carries the image away."""


@dataclasses.dataclass(frozen=True, repr=False)
class Recovery:
    """The result of a recovery of B images; all tensors are on the device of `degraded`."""

    images: torch.Tensor
    """float32 (B, *image_shape): the estimates; where the status is DIVERGED they may hold NaN or infinity."""
    masks: torch.Tensor
    """bool (B, *image_shape), True = kept: the estimated masks, or the mask that was given; all True from `iterate`."""
    outer_iterations: torch.Tensor
    """int32 (B,): outer iterations made for this estimate, by the paper's count; from `iterate`, iterations."""
    evaluations: torch.Tensor
    """int32 (B,): applications of the autoencoder that this image used, for all γ and starts that were tried. Outer
    iterations that are known to repeat earlier ones are not computed, and the first one of "paper" from an all-zeros
    mask is the same for every image and is computed once per call: neither is counted here. Nor is the one application
    to each estimate that `fixed_point_mse` takes."""
    status: torch.Tensor
    """int8 (B,) of `Status`."""
    residual: torch.Tensor
    """float32 (B,): the last MSE between successive estimates; NaN where there was only one estimate."""
    fixed_point_mse: torch.Tensor
    """float32 (B,): ‖f(x) − x‖²/d of the estimate x: a training image is a fixed point of the autoencoder."""
    misfit: torch.Tensor
    """float32 (B,): ‖y − Hx‖²/d, with y = `degraded` and H = `masks`: a recovered image explains what was given."""
    explained: torch.Tensor
    """float32 (B,): 1 − ‖y − Hx‖²/‖y‖², the share of what was given that the estimate explains; 0 where y is 0."""
    gamma: torch.Tensor
    """float64 (B,): the γ of this estimate; NaN from `iterate`."""
    attempts: torch.Tensor
    """int32 (B,): how many pairs of γ and initial mask were tried."""
    accepted: torch.Tensor
    """int32 (B,): accepted extrapolations of the accelerated solver, for this estimate."""
    rejected: torch.Tensor
    """int32 (B,): rejected extrapolations, which made the residual grow."""
    mask_changes: torch.Tensor
    """int32 (B,): how often the accelerated solver changed its estimate of the mask."""
    backend: str
    """What computed it: "torch", "cpp", "triton", or "reference"."""
    execution: str = "eager"
    """How it ran: "eager", "CUDA graph", or "eager: " and why the autoencoder could not be captured in a graph."""
    doubt: str = ""
    """Why the result is in doubt, where it is: the autoencoder did not answer in the end as it did in the beginning."""
    first_degraded: torch.Tensor | None = None
    """float32 (at most `MAX_SHOWN`, *image_shape): copies of the first degraded images, to be shown beside what came of
    them; None from `reference`."""

    @property
    def score(self) -> torch.Tensor:
        """float32 (B,): `score_of` each estimate, by which a recovered image is recognised without the original;
        infinite where it diverged."""
        diverged = self.status == int(Status.DIVERGED)
        return score_of(self.fixed_point_mse, self.misfit, self.explained).masked_fill(diverged, torch.inf)

    @property
    def status_names(self) -> list[str]:
        """The names of `status`: "CONVERGED", …"""
        return [Status(status).name for status in self.status.tolist()]

    def to_pandas(self, truth: torch.Tensor | None = None) -> DataFrame:
        """A row for each image: the name of its status, recognized, score, residual, fixed_point_mse, misfit,
        explained, gamma, attempts, outer_iterations, evaluations, accepted, rejected, mask_changes.

        recognized: whether the score is below `RECOGNIZED_BELOW`; NA from `iterate`, whose scores do not tell.
        truth: the originals, float (B, *image_shape) with pixels in [0, 1], on any device. With them mse, psnr (dB),
            accurate and approximate come after the status: of an estimate with NaN, NaN and False.

        Raises TypeError or ValueError for other originals, ImportError where pandas is missing.
        """
        return self._shown().to_pandas(truth)

    def plot(
        self,
        degraded: torch.Tensor | None = None,
        truth: torch.Tensor | None = None,
        which: Sequence[int] | None = None,
    ) -> Figure:
        """A figure with a column for each image: original, degraded, recovered, mask (white = kept, a colour where
        only some channels are), which a line below says.

        degraded: what the images were recovered from, (B, *image_shape); None: the first `MAX_SHOWN` are known, and the
            row is left out where others are shown. truth: the originals, float (B, *image_shape) with pixels in [0, 1];
            with them the titles say the PSNR, without them the score. Both on any device.
        which: the positions of the images; None: the first `MAX_SHOWN`.

        Pixels are clipped to [0, 1]; those that are NaN or infinite are magenta. The figure is not one of pyplot's: a
        notebook shows it where it is the value of a cell, and `.savefig(path)` keeps it.

        Raises TypeError or ValueError for arguments that do not fit and for images that are neither grey (one channel,
        or none) nor RGB, ImportError where matplotlib is missing.
        """
        return self._shown().plot(degraded, truth, which)

    def __repr__(self) -> str:
        return self._shown().text()

    def _repr_html_(self) -> str:
        return self._shown().html()

    def _shown(self) -> Recovered:
        from memrecon_fast.showing.recovered import Recovered

        # iteration, which has no γ, estimates no mask by which to explain what was given
        scored = (~self.gamma.isnan()).tolist()
        below = (self.score < RECOGNIZED_BELOW).tolist()
        return Recovered(
            images=self.images,
            masks=self.masks,
            degraded=self.first_degraded,
            status=self.status_names,
            recognized=[one if can else None for one, can in zip(below, scored, strict=True)],
            recognized_below=RECOGNIZED_BELOW,
            numbers={name: getattr(self, name).cpu() for name in _NUMBERS},
            how=f"{self.backend}, {self.execution}",
            doubt=self.doubt,
            most=MAX_SHOWN,
        )


def score_of(fixed_point_mse: torch.Tensor, misfit: torch.Tensor, explained: torch.Tensor) -> torch.Tensor:
    """‖f(x) − x‖²/d + ‖y − Hx‖²/d; infinite where less than `MIN_EXPLAINED` of ‖y‖² is explained."""
    return (fixed_point_mse + misfit).masked_fill(explained < MIN_EXPLAINED, torch.inf)


def noise_floor(noise_std: float, noisy: int, pixels: int) -> float:
    """What the noise in y leaves of the score of a perfect estimate, at most (two standard deviations).

    noisy: how many of the `pixels` entries of y carry noise and count: all where the mask is estimated, those that are
    kept where it is known. Of n entries the noise adds σ²n/d to the misfit, with a relative standard deviation √(2/n).
    An estimate that holds some of the noise has a smaller misfit and is less of a fixed point: no more in all.
    """
    return noise_std**2 * noisy / pixels * (1 + 2 * math.sqrt(2 / noisy)) if noisy else 0.0
