from __future__ import annotations

import math

import pytest
import torch

from memrecon_fast import Status
from memrecon_fast.solvers.slots import RUNNING, Slots, clear, common_buffers, judge, move, narrow


def run(residuals: list[float], *, patience: int, limit: int, first_comparison: int) -> tuple[list[int], Slots]:
    """The status after each residual, with a tolerance of 1, until the work ends."""
    slots = Slots(**common_buffers(1, 2, torch.device("cpu")))
    clear(slots)
    seen = []
    for residual in residuals:
        slots.residual.fill_(residual)
        judge(slots, tolerance=1.0, patience=patience, limit=limit, first_comparison=first_comparison)
        seen.append(int(slots.status[0]))
        if seen[-1] != RUNNING:
            break
    return seen, slots


@pytest.mark.parametrize(
    ("residuals", "patience", "limit", "first", "expected", "end"),
    [
        ([0.5, 0.5, 0.5], 2, 9, 1, 2, Status.CONVERGED),
        ([0.5, 0.5, 0.5, 0.5], 2, 9, 2, 3, Status.CONVERGED),  # the first estimate has nothing to be compared with
        ([0.5, 2.0, 0.5, 0.5], 2, 9, 1, 4, Status.CONVERGED),  # running means without a break
        ([1.0, 1.0, 1.0], 1, 3, 1, 3, Status.MAX_ITERATIONS),  # below, not at, the tolerance
        ([0.5, 0.5, 0.5], 3, 3, 1, 3, Status.CONVERGED),  # at the limit, converged counts more
        ([0.5, math.nan], 1, 9, 3, 2, Status.DIVERGED),
        ([math.inf], 1, 1, 2, 1, Status.DIVERGED),
    ],
)
def test_when_the_work_on_an_image_ends(
    residuals: list[float], patience: int, limit: int, first: int, expected: int, end: Status
) -> None:
    seen, slots = run(residuals, patience=patience, limit=limit, first_comparison=first)
    assert seen == [RUNNING] * (expected - 1) + [end]
    assert slots.iterations.tolist() == [expected]


def test_the_residual_is_nan_before_the_first_comparison() -> None:
    _, slots = run([0.5], patience=1, limit=9, first_comparison=2)
    assert slots.residual.isnan().all()


def test_views_and_moves() -> None:
    slots = Slots(**common_buffers(4, 3, torch.device("cpu")))
    clear(narrow(slots, 1, 3))
    assert slots.status.tolist() == [0, RUNNING, RUNNING, 0]
    slots.x[2] = 7
    slots.iterations[2] = 5
    move(slots, 2, 0)
    assert slots.x[:, 0].tolist() == [7, 0, 7, 0]
    assert slots.iterations.tolist() == [5, 0, 5, 0]
    assert slots.status.tolist() == [RUNNING, RUNNING, RUNNING, 0]
