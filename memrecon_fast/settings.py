"""What a recovery is told (`Settings`) and what it answers (`Recovery`, `Status`)."""

from __future__ import annotations

import dataclasses
import enum
import math
import sys
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

MOST_ITERATIONS = 2**31 - 1
"""They are counted in int32."""
RUNNING = -1
"""In the place of a `Status`: the image is still worked on."""
INITIAL_MASKS = ("random", "zeros")
SOLVERS = ("paper", "accelerated")
DEFAULT_GAMMAS = {"paper": (0.5,), "accelerated": (0.2, 0.5, 1.0)}
"""The γ that each solver tries. Those of "accelerated" together recover more than each alone; which one is best differs
from net to net (benchmarks/results/accelerated.md)."""
PROGRESS = 0.875
"""An estimate is progress where its score is below 7/8 of the score of the last one that was."""
LEAST_EXPLAINED = 0.9
"""Of ‖y‖²: what an estimate must explain for its score to mean anything. Where the kept pixels are nearly black, a mask
of zeros explains them away, and any fixed point of the autoencoder would do."""
MOST_MEMORY = 32
PRECISIONS = ("float32", "tf32", "bfloat16", "progressive")


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
    """The last `stall` estimates of "accelerated" were no progress: the score no longer falls, or a map without bounds
    carries the image away."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a recovery is made: the constants of Abitbul & Dar, Algorithm 1 and (6)-(7), and those of the accelerated
    solver. Frozen, validated, hashable.

    gamma: the ADMM penalty γ of (10), 0 < γ ≤ 10⁶. Published: 0.5 for 10 fully connected layers with LeakyReLU; 0.1
        with PReLU, for 20 layers, and for noisy images; 1 for U-Nets. Several are tried one after the other, until an
        image is recognised as recovered (`recognized_below`). None: `DEFAULT_GAMMAS` of the solver.
    starts: each γ is tried with so many initial masks, ≥ 1; the further ones are random, whatever `initial_mask` says.
    recognized_below: no more is tried for an image once the `Recovery.score` of its best estimate is below this, ≥ 0;
        if all was tried, the estimate with the lowest score is taken.
    solver: "paper", or "accelerated": ADMM goes on where it was when the mask is estimated again, and extrapolates
        once the mask has held still.
    inner_iterations: "paper": K ≥ 2 ADMM iterations between two estimates of the mask (published: 40).
    mask_period: "accelerated": applications of the autoencoder between two estimates of the mask, ≥ 1.
    memory: "accelerated": differences of residuals that an extrapolation uses, 0 to 32; 0: none is made.
    settle: "accelerated": an image is extrapolated once its mask held still for so many estimates, ≥ 0.
    tolerance: an image stops when the MSE between successive estimates was below this, ≥ 0 ("accelerated": and that
        between an input of the autoencoder and the next one) ...
    patience: ... for this many comparisons running, ≥ 1.
    max_outer_iterations: at most this many outer iterations, each ended by an estimate of the mask, for one image, one
        γ and one initial mask, ≥ 1.
    stall: "accelerated": a γ and an initial mask are given up after so many estimates running without progress, ≥ 1:
        none lowered the score by an eighth, counted from the last one that did. Noise on y ends the progress of the
        score before that of the image: there more of them may pay.
    initial_mask: "random", each entry 0 or 1 with probability ½, or "zeros" (published: zeros for U-Nets).
    restore_known_pixels: put the kept pixels of `degraded` into the estimate, (31), where the mask is known, and with
        "accelerated" where it is estimated; right only where they carry no noise: with noise, set it to False.
    precision: the number format of the autoencoder's forward passes; all else is float32. "float32"; "tf32", on NVIDIA
        GPUs; "bfloat16"; or "progressive": the masks are estimated in bfloat16 first, and from there on everything is
        float32, the images and every decision that work on an image ends ("paper" with a known mask: all of it). With
        "accelerated" six outer iterations in bfloat16 come before the others, and an image that is not recognised after
        that is begun again in float32.
    seed: of the random initial masks, 0 ≤ seed < 2⁶⁴.

    Raises TypeError or ValueError for a value outside its range.
    """

    gamma: float | tuple[float, ...] | None = None
    inner_iterations: int = 40
    tolerance: float = 1e-9
    patience: int = 3
    max_outer_iterations: int = 200
    initial_mask: str = "random"
    restore_known_pixels: bool = True
    solver: str = "accelerated"
    precision: str = "float32"
    seed: int = 42
    starts: int = 1
    recognized_below: float = 1e-5
    mask_period: int = 3
    memory: int = 5
    settle: int = 2
    stall: int = 10

    def __post_init__(self) -> None:
        if isinstance(self.gamma, list):
            raise TypeError(f"several gamma must be a tuple, not {self.gamma!r}")
        if isinstance(self.gamma, tuple) and (not self.gamma or len(set(self.gamma)) < len(self.gamma)):
            raise ValueError(f"gamma must be one number or several different ones, not {self.gamma!r}")
        check_choice("solver", self.solver, SOLVERS)
        for gamma in self.gammas:
            check_number("gamma", gamma, low=0, high=1e6, low_is_allowed=False)
        check_integer("inner_iterations", self.inner_iterations, low=2, high=MOST_ITERATIONS)
        check_number("tolerance", self.tolerance, low=0)
        check_integer("patience", self.patience, low=1, high=MOST_ITERATIONS)
        check_integer("max_outer_iterations", self.max_outer_iterations, low=1, high=MOST_ITERATIONS)
        check_choice("initial_mask", self.initial_mask, INITIAL_MASKS)
        if not isinstance(self.restore_known_pixels, bool):
            raise TypeError(f"restore_known_pixels must be True or False, not {self.restore_known_pixels!r}")
        check_choice("precision", self.precision, PRECISIONS)
        check_seed(self.seed)
        check_integer("starts", self.starts, low=1, high=MOST_ITERATIONS)
        check_number("recognized_below", self.recognized_below, low=0)
        check_integer("mask_period", self.mask_period, low=1, high=MOST_ITERATIONS)
        check_integer("memory", self.memory, low=0, high=MOST_MEMORY)
        check_integer("settle", self.settle, low=0, high=MOST_ITERATIONS)
        check_integer("stall", self.stall, low=1, high=MOST_ITERATIONS)

    @property
    def gammas(self) -> tuple[float, ...]:
        """All γ that are tried, in this order."""
        if self.gamma is None:
            return DEFAULT_GAMMAS[self.solver]
        return self.gamma if isinstance(self.gamma, tuple) else (self.gamma,)

    def to_dict(self) -> dict[str, Any]:
        """The settings as a plain dict, for JSON."""
        return dataclasses.asdict(self) | ({"gamma": list(self.gamma)} if isinstance(self.gamma, tuple) else {})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """The inverse of `to_dict`. Raises ValueError for a name that is no setting."""
        unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise ValueError(f"unknown settings: {', '.join(unknown)}")
        gamma = values.get("gamma")
        return cls(**{**values, "gamma": tuple(gamma)} if isinstance(gamma, list) else values)

    def draw_initial_mask(self, index: int, image_shape: Sequence[int], start: int = 0) -> torch.Tensor:
        """H⁰ of the image with this index: bool, shape `image_shape`, a function of (seed, index, start) alone."""
        size = math.prod(image_shape)
        if self.initial_mask == "zeros" and start == 0:
            return torch.zeros(tuple(image_shape), dtype=torch.bool, device="cpu")
        random = _keyed_bits(f"initial mask {start}" if start else "initial mask", self.seed, index)
        drawn = random.random_raw(-(-size // 64)).astype("<u8", copy=False)
        bits = np.unpackbits(drawn.view(np.uint8), count=size)
        return torch.from_numpy(bits.view(np.bool_)).reshape(tuple(image_shape))


@dataclasses.dataclass(frozen=True)
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
    """int32 (B,): extrapolations of the accelerated solver that were gone on from, for this estimate."""
    rejected: torch.Tensor
    """int32 (B,): extrapolations that made the residual grow, and were taken back."""
    mask_changes: torch.Tensor
    """int32 (B,): estimates of the mask that changed it, of the accelerated solver."""
    backend: str
    """What computed it: "torch", "cpp", "triton", or "reference"."""
    execution: str = "eager"
    """How it ran: "eager", "CUDA graph", or "eager: " and why the autoencoder could not be captured in a graph."""

    @property
    def score(self) -> torch.Tensor:
        """float32 (B,): `score_of` each estimate, by which a recovered image is recognised without the original;
        infinite where it diverged."""
        diverged = self.status == int(Status.DIVERGED)
        return score_of(self.fixed_point_mse, self.misfit, self.explained).masked_fill(diverged, torch.inf)


def score_of(fixed_point_mse: torch.Tensor, misfit: torch.Tensor, explained: torch.Tensor) -> torch.Tensor:
    """‖f(x) − x‖²/d + ‖y − Hx‖²/d; infinite where less than `LEAST_EXPLAINED` of ‖y‖² is explained."""
    return (fixed_point_mse + misfit).masked_fill(explained < LEAST_EXPLAINED, torch.inf)


def keyed_random(purpose: str, seed: int, index: int) -> np.random.Generator:
    """Random numbers that depend on (purpose, seed, index) alone, 0 ≤ seed, index < 2⁶⁴; independent for each."""
    return np.random.Generator(_keyed_bits(purpose, seed, index))


def _keyed_bits(purpose: str, seed: int, index: int) -> np.random.Philox:
    counter = np.array([0, 0, 0, zlib.crc32(purpose.encode())], dtype=np.uint64)
    return np.random.Philox(key=np.array([seed, index], dtype=np.uint64), counter=counter)


def check_number(
    name: str, value: object, *, low: float, high: float = sys.float_info.max, low_is_allowed: bool = True
) -> None:
    """Raise unless `value` is a finite real number in [low, high], or in (low, high]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not low <= value <= high or (value == low and not low_is_allowed):
        least = f"{'at least' if low_is_allowed else 'above'} {low:g}"
        most = "" if high == sys.float_info.max else f" and at most {high:g}"
        raise ValueError(f"{name} must be finite and {least}{most}, not {value!r}")


def check_seed(seed: object) -> None:
    """Raise unless `seed` is an integer that fits in 64 bits."""
    check_integer("seed", seed, low=0, high=2**64 - 1)


def check_integer(name: str, value: object, *, low: int, high: int | None = None) -> None:
    """Raise unless `value` is an integer in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if value < low or (high is not None and value > high):
        raise ValueError(
            f"{name} must be at least {low}{'' if high is None else f' and at most {high}'}, not {value!r}"
        )


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")
