"""`trace()` and `trace_iterate()`: a recovery that can be watched, iteration by iteration."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.memory import slots_by_default
from memrecon_fast.engine.review import score
from memrecon_fast.engine.samples import Batch, Sample
from memrecon_fast.engine.solver import Solver
from memrecon_fast.engine.transfer import to_device, working_on
from memrecon_fast.recovery import (
    COLUMNS,
    CPU,
    check_and_prepare,
    check_degraded,
    doubt_of,
    prepare_iterate,
    samples_of,
)
from memrecon_fast.results import MAX_SHOWN, RUNNING, Recovery, Status
from memrecon_fast.settings import Settings


@dataclasses.dataclass(frozen=True, repr=False)
class Trace:
    """The iterations of the recovery of B images; all tensors but those of `recovery` are on the CPU.

    Entry t, counted from 0, of an image is what the recovery would have returned of its present attempt (γ and initial
    mask) had it ended there. With "paper" that is x and H of an outer iteration. With "accelerated" it is the estimate
    with the lowest score so far, and the last one only where it converged; `residual` is always that of the last one.

    An image has `iterations` entries, attempt after attempt; from there on to T, the number of entries of the image
    that has most, its last one is repeated.
    """

    images: Tensor
    """float32 (T, B, *image_shape): the estimates."""
    masks: Tensor
    """bool (T, B, *image_shape), True = kept: the estimated masks, or the mask that was given."""
    iterations: Tensor
    """int32 (B,): how many entries the image has."""
    attempts: Tensor
    """int32 (T, B): which attempt it is, counted from 1."""
    gamma: Tensor
    """float64 (T, B): its γ; NaN from `trace_iterate`."""
    outer_iterations: Tensor
    """int32 (T, B): of which outer iteration of its attempt image and mask are, counted from 1; from `trace_iterate`,
    of which iteration. Goes up by more than one where "paper" knows that outer iterations repeat: those are not
    computed, and have no entry."""
    evaluations: Tensor
    """int32 (T, B): applications of the autoencoder so far, in all attempts, as `Recovery.evaluations` counts them."""
    status: Tensor
    """int8 (T, B): −1 while the attempt goes on, then its `Status`."""
    residual: Tensor
    """float32 (T, B): the MSE between the last two estimates; NaN where there was only one."""
    score: Tensor
    """float32 (T, B): fixed_point_mse + misfit, see `Recovery.score`."""
    fixed_point_mse: Tensor
    """float32 (T, B), as the five below: see `Recovery`."""
    misfit: Tensor
    explained: Tensor
    accepted: Tensor
    rejected: Tensor
    mask_changes: Tensor
    chosen: Tensor
    """int64 (B,): the entry that the recovery returns, the last one of the best attempt: of several attempts not always
    the last entry."""
    recovery: Recovery
    """What `recover` or `iterate` returns: the chosen entries, with what all attempts took."""

    def __repr__(self) -> str:
        entries, images, *shape = self.images.shape
        ends = collections.Counter(Status(status).name for status in self.recovery.status.tolist())
        how = ", ".join(f"{count} {name}" for name, count in ends.items())
        return f"Trace of {images} images of shape {tuple(shape)}, at most {entries} entries each: {how or 'no image'}"


def trace(
    autoencoder: Autoencoder,
    degraded: Tensor,
    mask: Tensor | None = None,
    settings: Settings | None = None,
    backend: str = "auto",
) -> Trace:
    """Recover images as `recover` does, and keep every estimate on the way, with its score: see `Trace`.

    Arguments, errors and warnings are those of `recover`, and so is `Trace.recovery`: bit for bit on a CPU; on a GPU as
    far as the autoencoder answers alike to other numbers of images. Raises ValueError for precision "progressive",
    which is two recoveries, one after the other. Where "paper" knows the mask, there is one outer iteration.

    Takes 5 · T · B bytes per pixel of memory on the CPU; T is at most `settings.max_outer_iterations` for each pair of
    γ and initial mask. One more application of the autoencoder for each entry scores it.
    """
    solver, masks = check_and_prepare(autoencoder, degraded, mask, settings, backend)
    if solver.early is not None:
        raise ValueError("precision 'progressive' is two recoveries: choose 'float32' or 'bfloat16' to trace one")
    return _trace(solver, degraded, masks)


def trace_iterate(
    autoencoder: Autoencoder,
    degraded: Tensor,
    max_iterations: int = 1000,
    tolerance: float = 1e-9,
    backend: str = "auto",
) -> Trace:
    """As `trace`, of `iterate`: an entry for each iteration x ← f(x)."""
    check_degraded(degraded)
    solver = prepare_iterate(
        autoencoder, degraded.shape[1:], max_iterations, tolerance, backend=backend, device=degraded.device
    )
    return _trace(dataclasses.replace(solver, iterations_per_block=1), degraded)


def _trace(solver: Solver, degraded: Tensor, masks: Tensor | None = None) -> Trace:
    at_once = min(slots_by_default(solver), solver.prox.most_rows)
    samples = list(samples_of(degraded, masks))
    entries: collections.deque[Batch] = collections.deque()
    for begin in range(0, len(samples), at_once):
        entries.extend(_follow(solver, samples[begin : begin + at_once]))
    everyone = torch.arange(len(samples), device=CPU)
    iterations = torch.zeros(len(samples), dtype=torch.int32, device=CPU)
    for entry in entries:
        iterations[_indices(entry)] += 1
    last = iterations.long() - 1
    columns, chosen = _in_order(entries, int(iterations.max()) if samples else 0, degraded.shape)
    returned: dict[str, Any] = {name: column[chosen, everyone] for name, column in columns.items() if name != "score"}
    for name in ("attempts", "evaluations"):
        returned[name] = columns[name][last, everyone]
    recovery = Recovery(
        **{name: column.to(degraded.device) for name, column in returned.items()},
        backend=solver.ops.backend,
        doubt=doubt_of(solver),
        first_degraded=degraded[:MAX_SHOWN].clone(),
    )
    return Trace(**columns, iterations=iterations, chosen=chosen, recovery=recovery)


def _follow(solver: Solver, samples: Sequence[Sample]) -> Iterator[Batch]:
    """All attempts at these images: after each block, and at admission where estimates are made there, the estimates of
    those that are worked on, on the host and scored."""
    prox = solver.prox
    while samples:
        staged = [solver.stage(sample) for sample in samples]
        with working_on(prox.device):
            slots = solver.allocate(len(samples))
            solver.admit(slots, staged)
        estimated = solver.finishes_at_admission
        again: list[Sample] = []
        while samples:
            with working_on(prox.device):
                if not estimated:
                    solver.advance(slots)
                rows = torch.arange(len(samples), device=prox.device)
                entry = score(prox, solver.ops, solver.results(slots, rows, samples)).to_host(prox)
            entry.wait()
            estimated = False
            attempts = torch.tensor([sample.attempt + 1 for sample in samples], dtype=torch.int32, device=CPU)
            yield dataclasses.replace(entry, attempts=attempts)
            again += _next_attempts(solver, entry)
            running = (entry.status == RUNNING).nonzero().flatten()
            if len(running) < len(samples):
                samples = [samples[row] for row in running.tolist()]
                with working_on(prox.device):
                    slots = slots.take(to_device(running, prox.device))
        samples = again


def _next_attempts(solver: Solver, entry: Batch) -> Iterator[Sample]:
    """The images whose attempt has ended and that are tried again, by the rule of `review.Review`."""
    numbers = [entry.numbers[name].tolist() for name in ("status", "score", "evaluations")]
    for sample, status, reached, spent in zip(entry.samples, *numbers, strict=True):
        more = sample.attempt + 1 < solver.attempts and not reached < solver.recognized_below
        if status != RUNNING and more:
            yield dataclasses.replace(sample, attempt=sample.attempt + 1, evaluations_before=spent)


def _in_order(entries: collections.deque[Batch], most: int, shape: Sequence[int]) -> tuple[dict[str, Tensor], Tensor]:
    """The columns of a `Trace` with `most` entries, by name, and which entries are chosen; uses up `entries`.

    shape: (B, *image_shape).
    """
    count = shape[0]
    kinds = {**COLUMNS, "score": (torch.float32, math.nan)}
    columns = {name: torch.full((most, count), fill, dtype=dtype, device=CPU) for name, (dtype, fill) in kinds.items()}
    columns["images"] = torch.empty((most, *shape), dtype=torch.float32, device=CPU)
    columns["masks"] = torch.empty((most, *shape), dtype=torch.bool, device=CPU)
    filled = torch.zeros(count, dtype=torch.int64, device=CPU)
    chosen = torch.zeros(count, dtype=torch.int64, device=CPU)
    lowest = torch.full((count,), math.nan, dtype=torch.float32, device=CPU)
    while entries:  # each frees its memory as soon as it is copied
        entry = entries.popleft()
        indices = _indices(entry)
        for name, column in entry.columns.items():
            columns[name][filled[indices], indices] = column
        scores = entry.numbers["score"]
        better = (entry.status != RUNNING) & ((scores < lowest[indices]) | lowest[indices].isnan())
        lowest[indices[better]] = scores[better]
        chosen[indices[better]] = filled[indices[better]]
        filled[indices] += 1
    for t in range(1, most):
        over = filled <= t
        for column in columns.values():
            column[t, over] = column[t - 1, over]
    return columns, chosen


def _indices(entry: Batch) -> Tensor:
    return torch.tensor([sample.index for sample in entry.samples], dtype=torch.int64, device=CPU)
