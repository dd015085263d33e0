"""What a recovery is told: `Settings`."""

from __future__ import annotations

import dataclasses
import importlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from memrecon_fast.common.checks import check_choice, check_integer, check_number, check_seed, suggestion
from memrecon_fast.common.seeding import keyed_bits

MAX_ITERATIONS = 2**31 - 1
"""They are counted in int32."""
INITIAL_MASKS = ("random", "zeros")
PROGRESS = 0.875
"""An estimate is progress where its score is below 7/8 of the score of the last one that was."""
SETTLED = 0.125
"""An estimate has settled where the MSE to the one before is below an eighth of its score: it moves by less than is
missing."""
MAX_MEMORY = 32
MAX_COUNTS = 2**15
MAX_STALL = MAX_ITERATIONS - MAX_COUNTS
"""What is counted is below this before an estimate adds to it: an int32 holds the sum."""
PRECISIONS = ("float32", "float32x3", "tf32", "bfloat16", "progressive")


@dataclasses.dataclass(frozen=True)
class SolverRecord:
    """A solver: what it is called, what it reads of the settings, and what makes one."""

    name: str
    """As `Settings.solver`."""
    gammas: tuple[float, ...]
    """The γ that are tried where `Settings.gamma` is None."""
    reads: frozenset[str]
    """Which of `SOME_READ` it reads."""
    prepare: Callable[..., Any]
    """prepare(autoencoder, image_shape, settings, known_masks=, backend=, device=) → `engine.solver.Solver`; raises as
    `recover`, before any work. `backend` is one that is available on the device."""
    tolerance: float = 1e-9
    """What `Settings.tolerance` stands for where it is None."""
    patience: int = 3
    """What `Settings.patience` stands for where it is None."""


SOLVERS: dict[str, SolverRecord] = {}
"""By name; `memrecon_fast.solvers` puts its own here, and others may add theirs."""
_REGISTERS = "memrecon_fast.solvers"
_BEFORE = {"settled_counts": 1}
"""Settings that earlier versions did not have, and what they did."""
_NOT_READ = {"stall": 10}
"""What earlier versions wrote of a setting that the solver does not read: a run with it is still the same one."""
SOME_READ = ("inner_iterations", "mask_period", "memory", "settle", "stall", "settled_counts")
"""The settings that only some solvers read. All others are read by every one."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a recovery is made: the constants of Abitbul & Dar, Algorithm 1 and (6)-(7), and those of the accelerated
    solver. Frozen, validated, hashable.

    A setting that the solver does not read must be left at its default.

    gamma: the ADMM penalty γ of (10), 0 < γ ≤ 10⁶. Published: 0.5 for 10 fully connected layers with LeakyReLU; 0.1
        with PReLU, for 20 layers, and for noisy images; 1 for U-Nets. Several are tried one after the other, until an
        image is recognised as recovered (`recognized_below`). None: those of the solver, 0.5 of
        "paper", 0.2, 0.5 and 1 of "accelerated".
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
    patience: ... for this many comparisons running, ≥ 1. None: those of the solver, 10⁻⁹ for three of "paper", 10⁻⁸ for
        one of "accelerated", a tenth of what an accurate recovery may be off.
    max_outer_iterations: at most this many outer iterations, each ended by an estimate of the mask, for one image, one
        γ and one initial mask, ≥ 1.
    stall: "accelerated": a γ and an initial mask are given up after so many estimates running without progress, ≥ 1:
        none lowered the score by an eighth, counted from the last one that did. Noise on y ends the progress of the
        score before that of the image: there more of them may pay.
    settled_counts: "accelerated": an estimate that has settled counts as so many of these, 1 to 32,768: its MSE to the
        one before is below an eighth of its score, it comes to rest where nothing is explained.
    initial_mask: "random", each entry 0 or 1 with probability ½, or "zeros" (published: zeros for U-Nets).
    restore_known_pixels: put the kept pixels of `degraded` into the estimate, (31), where the mask is known, and with
        "accelerated" where it is estimated; right only where they carry no noise: with noise, set it to False.
    precision: the number format of the autoencoder's forward passes; all else is float32. "float32"; "float32x3", each
        product of a linear layer or 2d convolution by three of float16 halves, with an error near that of float32, for
        NVIDIA GPUs with tensor cores (on a CPU it is emulated, for checks: slower than float32); "tf32", on NVIDIA
        GPUs; "bfloat16"; or "progressive": the masks are estimated in bfloat16 first, and from there on everything is
        float32, the images and every decision that work on an image ends ("paper" with a known mask: all of it). With
        "accelerated" six outer iterations in bfloat16 come before the others, and an image that is not recognised after
        that is begun again in float32.
    seed: of the random initial masks, 0 ≤ seed < 2⁶⁴.

    Raises TypeError or ValueError for a value outside its range, or that the solver does not read.
    """

    gamma: float | tuple[float, ...] | None = None
    inner_iterations: int = 40
    tolerance: float | None = None
    patience: int | None = None
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
    stall: int = 16
    settled_counts: int = 8

    def __post_init__(self) -> None:
        if isinstance(self.gamma, list):
            raise TypeError(f"several gamma must be a tuple, not {self.gamma!r}")
        if isinstance(self.gamma, tuple) and (not self.gamma or len(set(self.gamma)) < len(self.gamma)):
            raise ValueError(f"gamma must be one number or several different ones, not {self.gamma!r}")
        check_choice("solver", self.solver, tuple(_solvers()))
        for gamma in self.gammas:
            check_number("gamma", gamma, low=0, high=1e6, low_is_allowed=False)
        check_integer("inner_iterations", self.inner_iterations, low=2, high=MAX_ITERATIONS)
        if self.tolerance is not None:
            check_number("tolerance", self.tolerance, low=0)
        if self.patience is not None:
            check_integer("patience", self.patience, low=1, high=MAX_ITERATIONS)
        check_integer("max_outer_iterations", self.max_outer_iterations, low=1, high=MAX_ITERATIONS)
        check_choice("initial_mask", self.initial_mask, INITIAL_MASKS)
        if not isinstance(self.restore_known_pixels, bool):
            raise TypeError(f"restore_known_pixels must be True or False, not {self.restore_known_pixels!r}")
        check_choice("precision", self.precision, PRECISIONS)
        check_seed(self.seed)
        check_integer("starts", self.starts, low=1, high=MAX_ITERATIONS)
        check_number("recognized_below", self.recognized_below, low=0)
        check_integer("mask_period", self.mask_period, low=1, high=MAX_ITERATIONS)
        check_integer("memory", self.memory, low=0, high=MAX_MEMORY)
        check_integer("settle", self.settle, low=0, high=MAX_ITERATIONS)
        check_integer("stall", self.stall, low=1, high=MAX_STALL)
        check_integer("settled_counts", self.settled_counts, low=1, high=MAX_COUNTS)
        for name, default in self._unread().items():
            if getattr(self, name) != default:
                readers = " or ".join(repr(one.name) for one in _solvers().values() if name in one.reads)
                raise ValueError(
                    f"the solver {self.solver!r} does not read {name}: leave it at {default}, or choose the solver "
                    f"{readers}; it is {getattr(self, name)!r}"
                )

    @property
    def gammas(self) -> tuple[float, ...]:
        """All γ that are tried, in this order."""
        if self.gamma is None:
            return _solvers()[self.solver].gammas
        return self.gamma if isinstance(self.gamma, tuple) else (self.gamma,)

    @property
    def stop_below(self) -> float:
        """`tolerance`, or the solver's where that is None."""
        return _solvers()[self.solver].tolerance if self.tolerance is None else self.tolerance

    @property
    def comparisons(self) -> int:
        """`patience`, or the solver's where that is None."""
        return _solvers()[self.solver].patience if self.patience is None else self.patience

    def with_solver(self, solver: str) -> Settings:
        """The same for another solver; what that does not read is at its default. Raises ValueError for no solver."""
        check_choice("solver", solver, tuple(_solvers()))
        return dataclasses.replace(self, solver=solver, **self._unread(solver))

    def _unread(self, solver: str | None = None) -> dict[str, Any]:
        """The settings that a solver, this one's or another, does not read, and their defaults."""
        unread = set(SOME_READ) - _solvers()[solver or self.solver].reads
        return {field.name: field.default for field in dataclasses.fields(self) if field.name in unread}

    def to_dict(self) -> dict[str, Any]:
        """The settings as a plain dict, for JSON."""
        values = dataclasses.asdict(self) | ({"gamma": list(self.gamma)} if isinstance(self.gamma, tuple) else {})
        unread = self._unread()
        if "settled_counts" in unread or self.settled_counts == 1:  # as before there was this setting
            del values["settled_counts"]
        return values | {name: value for name, value in _NOT_READ.items() if name in unread}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """The inverse of `to_dict`, also of what an earlier version wrote; what the solver does not read is left out.
        Raises ValueError for a name that is no setting."""
        unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            names = [field.name for field in dataclasses.fields(cls)]
            raise ValueError(f"unknown settings: {', '.join(unknown)}{suggestion(unknown[0], names)}")
        solver = values.get("solver", cls.solver)
        unread = set(SOME_READ) - _solvers()[solver].reads if solver in _solvers() else set()
        before = _BEFORE if "stall" in values else {}
        values = {name: value for name, value in {**before, **values}.items() if name not in unread}
        gamma = values.get("gamma")
        return cls(**{**values, "gamma": tuple(gamma)} if isinstance(gamma, list) else values)

    def draw_initial_mask(self, index: int, image_shape: Sequence[int], start: int = 0) -> torch.Tensor:
        """H⁰ of the image with this index: bool, shape `image_shape`, a function of (seed, index, start) alone."""
        size = math.prod(image_shape)
        if self.initial_mask == "zeros" and start == 0:
            return torch.zeros(tuple(image_shape), dtype=torch.bool, device="cpu")
        random = keyed_bits(f"initial mask {start}" if start else "initial mask", self.seed, index)
        drawn = random.random_raw(-(-size // 64)).astype("<u8", copy=False)
        bits = np.unpackbits(drawn.view(np.uint8), count=size)
        return torch.from_numpy(bits.view(np.bool_)).reshape(tuple(image_shape))


def _solvers() -> dict[str, SolverRecord]:
    """`SOLVERS`, with the package's own: these are above this module, and not imported by who uses settings alone."""
    if _REGISTERS not in sys.modules:
        importlib.import_module(_REGISTERS)
    return SOLVERS
