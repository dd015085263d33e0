from __future__ import annotations

import pytest
import torch

from memrecon_fast import Settings
from memrecon_fast.solvers.attempts import begin, count_attempts, gamma_rows
from memrecon_fast.solvers.samples import Sample

SHAPE = (3, 4, 4)
SETTINGS = Settings(gamma=(0.1, 0.5, 1.0), starts=2, initial_mask="zeros")


def test_all_gammas_come_with_the_first_initial_mask_before_any_other() -> None:
    assert count_attempts(SETTINGS, known_masks=False) == 6
    tried = [begin(Sample(7, torch.zeros(SHAPE), attempt=i), SETTINGS, SHAPE, False) for i in range(6)]
    assert [gamma for gamma, _ in tried] == [0.1, 0.5, 1.0] * 2
    for i, (_, mask) in enumerate(tried):
        assert torch.equal(mask, SETTINGS.draw_initial_mask(7, SHAPE, start=i // 3))
    assert not tried[0][1].any()
    assert tried[3][1].any()


def test_a_known_mask_leaves_no_choice_but_gamma() -> None:
    assert count_attempts(SETTINGS, known_masks=True) == 3
    mask = torch.rand(SHAPE) < 0.5
    tried = [begin(Sample(7, torch.zeros(SHAPE), mask, attempt=i), SETTINGS, SHAPE, True) for i in range(3)]
    assert [gamma for gamma, _ in tried] == [0.1, 0.5, 1.0]
    assert all(one is mask for _, one in tried)


def test_a_mask_that_was_found_before_is_begun_with() -> None:
    mask = torch.rand(SHAPE) < 0.5
    assert begin(Sample(7, torch.zeros(SHAPE), initial_mask=mask), SETTINGS, SHAPE, False)[1] is mask


@pytest.mark.parametrize("gamma", [0.1, 1 / 3, 1e-9])
def test_what_the_operations_need_of_gamma_is_rounded_once(gamma: float) -> None:
    rows = gamma_rows(gamma)
    assert rows["gamma"].item() == torch.tensor(gamma).item()
    assert rows["coefficients"].tolist() == torch.tensor([gamma / 2, gamma / 2 - 1, 1 / (1 + gamma / 2)]).tolist()
