from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import nn

from memrecon_fast import Status
from memrecon_fast.engine.leaving import Leaving, leave
from memrecon_fast.engine.prox import make_prox
from memrecon_fast.engine.samples import Done, Results, Sample

SHAPE = (3, 2, 2)
CPU = torch.device("cpu")


def done(count: int, **columns: torch.Tensor) -> Done:
    """Of what befell each image before it came into the slots, one thing or another."""
    samples = [Sample(10 + i, torch.rand(SHAPE), iterations_before=i, evaluations_before=2 * i) for i in range(count)]
    results = Results(
        images=torch.rand(count, 12),
        masks=torch.rand(count, 12) < 0.5,
        given=torch.rand(count, 12),
        outer_iterations=torch.arange(count, dtype=torch.int32) + 5,
        evaluations=torch.arange(count, dtype=torch.int32) + 50,
        status=torch.full((count,), int(Status.STALLED), dtype=torch.int8),
        residual=torch.full((count,), 1e-3),
        **columns,
    )
    return Done(samples, results)


def test_each_sample_comes_with_what_became_of_it() -> None:
    prox = make_prox(nn.Conv2d(3, 3, 1).eval(), SHAPE, CPU)  # its rows are channels-last
    given = done(4, gamma=torch.tensor([0.1, 0.2, 0.5, 1.0], dtype=torch.float64))
    leaving = leave(given, prox)
    assert leaving.arrived()
    pairs = leaving.pairs()
    assert [sample for sample, _ in pairs] == given.samples
    for i, (sample, finished) in enumerate(pairs):
        assert finished.index == sample.index == 10 + i
        assert torch.equal(prox.to_rows(finished.image[None])[0], given.results.images[i])
        assert torch.equal(prox.to_rows(finished.mask[None])[0], given.results.masks[i])
        assert finished.outer_iterations == 5 + i + sample.iterations_before
        assert finished.evaluations == 50 + i + sample.evaluations_before
        assert finished.status is Status.STALLED
        assert finished.gamma == [0.1, 0.2, 0.5, 1.0][i]
        assert math.isnan(finished.score)  # it was not measured
        assert finished.image.untyped_storage().nbytes() == finished.image.nbytes  # the others need not stay with it
        assert finished.mask.untyped_storage().nbytes() == finished.mask.nbytes


class Happening:
    """An event of a device that works on something else for a while."""

    def __init__(self) -> None:
        self.happened = False

    def query(self) -> bool:
        return self.happened

    def synchronize(self) -> None:
        self.happened = True


def test_who_asks_before_they_are_there_waits() -> None:
    leaving = leave(done(2), make_prox(nn.Identity().eval(), SHAPE, CPU))
    event = Happening()
    late = Leaving(leaving.samples, leaving.images, leaving.masks, leaving.columns, cast(Any, event))
    assert not late.arrived()
    assert len(late.pairs()) == 2
    assert late.arrived()
