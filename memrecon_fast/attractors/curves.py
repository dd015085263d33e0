"""π(t): which starts are a training image after f was applied t times? Radhakrishnan et al.

A curve is made of parts that may be computed at other times and places and come to the same:

    course = prepare_curve(autoencoder, images, starts, times)      # the model is tried
    passages = passages_of(course, range(0, 64))                    # of these starts: columns, which may be stored
    gather_passages(course, many_passages)                          # the RecoveryCurve
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from memrecon_fast.attractors.checks import check_ascending, check_some_images, check_starts, warn_if_changed
from memrecon_fast.attractors.flight import rows_at_once
from memrecon_fast.attractors.starts import Pictures, check_kind, check_pictures, make_start
from memrecon_fast.audit.analysis.statistics import rate_interval
from memrecon_fast.common.checks import check_integer, check_seed
from memrecon_fast.common.text import counted
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.prox import Prox, device_of, make_prox
from memrecon_fast.engine.transfer import working_on
from memrecon_fast.images.nearest import Nearest
from memrecon_fast.metrics import APPROXIMATE_MSE
from memrecon_fast.settings import MAX_ITERATIONS

TIMES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
SHOWN = 12
"""Of so many starts, the first ones, the images after one application are kept."""


@dataclasses.dataclass(frozen=True)
class Course:
    """A model that was tried, what it is applied to, and when it is looked; see `prepare_curve`."""

    prox: Prox
    nearest: Nearest
    """The training images."""
    starts: Tensor | str
    """float32 (B, *image_shape), or a kind of starts."""
    count: int
    """How many starts there are."""
    times: tuple[int, ...]
    """Ascending."""
    seed: int
    pictures: Pictures | None
    rows: int
    """So many starts are worked on at a time."""

    def start(self, index: int) -> Tensor:
        """Start number `index`: float32, image_shape."""
        if isinstance(self.starts, Tensor):
            return self.starts[index]
        return make_start(self.starts, self.prox.image_shape, self.seed, index, self.pictures)


@dataclasses.dataclass(frozen=True)
class Passages:
    """What n starts came by, at T times, on the CPU; row i of every column belongs to start `indices[i]`."""

    indices: Tensor
    """int64 (n,)."""
    nearest: Tensor
    """int64 (n, T): the training image with the least MSE; −1 where the iterate is NaN, infinite or beyond a
    million times the images."""
    nearest_mse: Tensor
    """float64 (n, T): that MSE; NaN where there is none."""


@dataclasses.dataclass(frozen=True, repr=False)
class RecoveryCurve:
    """Of B starts, at T times, what is a training image; all tensors are on the CPU."""

    times: Tensor
    """int64 (T,): f was applied so many times."""
    nearest: Tensor
    """int64 (B, T): the training image with the least MSE; −1 where the iterate is NaN, infinite or beyond a
    million times the images."""
    nearest_mse: Tensor
    """float64 (B, T): that MSE; NaN where there is none."""
    kind: str
    """Of the starts; "given" where they were."""
    members: int
    """How many training images there are."""
    shown: Tensor
    """float32 (S, *image_shape): the first few starts, and ..."""
    one_step: Tensor
    """float32 (S, *image_shape): what f makes of them in one application: training images, where it super-attracts."""
    one_step_nearest: Tensor
    """int64 (S,): the training image nearest to that; −1 as above."""

    @property
    def recovered(self) -> Tensor:
        """bool (B, T): within `metrics.APPROXIMATE_MSE` of a training image."""
        return self.nearest_mse < APPROXIMATE_MSE

    @property
    def share(self) -> Tensor:
        """float64 (T,): π(t), the share of the starts that are a training image then. It may fall again."""
        return self.recovered.double().mean(dim=0)

    @property
    def interval(self) -> Tensor:
        """float64 (T, 2): what holds π(t) with 95 % confidence (Wilson), where starts are drawn at random."""
        counts = self.recovered.sum(dim=0).tolist()
        intervals = [rate_interval(count, len(self.nearest)) for count in counts]
        return torch.tensor(intervals, dtype=torch.float64, device="cpu")

    @property
    def different(self) -> Tensor:
        """int64 (T,): how many different training images these are."""
        columns = zip(self.nearest.T, self.recovered.T, strict=True)
        return torch.tensor(
            [len(nearest[there].unique()) for nearest, there in columns], dtype=torch.int64, device="cpu"
        )

    @property
    def diverged(self) -> Tensor:
        """int64 (T,): how many of the iterates are NaN, infinite or beyond a million times the images."""
        return (self.nearest < 0).sum(dim=0)

    def __repr__(self) -> str:
        columns = zip(
            *(one.tolist() for one in (self.times, self.share, self.interval, self.different, self.diverged)),
            strict=True,
        )
        lines = [
            f"  π({time}) = {share:.3g} ({low:.3g} to {high:.3g}), {different} different"
            + (f", {diverged} diverged" if diverged else "")
            for time, share, (low, high), different, diverged in columns
        ]
        what = f"kind {self.kind!r}" if self.kind != GIVEN else "those given"
        return "\n".join(
            [
                f"RecoveryCurve of {counted(len(self.nearest), 'start')} ({what}) and "
                f"{counted(self.members, 'training image')} "
                f"(MSE below {APPROXIMATE_MSE:g})",
                *lines,
            ]
        )


GIVEN = "given"
"""The kind of starts that were given as images."""


def recovery_curve(
    autoencoder: Autoencoder,
    images: Tensor,
    starts: Tensor | str = "smooth",
    times: Sequence[int] = TIMES,
    *,
    count: int = 300,
    seed: int = 42,
    pictures: Pictures | None = None,
    rows: int | None = None,
) -> RecoveryCurve:
    """π(t): the share of starts that are within `metrics.APPROXIMATE_MSE` of a training image after f was applied t
    times. π(1) is super-attraction.

    autoencoder: any callable (B, *image_shape) → (B, *image_shape), float32, that answers the same to the same image;
        an nn.Module must be in eval mode. It need not be differentiable.
    images: float32 (M, *image_shape), the training images, at least one.
    starts: float32 (B, *image_shape), of any finite range; or a kind of starts by name, see `starts.KINDS`.
    times: ascending, from 1 on. All starts are carried on to the last one: what was there may drift away.
    count: how many starts of a kind. seed: of a kind; start number i is a function of (kind, seed, i).
    pictures: what the starts of kind "images" are made of.
    rows: starts that are worked on at a time, by default what suits memory; it does not change the result (on a GPU,
        but for the last bits).

    Raises TypeError or ValueError, before work starts, for anything wrong with the arguments, and where the autoencoder
    is no function of each image alone. Warns with a RuntimeWarning where it does not answer in the end as it did in the
    beginning.
    """
    course = prepare_curve(autoencoder, images, starts, times, count=count, seed=seed, pictures=pictures, rows=rows)
    found = gather_passages(course, [passages_of(course, range(course.count))])
    warn_if_changed(course.prox)
    return found


def prepare_curve(
    autoencoder: Autoencoder,
    images: Tensor,
    starts: Tensor | str = "smooth",
    times: Sequence[int] = TIMES,
    *,
    count: int = 300,
    seed: int = 42,
    pictures: Pictures | None = None,
    rows: int | None = None,
) -> Course:
    """All that can be wrong is found out here, before any work; arguments and errors are those of `recovery_curve`."""
    check_some_images("images", images, "there is nothing to come to without (a harvest does without)")
    shape = tuple(images.shape[1:])
    if isinstance(starts, str):
        check_kind(starts)
        check_pictures(starts, shape, pictures)
        check_integer("count", count, low=1)
    else:
        starts = check_starts("starts", starts, shape).detach().cpu()
        count = len(starts)
        if pictures is not None:
            raise ValueError("pictures are for the starts of a kind; these starts are given")
    check_seed(seed)
    check = functools.partial(check_integer, low=1, high=MAX_ITERATIONS)
    at = check_ascending("times", times, "(1, 10, 100)", check)
    prox = make_prox(autoencoder, shape, device_of(autoencoder, default=images.device))
    return Course(prox, Nearest(images), starts, count, at, seed, pictures, min(rows_at_once(prox, rows), count))


def passages_of(course: Course, indices: Sequence[int]) -> Passages:
    """What the starts with these indices come by: a function of the model, the images, the starts and the indices,
    whatever else is computed before or beside it."""
    found = [_passages(course, indices[first : first + course.rows]) for first in range(0, len(indices), course.rows)]
    return _joined(found, len(course.times))


def one_step_of(course: Course, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The starts with these indices, at least one, and what one application of f makes of them; float32
    (n, *image_shape), on the CPU."""
    starts = torch.stack([course.start(index) for index in indices])
    ends = torch.empty_like(starts)
    with working_on(course.prox.device):
        for some, of_some in zip(starts.split(course.rows), ends.split(course.rows), strict=True):
            of_some.copy_(course.prox.to_images(course.prox(_rows(course, some))[: len(some)]))
    return starts, ends


def gather_passages(course: Course, many: Iterable[Passages]) -> RecoveryCurve:
    """The curve of these passages, each start once, in pieces of any size and order. Raises ValueError where starts are
    missing, or there twice."""
    passages = _joined(list(many), len(course.times))
    order = passages.indices.argsort()
    if not torch.equal(passages.indices[order], torch.arange(course.count, device="cpu")):
        raise ValueError(f"a curve of {course.count} starts takes the passages of each of them, once")
    shown, one_step = one_step_of(course, range(min(SHOWN, course.count)))
    return RecoveryCurve(
        times=torch.tensor(course.times, dtype=torch.int64, device="cpu"),
        nearest=passages.nearest[order],
        nearest_mse=passages.nearest_mse[order],
        kind=course.starts if isinstance(course.starts, str) else GIVEN,
        members=len(course.nearest),
        shown=shown,
        one_step=one_step,
        one_step_nearest=course.nearest.of(one_step)[0],
    )


def _passages(course: Course, indices: Sequence[int]) -> Passages:
    """Of starts that are worked on together."""
    starts = torch.stack([course.start(index) for index in indices])
    looks: list[tuple[Tensor, Tensor]] = []
    with working_on(course.prox.device):
        x, before = _rows(course, starts), 0
        for time in course.times:
            for _ in range(time - before):
                x = course.prox(x)
            before = time
            looks.append(course.nearest.of(course.prox.to_images(x[: len(starts)])))
    nearest, mse = (torch.stack(columns, dim=1) for columns in zip(*looks, strict=True))
    return Passages(torch.tensor(list(indices), dtype=torch.int64, device="cpu"), nearest, mse)


def _rows(course: Course, starts: Tensor) -> Tensor:
    """On the device, [n, d]; on a GPU always as many, where the number of rows may decide the last bits."""
    prox = course.prox
    rows = prox.to_rows(starts.to(prox.device))
    if prox.device.type == "cuda":
        rows = torch.cat([rows, rows.new_zeros(course.rows - len(rows), prox.pixels)])
    return rows


def _joined(many: Sequence[Passages], times: int) -> Passages:
    """All of them in one."""
    none = Passages(
        torch.zeros(0, dtype=torch.int64, device="cpu"),
        torch.zeros(0, times, dtype=torch.int64, device="cpu"),
        torch.zeros(0, times, dtype=torch.float64, device="cpu"),
    )
    names = [field.name for field in dataclasses.fields(Passages)]
    return Passages(**{name: torch.cat([getattr(one, name) for one in (none, *many)]) for name in names})
