from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from memrecon_fast.reconstruction import Reconstruction, Verdict, judge
from memrecon_fast.results import Status

ROWS = 2.0 * torch.eye(4, dtype=torch.float64)  # of length √d


def solution(inputs: Tensor, residual: float = 1e-9, signs_known: bool = True) -> Reconstruction:
    count = len(inputs)
    return Reconstruction(
        inputs=inputs,
        coefficients=torch.ones(count).double(),
        signs_known=torch.full((count,), signs_known),
        gains=torch.full((count,), 0.1).double(),
        residual=residual,
        iterations=1,
        passes=1.0,
        status=Status.CONVERGED if residual < 1e-5 else Status.MAX_ITERATIONS,
    )


def verdicts(*solutions: Reconstruction) -> list[Verdict]:
    return [Verdict(int(one)) for one in judge(solutions).verdict]


def test_what_every_start_that_explains_has_found_is_found() -> None:
    judged = judge([solution(ROWS[:3]), solution(ROWS[[2, 0, 1]] + 0.01), solution(-ROWS[:3], residual=0.3)])
    assert judged.verdict.tolist() == [Verdict.FOUND] * 3
    assert judged.found_by.tolist() == [2, 2, 2]
    assert (judged.starts, judged.explained) == (3, 2)


def test_what_one_of_them_has_not_is_doubtful() -> None:
    assert verdicts(solution(ROWS[:2]), solution(ROWS[[0, 3]])) == [Verdict.FOUND, Verdict.DOUBTFUL]


def test_an_opposite_input_is_another_one_where_signs_are_known() -> None:
    assert verdicts(solution(ROWS[:1]), solution(-ROWS[:1])) == [Verdict.DOUBTFUL]
    assert verdicts(solution(ROWS[:1]), solution(-ROWS[:1], signs_known=False)) == [Verdict.FOUND]


def test_without_an_explanation_what_all_starts_agree_on_is_likely() -> None:
    both = solution(ROWS[:2], residual=0.2), solution(ROWS[[3, 0]], residual=0.1)
    assert verdicts(*both) == [Verdict.DOUBTFUL, Verdict.LIKELY]  # of the better one, the second


def test_what_is_certain_counts_and_its_residual_does_not() -> None:
    """Features moved, so that the true inputs leave 0.4 of θ; another start fits others to θ, and leaves 0.1."""
    certain = dataclasses.replace(solution(ROWS[:2], residual=0.4), certain=True, status=Status.CONVERGED)
    judged = judge([certain, solution(ROWS[2:], residual=0.1)])
    assert judged.best is certain
    assert judged.verdict.tolist() == [Verdict.FOUND] * 2
    assert judged.explained == 1
    assert verdicts(solution(ROWS[2:], residual=1e-7), certain) == [Verdict.FOUND] * 2


def test_one_start_agrees_with_none() -> None:
    assert verdicts(solution(ROWS[:2], residual=0.2)) == [Verdict.DOUBTFUL] * 2
    assert verdicts(solution(ROWS[:2])) == [Verdict.FOUND] * 2


def test_more_inputs_than_another_start_has() -> None:
    assert verdicts(solution(ROWS[:3], 1e-9), solution(ROWS[:2], 1e-8)) == [
        Verdict.FOUND,
        Verdict.FOUND,
        Verdict.DOUBTFUL,
    ]
