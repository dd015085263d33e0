from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from memrecon_fast import Settings
from memrecon_fast.prox import make_prox
from memrecon_fast.solvers.attempts import count_attempts, stage
from memrecon_fast.solvers.samples import Sample, Staged

SHAPE = (3, 4, 4)
SETTINGS = Settings(gamma=(0.1, 0.5, 1.0), starts=2, initial_mask="zeros")
PROX = make_prox(nn.Identity().eval(), SHAPE, torch.device("cpu"))


def attempt(known_masks: bool = False, settings: Settings = SETTINGS, first_twice: bool = False, **of: Any) -> Staged:
    return stage(Sample(7, torch.zeros(SHAPE), **of), settings, PROX, known_masks, first_twice)


def test_all_gammas_come_with_the_first_initial_mask_before_any_other() -> None:
    assert count_attempts(SETTINGS, known_masks=False) == 6
    tried = [attempt(attempt=i).rows for i in range(6)]
    assert [rows["gamma"].item() for rows in tried] == [0.1, 0.5, 1.0] * 2
    for i, rows in enumerate(tried):
        assert torch.equal(rows["mask"].view(SHAPE), SETTINGS.draw_initial_mask(7, SHAPE, start=i // 3))
    assert not tried[0]["mask"].any()
    assert tried[3]["mask"].any()


def test_what_was_begun_in_another_format_is_tried_once_more() -> None:
    assert count_attempts(SETTINGS, known_masks=False, first_twice=True) == 7
    tried = [attempt(first_twice=True, attempt=i).rows["gamma"].item() for i in range(7)]
    assert tried == [0.1, 0.1, 0.5, 1.0, 0.1, 0.5, 1.0]


def test_a_known_mask_leaves_no_choice_but_gamma() -> None:
    assert count_attempts(SETTINGS, known_masks=True) == 3
    mask = torch.rand(SHAPE) < 0.5
    tried = [attempt(known_masks=True, mask=mask, attempt=i).rows for i in range(3)]
    assert [rows["gamma"].item() for rows in tried] == [0.1, 0.5, 1.0]
    assert all(torch.equal(rows["mask"].view(SHAPE), mask) for rows in tried)


def test_what_was_found_before_is_begun_with() -> None:
    mask, state = torch.rand(SHAPE) < 0.5, torch.rand(SHAPE)
    rows = attempt(initial_mask=mask, initial_state=state).rows
    assert torch.equal(rows["mask"].view(SHAPE), mask)
    assert torch.equal(rows["s"].view(SHAPE), state)
    assert "s" not in attempt().rows


@pytest.mark.parametrize("gamma", [0.1, 1 / 3, 1e-9])
def test_what_the_operations_need_of_gamma_is_rounded_once(gamma: float) -> None:
    rows = attempt(settings=Settings(gamma=gamma)).rows
    assert rows["gamma"].item() == gamma
    assert rows["coefficients"].tolist() == torch.tensor([gamma / 2, gamma / 2 - 1, 1 / (1 + gamma / 2)]).tolist()
