"""Training images out of nothing: the fixed points that iteration comes to from random starts. Radhakrishnan et al.

A harvest is made of parts that may be computed at other times and places and come to the same:

    search = prepare_harvest(autoencoder, image_shape, kind, pictures, seed)     # the model is tried; ends.py
    ends = ends_of(search, range(0, 64))                # what came of these starts: columns, which may be stored
    gathering = Gathering(image_shape)
    gathering.add(ends)                                 # in the order of the indices from 0 on, in pieces of any size
    gathering.settled                                   # new starts bring nothing new: what is added now is left out
    gathering.harvest(search, members, controls)        # the Harvest

`gather(search, many_ends, members, controls)` is the last four lines for an iterable, of which no more is taken than is
needed, and `harvest()` is all of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from memrecon_fast.attractors.checks import check_images, warn_if_changed
from memrecon_fast.attractors.clusters import Cluster, Clusters
from memrecon_fast.attractors.ends import End, Ends, Search, ends_of, prepare_harvest
from memrecon_fast.attractors.stability import Verdict, stability_of
from memrecon_fast.attractors.starts import Pictures
from memrecon_fast.attractors.unseen import BLOCK, unseen_bound, unseen_share
from memrecon_fast.common.checks import check_integer
from memrecon_fast.common.text import counted
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.images.nearest import NONE, Nearest
from memrecon_fast.metrics import APPROXIMATE_MSE

SETTLED_BELOW = 0.01
"""A harvest ends once the unseen share is below this, with a probability of 95 %: after some 2,000 starts at the
earliest."""
BLOCKS_AT_ONCE = 8
"""Of 64 starts. In the end of each batch a few slow ones are alone, and a pass of few rows costs nearly as much as one
of many."""
_EIGENVALUES = 6
_TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True, repr=False)
class Harvest:
    """A different fixed points that random starts came to, by falling share; all tensors are on the CPU."""

    images: Tensor
    """float32 (A, *image_shape): the fixed points. They may leave [0, 1]."""
    share: Tensor
    """float64 (A,): of all starts, those that came to it."""
    first_start: Tensor
    """int64 (A,): the index of the first of them. So many were found by n starts: (first_start < n).sum()."""
    residual_mse: Tensor
    """float32 (A,): ‖f(x) − x‖²/d."""
    radius: Tensor
    """float32 (A,): ρ, the largest modulus of an eigenvalue of the Jacobian; NaN where it was not found."""
    verdict: Tensor
    """int8 (A,) of `Verdict`. A REPELLER among them is one that starts came near and had not left after 1,000
    iterations, or that they circle within `metrics.APPROXIMATE_MSE`."""
    nearest: Tensor
    """int64 (A,): the member with the least MSE; −1 where no members were given."""
    nearest_mse: Tensor
    """float64 (A,): that MSE; NaN where no members were given."""
    nearest_control: Tensor
    """int64 (A,): as `nearest`, of the controls."""
    nearest_control_mse: Tensor
    """float64 (A,)."""
    kind: str
    """Of the starts."""
    starts: int
    """How many were used: fewer than were allowed where new ones brought nothing new."""
    cycles: int
    """So many of them came to no fixed point, but to a cycle of up to 32 images."""
    moving: int
    """So many still moved after 1,000 iterations."""
    diverged: int
    """So many became NaN, or grew without bounds."""
    evaluations: int
    """Applications of f, and products with its Jacobian, that all starts took; not those for ρ and the verdict."""
    unseen_share: float
    """Good–Turing: the share of starts that would come to a fixed point that is not among these."""
    unseen_bound: float
    """It is no more than that, with a probability of 95 %."""
    members: int
    """How many were given."""
    controls: int
    """How many were given."""

    @property
    def is_member(self) -> Tensor:
        """bool (A,): within `metrics.APPROXIMATE_MSE` of a member."""
        return self.nearest_mse < APPROXIMATE_MSE

    @property
    def is_control(self) -> Tensor:
        """bool (A,): within `metrics.APPROXIMATE_MSE` of a control."""
        return self.nearest_control_mse < APPROXIMATE_MSE

    @property
    def members_found(self) -> int:
        """How many different members are nearest to those that are one."""
        return len(self.nearest[self.is_member].unique())

    @property
    def controls_found(self) -> int:
        """How many different controls are nearest to those that are one."""
        return len(self.nearest_control[self.is_control].unique())

    def __repr__(self) -> str:
        verdicts = {one.name: int((self.verdict == int(one)).sum()) for one in Verdict}
        said = ", ".join(f"{count} {name}" for name, count in verdicts.items() if count)
        found = []
        if self.members:
            other = int((~self.is_member).sum())
            found = [f"{self.members_found} of {self.members} members found", f"{other} that are no member"]
        if self.controls:
            found += [f"{self.controls_found} of {self.controls} controls found"]
        compared = f"{', '.join(found)} (MSE below {APPROXIMATE_MSE:g})" if found else "compared with no images"
        return (
            f"Harvest of {counted(len(self.share), 'fixed point')} from {counted(self.starts, 'start')} of kind "
            f"{self.kind!r}\n"
            f"  {said or 'no verdicts'}\n"
            f"  {compared}\n"
            f"  starts without a fixed point: {self.cycles} on cycles, {self.moving} still moving, {self.diverged} "
            f"diverged\n"
            f"  fixed points unseen: for {self.unseen_share:.1%} of the starts, at most {self.unseen_bound:.1%}; "
            f"applications of f: {self.evaluations / max(self.starts, 1):.3g} a start"
        )


def harvest(
    autoencoder: Autoencoder,
    image_shape: Sequence[int],
    starts: int = 300,
    kind: str = "smooth",
    members: Tensor | None = None,
    controls: Tensor | None = None,
    seed: int = 42,
    pictures: Pictures | None = None,
) -> Harvest:
    """Iterate x ← f(x) from random starts, and gather the fixed points: training images, if the model fell into them.

    autoencoder: any differentiable callable (B, *image_shape) → (B, *image_shape), float32, that answers the same to
        the same image; an nn.Module must be in eval mode.
    image_shape: of one image: (C, H, W), (H, W) or any other; the first of three or more axes is that of the channels.
    starts: at most so many, at least 1. It ends earlier, after a multiple of 64, once less than 1 % of the starts would
        bring something new, with a probability of 95 %.
    kind: "smooth" (large noise of low frequency, which finds the most), "uniform", "gaussian", or "images", from
        `pictures`; see `starts.KINDS`. Only the last one uses any image.
    members, controls: float32 (M, *image_shape), the training images and others: what is found is compared with them.
    seed: start number i is a function of (kind, seed, i).
    pictures: float32 (P, *image_shape), what the starts of kind "images" are made of.

    Memory grows with the number of different fixed points, not with that of the starts. Two ends are the same fixed
    point where their MSE is below 1e-5, see `clusters`.

    Raises TypeError or ValueError, before work starts, for anything wrong with the arguments, and where the autoencoder
    is no function of each image alone, or not differentiable. Warns with a RuntimeWarning where it does not answer in
    the end as it did in the beginning.
    """
    check_integer("starts", starts, low=1)
    search = prepare_harvest(autoencoder, image_shape, kind, pictures, seed)
    _check_compared(search, members, controls)
    found = gather(search, _all_ends(search, starts), members, controls)
    warn_if_changed(search.jacobian.prox)
    return found


def gather(
    search: Search, many_ends: Iterable[Ends], members: Tensor | None = None, controls: Tensor | None = None
) -> Harvest:
    """The harvest of these ends, in the order of their indices from 0 on, in pieces of any size; it takes no more of
    them than are needed."""
    gathering = Gathering(search.image_shape)
    for ends in many_ends:
        gathering.add(ends)
        if gathering.settled:
            break
    return gathering.harvest(search, members, controls)


class Gathering:
    """What is known of the ends of all starts so far. It is the same however they are divided into pieces."""

    def __init__(self, image_shape: tuple[int, ...]) -> None:
        self._shape = image_shape
        self._clusters = Clusters(math.prod(image_shape))
        self._ended = dict.fromkeys(End, 0)
        self.starts = 0
        """How many are in it."""
        self.evaluations = 0
        """What they took."""
        self.settled = False
        """Whether new starts bring nothing new: looked at after every 64 starts."""

    def add(self, ends: Ends) -> None:
        """The ends of the next starts; those that come after it has settled are left out.

        Raises ValueError where they are not those that come next, or of another shape.
        """
        if tuple(ends.images.shape[1:]) != self._shape:
            raise ValueError(f"ends of shape {tuple(ends.images.shape[1:])} are not of {self._shape}")
        first = self.starts
        if not self.settled and not torch.equal(
            ends.indices, torch.arange(first, first + len(ends.indices), device="cpu")
        ):
            raise ValueError(f"the ends that come next must be those of start {first} and after, in this order")
        begin = 0
        while begin < len(ends.indices) and not self.settled:
            end = begin + BLOCK - self.starts % BLOCK
            self._add(ends.part(slice(begin, end)))
            begin = end
            if self.starts % BLOCK == 0:
                self.settled = self.unseen_bound < SETTLED_BELOW

    def _add(self, ends: Ends) -> None:
        fixed = ends.status == int(End.FIXED_POINT)
        self._clusters.add(ends.indices[fixed].numpy(), ends.images[fixed].flatten(1).numpy())
        for end in End:
            self._ended[end] += int((ends.status == int(end)).sum())
        self.starts += len(ends.indices)
        self.evaluations += int(ends.evaluations.sum())

    @property
    def unseen_share(self) -> float:
        """See `Harvest`."""
        return unseen_share([one.count for one in self._clusters.clusters()], self.starts)

    @property
    def unseen_bound(self) -> float:
        """See `Harvest`."""
        return unseen_bound(self._clusters.firsts, self.starts)

    @property
    def found(self) -> int:
        """How many different fixed points there are so far."""
        return len(self._clusters.clusters())

    def clusters(self) -> list[Cluster]:
        """The different fixed points so far, by falling number of starts."""
        return sorted(self._clusters.clusters(), key=lambda one: (-one.count, one.first))

    def ended(self, end: End) -> int:
        """How many starts ended so."""
        return self._ended[end]

    def harvest(self, search: Search, members: Tensor | None = None, controls: Tensor | None = None) -> Harvest:
        """With a verdict on each fixed point, and the images that are nearest to it."""
        shape = self._shape
        _check_compared(search, members, controls)
        clusters = self.clusters()
        counts, firsts = [one.count for one in clusters], [one.first for one in clusters]
        images = torch.zeros(len(clusters), *shape, dtype=torch.float32, device="cpu")
        for row, one in enumerate(clusters):
            images[row] = torch.from_numpy(one.image).view(shape)
        stability = stability_of(search.jacobian, images, firsts, _EIGENVALUES, _TOLERANCE, seed=search.seed)
        near = stability.fixed_points.near.view(-1, *[1] * len(shape))
        images = torch.where(near, stability.fixed_points.images, images)
        nearest, nearest_mse = _nearest(images, members)
        nearest_control, nearest_control_mse = _nearest(images, controls)
        return Harvest(
            images=images,
            share=torch.tensor(counts, dtype=torch.float64, device="cpu") / max(self.starts, 1),
            first_start=torch.tensor(firsts, dtype=torch.int64, device="cpu"),
            residual_mse=stability.fixed_points.residual_mse,
            radius=stability.spectra.radius,
            verdict=stability.verdict,
            nearest=nearest,
            nearest_mse=nearest_mse,
            nearest_control=nearest_control,
            nearest_control_mse=nearest_control_mse,
            kind=search.kind,
            starts=self.starts,
            cycles=self._ended[End.CYCLE],
            moving=self._ended[End.MOVING],
            diverged=self._ended[End.DIVERGED],
            evaluations=self.evaluations,
            unseen_share=self.unseen_share,
            unseen_bound=self.unseen_bound,
            members=0 if members is None else len(members),
            controls=0 if controls is None else len(controls),
        )


def _all_ends(search: Search, starts: int) -> Iterator[Ends]:
    step = BLOCK * BLOCKS_AT_ONCE
    for first in range(0, starts, step):
        yield ends_of(search, range(first, min(first + step, starts)))


def _check_compared(search: Search, members: Tensor | None, controls: Tensor | None) -> None:
    """Raise TypeError or ValueError where they cannot be compared with what is found."""
    for name, images in (("members", members), ("controls", controls)):
        if images is None:
            continue
        check_images(name, images)
        if tuple(images.shape[1:]) != search.image_shape:
            raise ValueError(
                f"{name} must be of image_shape {search.image_shape}, a batch (M, *image_shape); they are of "
                f"{tuple(images.shape[1:])}"
            )


def _nearest(images: Tensor, others: Tensor | None) -> tuple[Tensor, Tensor]:
    """The nearest of the others to each image, int64 (A,), the first of several, and its MSE, float64 (A,); −1 and NaN
    where there is none."""
    if others is None or not len(others):
        return (
            torch.full((len(images),), NONE, dtype=torch.int64, device="cpu"),
            torch.full((len(images),), torch.nan, dtype=torch.float64, device="cpu"),
        )
    index, mse = Nearest(others).of(images)
    return index, mse
