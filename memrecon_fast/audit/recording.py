"""What came of images compared with what they were: a record of each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memrecon_fast import metrics
from memrecon_fast.audit.store.records import MAX_PSNR, Cell, Record
from memrecon_fast.engine.samples import Finished
from memrecon_fast.images.nearest import NONE, Nearest
from memrecon_fast.methods import METHODS
from memrecon_fast.results import Status

_AT_ONCE = 16  # few enough for the caches, many enough for the cost of a call not to count


@dataclasses.dataclass(frozen=True)
class Truth:
    """What was degraded, and how."""

    image: Tensor
    mask: Tensor


@dataclasses.dataclass(frozen=True)
class Job:
    """What is known of an image before it is recovered; the label of its `Sample`."""

    cell: Cell
    name: str
    sha256: str
    degraded: Tensor
    truth: Truth | None
    """None where the original is unknown, of all images of a run or of none."""


@dataclasses.dataclass(frozen=True)
class _Errors:
    mse: float | None = None
    psnr: float | None = None
    wrong_mask_share: float | None = None
    erased_mse: float | None = None
    flat_mse: float | None = None


@dataclasses.dataclass(frozen=True)
class _Member:
    """What member an estimate is nearest to; of infinite error, if none is near."""

    index: int | None = None
    mse: float | None = None
    shown_mse: float | None = None


def records_of(finished: Sequence[Finished], members: Nearest | None = None) -> list[Record]:
    """The record of each of these images, which does not depend on the others; their labels are `Job`s.

    members: what to compare the estimates with; None where that says nothing, as the originals are unknown.
    """
    nearest = [_Member()] * len(finished) if members is None else _nearest(finished, members)
    records = []
    for begin in range(0, len(finished), _AT_ONCE):
        some, near = finished[begin : begin + _AT_ONCE], nearest[begin : begin + _AT_ONCE]
        records += [_record(*one) for one in zip(some, _errors(some), near, strict=True)]
    return records


def _nearest(finished: Sequence[Finished], members: Nearest) -> list[_Member]:
    found = [_Member()] * len(finished)
    which = [at for at, one in enumerate(finished) if one.status != Status.DIVERGED]
    if not which:
        return found
    index, mse = members.of(torch.stack([finished[at].image for at in which]))
    for at, nearest, error in zip(which, index.tolist(), mse.tolist(), strict=True):
        if math.isinf(error):
            found[at] = _Member(mse=error)
        elif nearest != NONE:
            shown = metrics.mse_of_rows(_rows([finished[at].label.degraded]), _rows([members[nearest]]))
            found[at] = _Member(nearest, error, shown.item())
    return found


def _errors(finished: Sequence[Finished]) -> list[_Errors]:
    truths = [one.label.truth for one in finished]
    images, masks = _rows([one.image for one in finished]), _rows([one.mask for one in finished])
    if truths[0] is None:
        return [_Errors(erased_mse=erased) for erased in _erased(images, masks)]
    originals, true_masks = _rows([truth.image for truth in truths]), _rows([truth.mask for truth in truths])
    mse = metrics.mse_of_rows(images, originals)
    psnr = metrics.psnr_of(metrics.clipped_mse_of_rows(images, originals))
    wrong = (masks != true_masks).mean(axis=1)
    within = originals.reshape(len(originals), len(truths[0].image), -1).astype(np.float64).var(axis=2).mean(axis=1)
    erased = _erased(originals, true_masks)
    columns = (mse.tolist(), np.minimum(psnr, MAX_PSNR).tolist(), wrong.tolist(), erased, within.tolist())
    return [_Errors(*values) for values in zip(*columns, strict=True)]


def _rows(tensors: Sequence[Tensor]) -> NDArray[Any]:
    return torch.stack(tuple(tensors)).flatten(1).numpy()


def _erased(images: NDArray[np.float32], masks: NDArray[np.bool_]) -> list[float]:
    """‖(1 − H)x‖²/d of each row; infinite where x is not finite."""
    erased = metrics.mse_of_rows(np.where(masks, np.float32(0), images), np.zeros_like(images))
    return np.where(np.isnan(erased), np.inf, erased).tolist()  # type: ignore[no-any-return]


def _record(one: Finished, errors: _Errors, member: _Member) -> Record:
    job: Job = one.label
    diverged = one.status == Status.DIVERGED
    accurate = approximate = None
    if errors.mse is not None:
        accurate = not diverged and errors.mse < metrics.ACCURATE_MSE
        approximate = not diverged and errors.mse < metrics.APPROXIMATE_MSE
    return Record(
        index=one.index,
        name=job.name,
        sha256=job.sha256,
        split=job.cell.split,
        mask=job.cell.mask,
        method=job.cell.method,
        mse=errors.mse,
        psnr=errors.psnr,
        accurate=accurate,
        approximate=approximate,
        diverged=diverged,
        status=one.status.name,
        outer_iterations=one.outer_iterations,
        evaluations=one.evaluations,
        residual=one.residual,
        wrong_mask_share=errors.wrong_mask_share if METHODS[job.cell.method].traits.is_blind else None,
        fixed_point_mse=one.fixed_point_mse,
        misfit=one.misfit,
        explained=one.explained,
        score=one.score,
        gamma=None if math.isnan(one.gamma) else one.gamma,
        attempts=one.attempts,
        accepted=one.accepted,
        rejected=one.rejected,
        mask_changes=one.mask_changes,
        erased_mse=errors.erased_mse,
        nearest_member=member.index,
        nearest_member_mse=member.mse,
        shown_member_mse=member.shown_mse,
        flat_mse=errors.flat_mse,
    )
