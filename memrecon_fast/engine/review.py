"""What is done with an estimate before it is handed out: it is scored, and bad ones are tried again another way.

A training image is a fixed point of the autoencoder f and explains what was given of it. Neither takes the original to
be seen: ‖f(x) − x‖²/d, and the misfit ‖y − Hx‖²/d to the degraded image y under the mask H. See `results.score_of`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import torch
from torch import Tensor

from memrecon_fast.engine.leaving import Leaving, Pair, leave
from memrecon_fast.engine.prox import Prox
from memrecon_fast.engine.samples import Done, Finished, Results, Sample
from memrecon_fast.engine.solver import AnySolver
from memrecon_fast.engine.transfer import working_on
from memrecon_fast.ops import Ops
from memrecon_fast.results import RUNNING, Status, score_of


@dataclasses.dataclass(frozen=True)
class Reviewed:
    """What came of a review."""

    done: list[Pair]
    again: list[Sample]


class Review:
    """Scores the estimates of a solver, many at a time, and decides which image is tried again: its next attempt."""

    def __init__(self, solver: AnySolver) -> None:
        self._solver = solver
        self._waiting: list[Done] = []

    @property
    def waiting(self) -> int:
        """Estimates that are not scored yet."""
        return sum(len(done.samples) for done in self._waiting)

    @property
    def tries_again(self) -> bool:
        """Whether an image may be tried again."""
        return self._solver.attempts > 1

    def add(self, done: Done) -> None:
        """More estimates."""
        self._waiting.append(done)

    def score(self, count: int) -> Leaving:
        """Score the first `count` of those that wait, or all if there are fewer, and send them to the host."""
        prox = self._solver.prox
        with working_on(prox.device):
            waiting = _join(self._waiting)
            first = _part(waiting, 0, count)
            scored = score(prox, self._solver.ops, first.results, count)
            leaving = leave(Done(first.samples, scored), prox)
            self._waiting = [] if count >= len(waiting.samples) else [_part(waiting, count, None)]
        return leaving

    def decide(self, scored: Iterable[Pair]) -> Reviewed:
        """Which are done, with the best of their estimates, and which are tried again."""
        reviewed = Reviewed([], [])
        for sample, finished in scored:
            best = finished if sample.best is None else _better(sample.best, finished)
            if sample.attempt + 1 < self._solver.attempts and not best.score < self._solver.recognized_below:
                reviewed.again.append(_next_attempt(sample, best))
            else:
                reviewed.done.append((sample, best))
        return reviewed


def score(prox: Prox, ops: Ops, results: Results, most: int = 1) -> Results:
    """The results with what their scores are made of; one application of f to each estimate.

    most: on a GPU, where the number of rows that go through f may decide the last bits, it is always this one.
    """
    count = len(results.images)
    rows = prox.block_sizes(max(count, most) if prox.device.type == "cuda" else count)[-1]
    x, y = _padded(results.images, rows), _padded(results.given, rows)
    model_of_y = _padded(results.images.masked_fill(~results.masks, 0.0), rows)
    fixed_point_mse = _mean_squares(ops, x.clone(), prox(x))[:count]
    misfit = _mean_squares(ops, y.clone(), model_of_y)[:count]
    energy = _mean_squares(ops, y, torch.zeros_like(y))[:count]
    explained = (1 - misfit / energy).masked_fill(~(energy > 0), 0.0)
    diverged = results.status == int(Status.DIVERGED)
    return dataclasses.replace(
        results,
        fixed_point_mse=fixed_point_mse,
        misfit=misfit,
        explained=explained,
        score=score_of(fixed_point_mse, misfit, explained).masked_fill(diverged, torch.inf),
    )


def _padded(images: Tensor, rows: int) -> Tensor:
    """A copy with rows of zeros below: so many in all."""
    padded = torch.zeros(rows, images.shape[1], dtype=images.dtype, device=images.device)
    padded[: len(images)].copy_(images)
    return padded


def _mean_squares(ops: Ops, a: Tensor, b: Tensor) -> Tensor:
    """mean((b − a)²) per row; `a` becomes `b`. With as many rows, the same one whatever the others are."""
    result = torch.zeros(len(a), dtype=torch.float32, device=a.device)
    ops.advance(a, b, result, torch.full((len(a),), RUNNING, dtype=torch.int8, device=a.device))
    return result


def _join(parts: list[Done]) -> Done:
    """All of them; at least one part."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0].results
    joined = {name: torch.cat([getattr(part.results, name) for part in parts]) for name in _columns(first)}
    return Done([sample for part in parts for sample in part.samples], dataclasses.replace(first, **joined))


def _part(done: Done, begin: int, end: int | None) -> Done:
    """Those with the positions [begin, end): copies, so that the others need not stay in memory with them."""
    columns = {name: column[begin:end].clone() for name, column in _columns(done.results).items()}
    return Done(done.samples[begin:end], dataclasses.replace(done.results, **columns))


def _columns(results: Results) -> dict[str, Tensor]:
    return {name: column for name, column in vars(results).items() if column is not None}


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
