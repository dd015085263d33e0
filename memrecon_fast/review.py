"""What is done with an estimate before it is handed out: it is scored, and bad ones are tried again another way.

A training image is a fixed point of the autoencoder f and explains what was given of it. Neither takes the original to
be seen: ‖f(x) − x‖²/d, and the misfit ‖y − Hx‖²/d to the degraded image y under the mask H. See `settings.score_of`.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from memrecon_fast.ops import Ops
from memrecon_fast.prox import Prox
from memrecon_fast.settings import RUNNING, Status, score_of
from memrecon_fast.solvers.protocol import AnySolver
from memrecon_fast.solvers.samples import Finished, Sample

Pair = tuple[Sample, Finished]


@dataclasses.dataclass(frozen=True)
class Reviewed:
    """What came of a review."""

    done: list[Pair]
    again: list[Sample]


class Review:
    """Scores the estimates of a solver, many at a time, and decides which image is tried again: its next attempt."""

    def __init__(self, solver: AnySolver) -> None:
        self._solver = solver
        self._waiting: list[Pair] = []

    @property
    def waiting(self) -> int:
        """Estimates that are not scored yet."""
        return len(self._waiting)

    @property
    def tries_again(self) -> bool:
        """Whether an image may be tried again."""
        return self._solver.attempts > 1

    def add(self, sample: Sample, finished: Finished) -> None:
        """One more estimate."""
        self._waiting.append((sample, finished))

    def settle(self, count: int) -> Reviewed:
        """Score the first `count` of those that wait, and decide."""
        some = self._waiting[:count]
        scored = score(self._solver.prox, self._solver.ops, some, count) if some else []
        del self._waiting[:count]
        reviewed = Reviewed([], [])
        for (sample, _), finished in zip(some, scored, strict=True):
            best = finished if sample.best is None else _better(sample.best, finished)
            if sample.attempt + 1 < self._solver.attempts and not best.score < self._solver.recognized_below:
                reviewed.again.append(_next_attempt(sample, best))
            else:
                reviewed.done.append((sample, best))
        return reviewed


def score(prox: Prox, ops: Ops, pairs: list[Pair], most: int = 1) -> list[Finished]:
    """The estimates with what their scores are made of; one application of f to each.

    most: on a GPU, where the number of rows that go through f may decide the last bits, it is always this one.
    """
    given = torch.stack([_known_pixels(sample).cpu() for sample, _ in pairs])
    images = torch.stack([finished.image for _, finished in pairs])
    masks = torch.stack([finished.mask for _, finished in pairs])
    rows = len(pairs)
    with torch.inference_mode():
        through = prox.block_sizes(max(rows, most) if prox.device.type == "cuda" else rows)[-1]
        x = torch.zeros(through, prox.pixels, dtype=torch.float32, device=prox.device)
        x[:rows].copy_(prox.to_rows(images))
        v = prox(x)
        y = x.clone()
        y[:rows].copy_(prox.to_rows(given))
        model_of_y = torch.zeros_like(x)
        model_of_y[:rows].copy_(prox.to_rows(images.masked_fill(~masks, 0.0)))
        energy = _mean_squares(ops, torch.zeros_like(x), y)[:rows].cpu()
        fixed_point_mse, misfit = (_mean_squares(ops, a, b)[:rows].cpu() for a, b in ((x, v), (y, model_of_y)))
    explained = torch.where(energy > 0, 1 - misfit / energy, 0)
    scores = score_of(fixed_point_mse, misfit, explained)
    scores[[finished.status == Status.DIVERGED for _, finished in pairs]] = torch.inf
    columns = {"fixed_point_mse": fixed_point_mse, "misfit": misfit, "explained": explained, "score": scores}
    values = {name: column.tolist() for name, column in columns.items()}
    return [
        dataclasses.replace(finished, **{name: column[i] for name, column in values.items()})
        for i, (_, finished) in enumerate(pairs)
    ]


def _known_pixels(sample: Sample) -> Tensor:
    """y, and 0 where the pixel is known to be erased."""
    return sample.degraded if sample.mask is None else sample.degraded.masked_fill(~sample.mask, 0.0)


def _mean_squares(ops: Ops, a: Tensor, b: Tensor) -> Tensor:
    """mean((b − a)²) per row, the same one whatever the other rows are; `a` becomes `b`."""
    result = torch.zeros(len(a), dtype=torch.float32, device=a.device)
    ops.advance(a, b, result, torch.full((len(a),), RUNNING, dtype=torch.int8, device=a.device))
    return result


def _better(before: Finished, now: Finished) -> Finished:
    """The one with the lower score; what they cost in all."""
    best = now if math.isnan(before.score) or now.score < before.score else before
    return dataclasses.replace(best, evaluations=before.evaluations + now.evaluations, attempts=before.attempts + 1)


def _next_attempt(sample: Sample, best: Finished) -> Sample:
    return dataclasses.replace(
        sample,
        attempt=sample.attempt + 1,
        best=best,
        initial_mask=None,
        initial_state=None,
        iterations_before=0,
        evaluations_before=0,
    )
