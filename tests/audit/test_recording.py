from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import pytest
import torch

from memrecon_fast import Status, metrics
from memrecon_fast.audit.recording import Job, Truth, records_of
from memrecon_fast.audit.store.records import MAX_PSNR, Cell
from memrecon_fast.engine.samples import Finished

CELL = Cell("members", "center", "accelerated")


def finished(count: int, shape: tuple[int, ...], cell: Cell = CELL, unknown: bool = False) -> list[Finished]:
    """Estimates nearer and nearer to what they were, beyond [0, 1] too; the first has a NaN, the last is exact."""
    generator = torch.Generator().manual_seed(count)
    made = []
    for i in range(count):
        original, noise = torch.rand(2, *shape, generator=generator)
        mask, true_mask = torch.rand(2, *shape, generator=generator) < 0.5
        estimate = original + (noise - 0.5) * (0.0 if i == count - 1 else 10.0 ** (1 - i / 2))
        if i == 0:
            estimate.view(-1)[-1] = torch.nan
        job = Job(cell, f"{i}.png", f"{i:064x}", original * mask, None if unknown else Truth(original, true_mask))
        status = Status.DIVERGED if i == 0 else Status.CONVERGED
        made.append(Finished(i, estimate, mask, 3, 9, status, 1e-10, gamma=0.5, score=1e-9, label=job))
    return made


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 5), (3, 110, 130)])
def test_errors_are_those_of_the_metrics(shape: tuple[int, ...]) -> None:
    images = finished(20, shape)
    for one, record in zip(images, records_of(images), strict=True):
        truth = one.label.truth
        mse = metrics.mse(one.image[None], truth.image[None]).item()
        clipped = torch.nan_to_num(one.image[None], nan=0.0).clamp(0, 1)
        psnr = min(metrics.psnr(clipped, truth.image[None]).item(), MAX_PSNR)
        # sums of float64 in another order
        assert record.mse == pytest.approx(mse, rel=1e-13, nan_ok=True)
        assert record.psnr == pytest.approx(psnr, rel=1e-13)
        assert record.wrong_mask_share == pytest.approx((one.mask != truth.mask).double().mean().item(), rel=1e-13)
        colour = truth.image.double().mean(dim=(1, 2), keepdim=True)
        assert record.flat_mse == pytest.approx((truth.image - colour).square().mean().item(), rel=1e-12)
        diverged = one.status == Status.DIVERGED
        assert record.accurate == (not diverged and mse < metrics.ACCURATE_MSE)
        assert record.approximate == (not diverged and mse < metrics.APPROXIMATE_MSE)
    assert record.psnr == MAX_PSNR  # the last one is exact
    assert record.accurate


@pytest.fixture
def two_threads() -> Iterator[None]:
    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(usual)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("shape", [(3, 7, 5), (3, 110, 130)])
def test_a_record_is_the_same_bits_whatever_the_others_are(shape: tuple[int, ...]) -> None:
    """On several threads torch splits a large sum where it is alone, and not where there are others."""
    images = finished(20, shape)
    together = [repr(record) for record in records_of(images)]
    assert [repr(record) for one in images for record in records_of([one])] == together
    assert [repr(record) for record in records_of(images[::-1])] == together[::-1]
    assert [repr(record) for begin in (0, 7) for record in records_of(images[begin : begin + 7])] == together[:14]
    assert records_of([]) == []


def test_where_the_original_is_unknown_there_are_no_errors() -> None:
    for record in records_of(finished(3, (3, 4, 4), unknown=True)):
        assert record.mse is record.psnr is record.accurate is record.approximate is record.wrong_mask_share is None


def test_only_methods_that_estimate_a_mask_can_get_it_wrong() -> None:
    (record,) = records_of(finished(1, (3, 4, 4), dataclasses.replace(CELL, method="known-mask")))
    assert record.wrong_mask_share is None
    assert record.mse is not None
    assert math.isnan(record.mse)
