from __future__ import annotations

import dataclasses
import math
from typing import Any, cast

import pytest
import torch
from torch import nn

from memrecon_fast import Status
from memrecon_fast.engine.prox import make_prox
from memrecon_fast.engine.samples import Batch, Sample, join

SHAPE = (3, 2, 2)
CPU = torch.device("cpu")


def done(count: int, **columns: Any) -> Batch:
    """Images of which each had something else done for it before it came into the slots."""
    samples = [Sample(10 + i, torch.rand(SHAPE), iterations_before=i, evaluations_before=2 * i) for i in range(count)]
    return Batch(
        samples=samples,
        images=torch.rand(count, 12),
        masks=torch.rand(count, 12) < 0.5,
        observed=torch.rand(count, 12),
        outer_iterations=torch.arange(count, dtype=torch.int32) + 5,
        evaluations=torch.arange(count, dtype=torch.int32) + 50,
        status=torch.full((count,), int(Status.STALLED), dtype=torch.int8),
        residual=torch.full((count,), 1e-3),
        **columns,
    )


def test_each_sample_comes_with_what_became_of_it() -> None:
    prox = make_prox(nn.Conv2d(3, 3, 1).eval(), SHAPE, CPU)  # its rows are channels-last
    given = done(4, gamma=torch.tensor([0.1, 0.2, 0.5, 1.0], dtype=torch.float64))
    on_host = given.to_host(prox)
    assert on_host.arrived()
    assert on_host.samples == given.samples
    unpacked = list(on_host.unpack())
    for i, (sample, finished) in enumerate(zip(given.samples, unpacked, strict=True)):
        assert finished.index == sample.index == 10 + i
        assert torch.equal(prox.to_rows(finished.image[None])[0], given.images[i])
        assert torch.equal(prox.to_rows(finished.mask[None])[0], given.masks[i])
        assert finished.outer_iterations == 5 + i + sample.iterations_before
        assert finished.evaluations == 50 + i + sample.evaluations_before
        assert finished.status is Status.STALLED
        assert finished.gamma == [0.1, 0.2, 0.5, 1.0][i]
        assert math.isnan(finished.score)  # it was not measured
        assert finished.image.untyped_storage().nbytes() == finished.image.nbytes  # the others need not stay with it
        assert finished.mask.untyped_storage().nbytes() == finished.mask.nbytes
    assert given.outer_iterations.tolist() == [5, 6, 7, 8]  # the batch that was sent stays as it was


@pytest.mark.parametrize("autoencoder", [nn.Identity(), nn.Conv2d(3, 3, 1)])
def test_pixels_that_stay_on_the_device_are_not_copied(autoencoder: nn.Module) -> None:
    prox = make_prox(autoencoder.eval(), SHAPE, CPU)
    given = done(3)
    stayed, sent = given.to_host(prox, pixels=False), given.to_host(prox)
    assert stayed.images.data_ptr() == given.images.data_ptr()
    assert stayed.masks.data_ptr() == given.masks.data_ptr()
    assert torch.equal(stayed.images, sent.images)
    assert torch.equal(stayed.masks, sent.masks)
    assert {name: column.tolist() for name, column in stayed.numbers.items()} == {
        name: column.tolist() for name, column in sent.numbers.items()
    }
    assert stayed.observed is sent.observed is None  # it is not kept for as long as they wait


class Happening:
    """An event of a device that works on something else for a while."""

    def __init__(self) -> None:
        self.happened = False

    def query(self) -> bool:
        return self.happened

    def synchronize(self) -> None:
        self.happened = True


def test_who_asks_before_they_are_there_waits() -> None:
    on_host = done(2).to_host(make_prox(nn.Identity().eval(), SHAPE, CPU))
    for ask in (Batch.wait, lambda batch: next(batch.unpack())):
        late = dataclasses.replace(on_host, event=cast(Any, Happening()))
        assert not late.arrived()
        ask(late)
        assert late.arrived()
    assert len(list(late.unpack())) == 2


def test_parts_are_copies_and_joined_they_are_the_whole() -> None:
    whole = done(5, score=torch.rand(5))
    parts = [whole.part(range(2)), whole.part([2, 4]), whole.part([3]), whole.part([])]
    assert [[sample.index for sample in part.samples] for part in parts] == [[10, 11], [12, 14], [13], []]
    for part in parts:
        for name, column in part.columns.items():
            assert column.untyped_storage().nbytes() == column.nbytes, name  # the others need not stay with them
            assert len(column) == len(part.samples)
    joined = join(parts)
    order = [0, 1, 2, 4, 3]
    assert joined.samples == [whole.samples[i] for i in order]
    for name, column in whole.columns.items():
        assert torch.equal(joined.columns[name], column[order]), name
    assert whole.part(range(5)) is whole  # nothing is copied where nothing is left out
    assert join([whole]) is whole
