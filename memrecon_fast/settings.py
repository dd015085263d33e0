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
SOLVERS = ("paper",)
PRECISIONS = ("float32", "tf32", "bfloat16", "progressive")


class Status(enum.IntEnum):
    """Why the work on an image ended."""

    CONVERGED = 0
    """The successive MSE stayed below the tolerance for `patience` comparisons running."""
    MAX_ITERATIONS = 1
    """All the iterations that were allowed were made; with a known mask always so: its one inner loop has no
    stopping rule."""
    DIVERGED = 2
    """The estimate is NaN, infinite, or so large that its MSE is."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a recovery is made: the constants of Abitbul & Dar, Algorithm 1 and (6)-(7). Frozen, validated, hashable.

    gamma: the ADMM penalty γ of (10), 0 < γ ≤ 10⁶. Published: 0.5 for 10 fully connected layers with LeakyReLU; 0.1
        with PReLU, for 20 layers, and for noisy images; 1 for U-Nets.
    inner_iterations: K ≥ 2 ADMM iterations between two estimates of the mask (published: 40).
    tolerance: an image stops when the MSE between successive estimates was below this, ≥ 0 ...
    patience: ... for this many comparisons running, ≥ 1.
    max_outer_iterations: at most this many outer iterations for one image, ≥ 1.
    initial_mask: "random", each entry 0 or 1 with probability ½, or "zeros" (published: zeros for U-Nets).
    restore_known_pixels: with a known mask, put the kept pixels of `degraded` into the estimate, (31); right only
        where they carry no noise.
    solver: "paper".
    precision: the number format of the autoencoder's forward passes; all else is float32. "float32"; "tf32", on NVIDIA
        GPUs; "bfloat16"; or "progressive": the masks are estimated in bfloat16 first, and from there on everything is
        float32, the images and every decision that work on an image ends (with a known mask, all of it).
    seed: of the random initial masks, 0 ≤ seed < 2⁶⁴.

    Raises TypeError or ValueError for a value outside its range.
    """

    gamma: float = 0.5
    inner_iterations: int = 40
    tolerance: float = 1e-9
    patience: int = 3
    max_outer_iterations: int = 200
    initial_mask: str = "random"
    restore_known_pixels: bool = True
    solver: str = "paper"
    precision: str = "float32"
    seed: int = 42

    def __post_init__(self) -> None:
        check_number("gamma", self.gamma, low=0, high=1e6, low_is_allowed=False)
        check_integer("inner_iterations", self.inner_iterations, low=2, high=MOST_ITERATIONS)
        check_number("tolerance", self.tolerance, low=0)
        check_integer("patience", self.patience, low=1, high=MOST_ITERATIONS)
        check_integer("max_outer_iterations", self.max_outer_iterations, low=1, high=MOST_ITERATIONS)
        check_choice("initial_mask", self.initial_mask, INITIAL_MASKS)
        if not isinstance(self.restore_known_pixels, bool):
            raise TypeError(f"restore_known_pixels must be True or False, not {self.restore_known_pixels!r}")
        check_choice("solver", self.solver, SOLVERS)
        check_choice("precision", self.precision, PRECISIONS)
        check_seed(self.seed)

    def to_dict(self) -> dict[str, Any]:
        """The settings as a plain dict, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """The inverse of `to_dict`. Raises ValueError for a name that is no setting."""
        unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise ValueError(f"unknown settings: {', '.join(unknown)}")
        return cls(**values)

    def draw_initial_mask(self, index: int, image_shape: Sequence[int]) -> torch.Tensor:
        """H⁰ of the image with this index: bool, shape `image_shape`, a function of (seed, index) alone."""
        size = math.prod(image_shape)
        if self.initial_mask == "zeros":
            return torch.zeros(tuple(image_shape), dtype=torch.bool, device="cpu")
        random = keyed_random("initial mask", self.seed, index)
        bits = np.unpackbits(np.frombuffer(random.bytes(-(-size // 8)), np.uint8), count=size)
        return torch.from_numpy(bits.view(np.bool_)).reshape(tuple(image_shape))


@dataclasses.dataclass(frozen=True)
class Recovery:
    """The result of a recovery of B images; all tensors are on the device of `degraded`."""

    images: torch.Tensor
    """float32 (B, *image_shape): the estimates; where the status is DIVERGED they may hold NaN or infinity."""
    masks: torch.Tensor
    """bool (B, *image_shape), True = kept: the estimated masks, or the mask that was given; all True from `iterate`."""
    outer_iterations: torch.Tensor
    """int32 (B,): outer iterations made, by the paper's count; from `iterate`, iterations."""
    evaluations: torch.Tensor
    """int32 (B,): applications of the autoencoder that this image used. Outer iterations that are known to repeat
    earlier ones are not computed, and the first one from an all-zeros mask is the same for every image and is computed
    once per call: neither is counted here."""
    status: torch.Tensor
    """int8 (B,) of `Status`."""
    residual: torch.Tensor
    """float32 (B,): the last MSE between successive estimates; NaN where there was only one estimate."""
    backend: str
    """What computed it: "torch", "cpp", "triton", or "reference"."""
    execution: str = "eager"
    """How it ran: "eager", "CUDA graph", or "eager: " and why the autoencoder could not be captured in a graph."""


def keyed_random(purpose: str, seed: int, index: int) -> np.random.Generator:
    """Random numbers that depend on (purpose, seed, index) alone, 0 ≤ seed, index < 2⁶⁴; independent for each."""
    counter = np.array([0, 0, 0, zlib.crc32(purpose.encode())], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64), counter=counter))


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
