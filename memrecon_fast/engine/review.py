"""Estimates are scored before they are handed out, and images whose score is bad are tried again in another way.

A training image is a fixed point of the autoencoder f and explains the degraded image y. Both can be measured without
the original: ‖f(x) − x‖²/d, and the misfit ‖y − Hx‖²/d under the mask H. See `results.score_of`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from memrecon_fast.engine.prox import Prox
from memrecon_fast.engine.samples import Batch, Finished, Sample, join
from memrecon_fast.engine.solver import Solver
from memrecon_fast.engine.transfer import working_on
from memrecon_fast.ops import Operations
from memrecon_fast.results import Status, score_of


class Review:
    """Scores the estimates of a solver, many at a time, and decides which images are tried again: the next attempt.

    pixels: whether the images and masks go to the host; otherwise only what else is known of the estimates.
    """

    def __init__(self, solver: Solver, pixels: bool = True) -> None:
        self._solver = solver
        self._pixels = pixels
        self._waiting: list[Batch] = []

    @property
    def waiting(self) -> int:
        """The number of estimates that are not scored yet."""
        return sum(len(batch.samples) for batch in self._waiting)

    @property
    def tries_again(self) -> bool:
        """Whether an image may be tried again."""
        return self._solver.attempts > 1

    def add(self, batch: Batch) -> None:
        """More estimates."""
        self._waiting.append(batch)

    def score(self, count: int) -> Batch:
        """Score the first `count` of those that wait, or all if there are fewer, and send them to the host."""
        prox = self._solver.prox
        with working_on(prox.device):
            waiting = join(self._waiting)
            number = len(waiting.samples)
            first = score(prox, self._solver.ops, waiting.part(range(min(count, number))), count)
            first = first.to_host(prox, self._pixels)
            self._waiting = [] if count >= number else [waiting.part(range(count, number))]
        return first

    def decide(self, scored: Batch) -> tuple[Batch, list[Sample]]:
        """Which are done, with the best of their estimates, and which are tried again: their next attempts.

        scored: what `score` returned, once it has arrived.
        """
        if not self.tries_again:
            return scored, []
        before = [sample.best for sample in scored.samples]
        scores = scored.numbers["score"].tolist()
        evaluations = scored.evaluations.tolist()
        better: dict[int, Finished] = {}
        """The rows whose earlier estimate is no worse, and that estimate."""
        done: list[int] = []
        again: list[int] = []
        for row, (best, score) in enumerate(zip(before, scores, strict=True)):
            if best is not None and not (math.isnan(best.score) or score < best.score):
                better[row], score = best, best.score
            more = scored.samples[row].attempt + 1 < self._solver.attempts
            (again if more and not score < self._solver.recognized_below else done).append(row)
        with working_on(self._solver.prox.device):
            finished = _with_best(scored.part(done), [better.get(row) for row in done], [before[row] for row in done])
            attempts = []
            for row in again:
                best = before[row]
                cost = {
                    "attempts": 1 if best is None else best.attempts + 1,
                    "evaluations": evaluations[row] + (0 if best is None else best.evaluations),
                }
                estimate = better.get(row) or scored.finished(row)
                attempts.append(_next_attempt(scored.samples[row], dataclasses.replace(estimate, **cost)))
        return finished, attempts


def score(prox: Prox, ops: Operations, batch: Batch, rows: int = 1) -> Batch:
    """The batch with the scores of its estimates, and what they are made of; takes one application of f to each.

    rows: on a GPU, where the number of rows that go through f may decide the last bits, at least so many always do.
    """
    count = len(batch.images)
    rows = prox.block_sizes(max(count, rows))[-1] if prox.device.type == "cuda" else count
    assert batch.observed is not None
    x, y = _padded(batch.images, rows), _padded(batch.observed, rows)
    v = prox(x)
    prox.remember(x[:count], v[:count])
    fixed_point_mse = _mean_squares(ops, x, v)[:count]
    del v
    misfit = _mean_squares(ops, y, _padded(batch.images.masked_fill(~batch.masks, 0.0), rows))[:count]
    energy = _mean_squares(ops, y, torch.zeros_like(y))[:count]
    explained = (1 - misfit / energy).masked_fill(~(energy > 0), 0.0)
    diverged = batch.status == int(Status.DIVERGED)
    return dataclasses.replace(
        batch,
        fixed_point_mse=fixed_point_mse,
        misfit=misfit,
        explained=explained,
        score=score_of(fixed_point_mse, misfit, explained).masked_fill(diverged, torch.inf),
    )


def _padded(images: Tensor, rows: int) -> Tensor:
    """With so many rows in all, those below of zeros."""
    if rows == len(images):
        return images
    padded = torch.zeros(rows, images.shape[1], dtype=images.dtype, device=images.device)
    padded[: len(images)].copy_(images)
    return padded


def _mean_squares(ops: Operations, a: Tensor, b: Tensor) -> Tensor:
    """mean((a − b)²) per row. With as many rows, the same one whatever the others are."""
    result = torch.empty(len(a), dtype=torch.float32, device=a.device)
    ops.admm.mean_squares(a, b, result)
    return result


def _with_best(done: Batch, better: Sequence[Finished | None], before: Sequence[Finished | None]) -> Batch:
    """Estimates that are done, where an earlier one is better with that in its place, with what all attempts cost.

    better, before: of each row the earlier estimate that is no worse, and the best one before this attempt. Changes
    `done`, but so that the same comes of it once more: memory may run out before its images are handed on.
    """
    attempts = _on_host([1 if best is None else best.attempts + 1 for best in before], torch.int32)
    cost = _on_host([0 if best is None else best.evaluations for best in before], torch.int32)
    placed = {row: best for row, best in enumerate(better) if best is not None}
    if placed:
        rows = _on_host(list(placed), torch.int64)
        for name, column in done.numbers.items():
            if name != "evaluations":
                column[rows] = _on_host([getattr(one, name) for one in placed.values()], column.dtype)
        for row, one in placed.items():
            done.images[row].copy_(one.image)
            done.masks[row].copy_(one.mask)
    return dataclasses.replace(done, attempts=attempts, evaluations=done.evaluations + cost)


def _on_host(values: Sequence[float], dtype: torch.dtype) -> Tensor:
    return torch.tensor(values, dtype=dtype, device="cpu")


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
