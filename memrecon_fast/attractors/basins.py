"""How far from a training image does iteration still come back to it? Radhakrishnan et al.

Basins are made of parts that may be computed at other times and places and come to the same:

    trial = prepare_basins(autoencoder, images, sigmas)             # the model is tried
    returns = returns_of(trial, range(0, 64))                       # of these images: columns, which may be stored
    gather_returns(trial, many_returns)                             # the Basins
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from memrecon_fast import settings
from memrecon_fast.attractors.checks import check_ascending, check_some_images, warn_if_changed
from memrecon_fast.attractors.iterating import iteration_of
from memrecon_fast.attractors.starts import Pictures
from memrecon_fast.common.checks import check_integer, check_number, check_seed
from memrecon_fast.common.seeding import keyed_random
from memrecon_fast.common.text import counted
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.inflight import InFlight
from memrecon_fast.engine.prox import Prox, device_of, make_prox
from memrecon_fast.engine.samples import Batch, Sample
from memrecon_fast.images.nearest import Nearest
from memrecon_fast.metrics import APPROXIMATE_MSE, mse_of_rows
from memrecon_fast.results import Status

SIGMAS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
DRAWS = 8
MAX_ITERATIONS = 1000
TOLERANCE = 1e-12
"""Of the successive MSE: below it, iteration has come to rest."""
_UNKNOWN = -1


class Return(enum.IntEnum):
    """What iteration from near a training image comes to."""

    BACK = 0
    """Within `metrics.APPROXIMATE_MSE` of that image."""
    ANOTHER = 1
    """Within that of another training image, and not of that one."""
    NOWHERE = 2
    """Of none."""
    DIVERGED = 3
    """NaN, infinite, or so large that its mean square is."""


class Censoring(enum.IntEnum):
    """What is known of the size of a basin, as its levels end somewhere."""

    INSIDE = 0
    """It lies between the level that is given and the next one."""
    AT_OR_ABOVE = 1
    """The image came back from the largest level, too: the basin may be larger."""
    BELOW = 2
    """It did not come back from the smallest one."""


@dataclasses.dataclass(frozen=True)
class Degradation:
    """A way to move away from an image, as data."""

    name: str
    level: str
    """What its levels are called."""
    highest: float
    """The highest level there is."""
    usual: tuple[float, ...]
    """The levels where none are given, ascending."""
    apply: Callable[[NDArray[np.float32], float, Generator], NDArray[np.float32]]
    """The image at this level, from random numbers that are the same for all levels."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """A model that was tried, and what is to be found out about which images; see `prepare_basins`."""

    prox: Prox
    images: Pictures | Mapping[int, Tensor]
    """The training images that it is about, by their index."""
    indices: Sequence[int]
    """Of those that it is about, ascending."""
    nearest: Nearest
    """All training images."""
    degradation: Degradation
    levels: tuple[float, ...]
    """Ascending."""
    draws: int
    seed: int
    max_iterations: int
    slots: int | None

    def start(self, image: Tensor, index: int, draw: int, level: float) -> Tensor:
        """What iteration for an image starts from: float32, image_shape, a function of the image and (seed, index,
        draw, level)."""
        generator = keyed_random(f"basin: {self.degradation.name}, draw {draw}", self.seed, index)
        return torch.from_numpy(self.degradation.apply(image.numpy(), level, generator))


@dataclasses.dataclass(frozen=True)
class Returns:
    """What came of n images at L levels, on the CPU; row i of every column belongs to image `indices[i]`.

    The draws that count are the first ones, in their order, until it is certain whether half of them come back.
    """

    indices: Tensor
    """int64 (n,)."""
    draws: Tensor
    """int32 (n, L): how many count. The columns below are of these."""
    back: Tensor
    """int32 (n, L): `Return.BACK`."""
    another: Tensor
    """int32 (n, L): `Return.ANOTHER`."""
    diverged: Tensor
    """int32 (n, L): `Return.DIVERGED`."""
    unsettled: Tensor
    """int32 (n, L): of any kind, but still moving when the iterations were over."""
    began_near: Tensor
    """int32 (n, L): of any kind, but within `metrics.APPROXIMATE_MSE` of the image from the beginning."""
    evaluations: Tensor
    """int64 (n, L): applications of f for those that count."""


@dataclasses.dataclass(frozen=True, repr=False)
class Basins:
    """How far B training images reach, at L levels; all tensors are on the CPU."""

    degradation: str
    """"noise", with levels that are standard deviations, or "missing", with shares of the pixels that are erased."""
    levels: Tensor
    """float64 (L,), ascending."""
    draws: Tensor
    """int32 (B, L): so many draws count, the first ones until it was certain whether half of all come back."""
    back: Tensor
    """int32 (B, L): how many of these came back to the image."""
    another: Tensor
    """int32 (B, L): how many came to another training image instead."""
    diverged: Tensor
    """int32 (B, L): how many became NaN or infinite."""
    unsettled: Tensor
    """int32 (B, L): how many still moved when the iterations were over, wherever they were then."""
    began_near: Tensor
    """int32 (B, L): how many were within `metrics.APPROXIMATE_MSE` of the image before any iteration: that they end
    there means little. So is all noise with σ below 0.022, and what erases black pixels."""
    evaluations: Tensor
    """int64 (B, L): applications of f."""
    needed: int
    """So many draws that come back are at least half of all."""

    @property
    def returns(self) -> Tensor:
        """bool (B, L): at least half of the draws come back."""
        return self.back >= self.needed

    @property
    def size(self) -> Tensor:
        """float64 (B,): the largest level up to which the image comes back at every level; 0 where it does at none. It
        ends at the first failure: what comes back from further out again is no part of it, see `monotonic`."""
        steps = self.returns.int().cumprod(dim=1).sum(dim=1)
        return torch.cat([torch.zeros(1, dtype=torch.float64, device="cpu"), self.levels])[steps]

    @property
    def censoring(self) -> Tensor:
        """int8 (B,) of `Censoring`."""
        found = torch.full((len(self.draws),), int(Censoring.INSIDE), dtype=torch.int8, device="cpu")
        found[self.returns.all(dim=1)] = int(Censoring.AT_OR_ABOVE)
        found[~self.returns[:, 0]] = int(Censoring.BELOW)
        return found

    @property
    def median(self) -> tuple[float, Censoring]:
        """The size of the basin of the image in the middle, and what is known of it."""
        middle = int(self.size.argsort(stable=True)[(len(self.draws) - 1) // 2])
        return float(self.size[middle]), Censoring(int(self.censoring[middle]))

    @property
    def monotonic(self) -> Tensor:
        """bool (B,): there is no level that the image comes back from above one that it does not."""
        return (self.returns[:, 1:] <= self.returns[:, :-1]).all(dim=1)

    def __repr__(self) -> str:
        size, known = self.median
        said = {Censoring.AT_OR_ABOVE: f"at or above {size:g}", Censoring.BELOW: f"below {self.levels[0]:g}"}
        ends = {one: int((self.censoring == int(one)).sum()) for one in Censoring}
        sums = {
            "back": "draws that came back",
            "another": "to another training image",
            "diverged": "diverged",
            "unsettled": "not at rest",
            "began_near": "began there",
        }
        counts = "; ".join(f"{what}: {int(getattr(self, name).sum())}" for name, what in sums.items())
        return (
            f"Basins of {counted(len(self.draws), 'training image')}, {DEGRADATIONS[self.degradation].level} "
            f"{self.levels[0]:g} to {self.levels[-1]:g}, {int(self.draws.sum())} draws\n"
            f"  median: {said.get(known, format(size, 'g'))}; at or above the largest: {ends[Censoring.AT_OR_ABOVE]}, "
            f"below the smallest: {ends[Censoring.BELOW]}, not monotonic: {int((~self.monotonic).sum())}\n"
            f"  {counts}"
        )


def basins(
    autoencoder: Autoencoder,
    images: Tensor,
    sigmas: Sequence[float] | None = None,
    *,
    shares: Sequence[float] | None = None,
    draws: int = DRAWS,
    seed: int = 42,
    max_iterations: int = MAX_ITERATIONS,
    slots: int | None = None,
) -> Basins:
    """From how far away does iteration x ← f(x) come back to each training image?

    At each level, at least half of the draws must end within `metrics.APPROXIMATE_MSE` of *that* image; those that end
    at another training image are counted apart. All levels are tried, whatever came of smaller ones.

    autoencoder: any callable (B, *image_shape) → (B, *image_shape), float32, that answers the same to the same image;
        an nn.Module must be in eval mode. It need not be differentiable.
    images: float32 (B, *image_shape), all the training images, at least one.
    sigmas: standard deviations of Gaussian noise on every entry, above 0, ascending; by default `SIGMAS`.
    shares: instead of noise: shares of the pixels that are set to 0, chosen at random, above 0 and at most 1,
        ascending; at least one pixel is. With three or more axes, all channels of a pixel, the first axis. For
        instance `SHARES`.
    draws: at most so many of each image and level; where it is certain whether half of them come back, there are no
        more. seed: they are a function of (seed, position of the image, number of the draw), and nested from level to
        level: the same noise, only larger.
    max_iterations: where iteration has not come to rest by then, it counts where it is. It is at rest where the MSE of
        successive iterates is below 1e-12.
    slots: how many starts are iterated at a time, see `InFlight`; it does not change the result.

    Raises TypeError or ValueError, before work starts, for anything wrong with the arguments, and where the autoencoder
    is no function of each image alone. Warns with a RuntimeWarning where it does not answer in the end as it did in the
    beginning.
    """
    trial = prepare_basins(
        autoencoder,
        images,
        sigmas,
        shares=shares,
        draws=draws,
        seed=seed,
        max_iterations=max_iterations,
        slots=slots,
    )
    found = gather_returns(trial, [returns_of(trial, trial.indices)])
    warn_if_changed(trial.prox)
    return found


def prepare_basins(
    autoencoder: Autoencoder,
    images: Tensor,
    sigmas: Sequence[float] | None = None,
    *,
    shares: Sequence[float] | None = None,
    draws: int = DRAWS,
    seed: int = 42,
    max_iterations: int = MAX_ITERATIONS,
    slots: int | None = None,
) -> Trial:
    """All that can be wrong is found out here, before any work; arguments and errors are those of `basins`."""
    check_some_images("images", images, "there is nothing to come back to without")
    if sigmas is not None and shares is not None:
        raise ValueError("sigmas are for noise and shares for missing pixels: give one of the two")
    degradation = DEGRADATIONS["noise" if shares is None else "missing"]
    given = sigmas if shares is None else shares
    check = functools.partial(check_number, low=0, high=degradation.highest, low_is_allowed=False)
    levels = check_ascending(degradation.level, degradation.usual if given is None else given, "(0.1, 0.2)", check)
    check_integer("draws", draws, low=1)
    check_seed(seed)
    check_integer("max_iterations", max_iterations, low=1, high=settings.MAX_ITERATIONS)
    if slots is not None:
        check_integer("slots", slots, low=1)
    prox = make_prox(autoencoder, images.shape[1:], device_of(autoencoder, default=images.device))
    return Trial(
        prox,
        images.detach().cpu(),
        range(len(images)),
        Nearest(images),
        degradation,
        levels,
        draws,
        seed,
        max_iterations,
        slots,
    )


def returns_of(trial: Trial, indices: Sequence[int]) -> Returns:
    """What comes of the images with these indices: a function of the model, the images, the seed and the indices,
    whatever else is computed before or beside it."""
    tally = _Tally(trial, indices)
    solver = iteration_of(trial.prox, trial.max_iterations, TOLERANCE)
    for batch in InFlight(solver, trial.slots, reviewed=False).estimates(tally.samples()):
        batch.wait()
        tally.add(batch)
    return tally.returns()


def gather_returns(trial: Trial, many: Iterable[Returns]) -> Basins:
    """The basins of all images of the trial, from their returns, in pieces of any size and order. Raises ValueError
    where images are missing, or there twice."""
    pieces = list(many)
    names = [field.name for field in dataclasses.fields(Returns)]
    columns = {name: torch.cat([getattr(one, name) for one in pieces]) for name in names} if pieces else {}
    indices = columns.pop("indices", torch.zeros(0, dtype=torch.int64, device="cpu"))
    order = indices.argsort()
    if indices[order].tolist() != list(trial.indices):
        raise ValueError(f"basins of {len(trial.indices)} images take the returns of each of them, once")
    return Basins(
        degradation=trial.degradation.name,
        levels=torch.tensor(trial.levels, dtype=torch.float64, device="cpu"),
        needed=needed_of(trial.draws),
        **{name: column[order] for name, column in columns.items()},
    )


class _Tally:
    """What is known so far of some images, at all levels."""

    def __init__(self, trial: Trial, indices: Sequence[int]) -> None:
        self._trial = trial
        self._indices = list(indices)
        self._images = [trial.images[index] for index in self._indices]
        shape = (len(self._indices), len(trial.levels), trial.draws)
        self._ends = np.full(shape, _UNKNOWN, np.int8)
        """Of `Return`."""
        self._unsettled = np.zeros(shape, np.bool_)
        self._began_near = np.zeros(shape, np.bool_)
        self._evaluations = np.zeros(shape, np.int64)

    def samples(self) -> Iterator[Sample]:
        """The starts, as long as they are needed. One draw of all images and levels comes after the other: so it is
        known what came of those before."""
        count = 0
        for draw in range(self._trial.draws):
            for row, index in enumerate(self._indices):
                for at, level in enumerate(self._trial.levels):
                    if not self._is_certain(row, at):
                        yield Sample(
                            count, self._trial.start(self._images[row], index, draw, level), label=(row, at, draw)
                        )
                        count += 1

    def _is_certain(self, row: int, at: int) -> bool:
        ends = self._ends[row, at]
        back, failed = (ends == Return.BACK).sum(), (ends > Return.BACK).sum()
        return bool(back >= needed_of(self._trial.draws) or failed > self._trial.draws - needed_of(self._trial.draws))

    def add(self, batch: Batch) -> None:
        """These have come to an end."""
        labels = [sample.label for sample in batch.samples]
        images = batch.images.flatten(1).numpy()
        own = torch.stack([self._images[row] for row, _, _ in labels]).flatten(1).numpy()
        with np.errstate(invalid="ignore", over="ignore"):
            back = mse_of_rows(images, own) < APPROXIMATE_MSE
        diverged = batch.status.numpy() == int(Status.DIVERGED)
        another = np.zeros_like(back)
        others = np.flatnonzero(~back & ~diverged)
        another[others] = (self._trial.nearest.of(batch.images[torch.from_numpy(others)])[1] < APPROXIMATE_MSE).numpy()
        ends = np.full(len(labels), int(Return.NOWHERE), np.int8)
        ends[another], ends[back], ends[diverged] = Return.ANOTHER, Return.BACK, Return.DIVERGED
        where = tuple(np.array(labels).T)
        self._ends[where] = ends
        starts = torch.stack([sample.degraded for sample in batch.samples]).flatten(1).numpy()
        self._began_near[where] = mse_of_rows(starts, own) < APPROXIMATE_MSE
        self._unsettled[where] = batch.status.numpy() == int(Status.MAX_ITERATIONS)
        self._evaluations[where] = batch.evaluations.numpy()

    def returns(self) -> Returns:
        """Counts over the draws, in their order, up to the first that makes it certain: those beyond it, which were
        under way by then, are left out."""
        back, failed = self._ends == Return.BACK, self._ends > Return.BACK
        before = (back.cumsum(axis=2) - back >= needed_of(self._trial.draws)) | (
            failed.cumsum(axis=2) - failed > self._trial.draws - needed_of(self._trial.draws)
        )
        counted = ~before  # it was not certain before this draw

        def count(which: NDArray[np.bool_]) -> Tensor:
            return torch.from_numpy((which & counted).sum(axis=2).astype(np.int32))

        return Returns(
            indices=torch.tensor(self._indices, dtype=torch.int64, device="cpu"),
            draws=count(counted),
            back=count(back),
            another=count(self._ends == Return.ANOTHER),
            diverged=count(self._ends == Return.DIVERGED),
            unsettled=count(self._unsettled),
            began_near=count(self._began_near),
            evaluations=torch.from_numpy((self._evaluations * counted).sum(axis=2)),
        )


def needed_of(draws: int) -> int:
    """So many of the draws must come back: at least half of them."""
    return (draws + 1) // 2


def _noisy(image: NDArray[np.float32], sigma: float, generator: Generator) -> NDArray[np.float32]:
    noise: NDArray[np.float32] = np.float32(sigma) * generator.standard_normal(image.shape, dtype=np.float32)
    noise += image
    return noise


def _missing(image: NDArray[np.float32], share: float, generator: Generator) -> NDArray[np.float32]:
    """The first pixels of a random order are set to 0, at least one."""
    places = image.reshape(image.shape[0] if image.ndim > 2 else 1, -1)
    erased = generator.permutation(places.shape[1])[: max(1, round(share * places.shape[1]))]
    found: NDArray[np.float32] = places.copy()
    found[:, erased] = 0
    return found.reshape(image.shape)


DEGRADATIONS = {
    one.name: one
    for one in (
        Degradation("noise", "sigmas", sys.float_info.max, SIGMAS, _noisy),
        Degradation("missing", "shares", 1.0, SHARES, _missing),
    )
}
"""By name."""
