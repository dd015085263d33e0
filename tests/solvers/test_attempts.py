from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from memrecon_fast import Settings
from memrecon_fast.engine.prox import make_prox
from memrecon_fast.engine.samples import Sample, Staged
from memrecon_fast.ops.admm import SplitState
from memrecon_fast.solvers.attempts import admit_staged, count_attempts, stage

SHAPE = (3, 4, 4)
SETTINGS = Settings(gamma=(0.1, 0.5, 1.0), starts=2, initial_mask="zeros")
PROX = make_prox(nn.Identity().eval(), SHAPE, torch.device("cpu"))


def attempt(known_masks: bool = False, settings: Settings = SETTINGS, first_twice: bool = False, **of: Any) -> Staged:
    return stage(Sample(7, torch.zeros(SHAPE), **of), settings, PROX, known_masks, first_twice)


def test_all_gammas_come_with_the_first_initial_mask_before_any_other() -> None:
    assert count_attempts(SETTINGS, known_masks=False) == 6
    tried = [attempt(attempt=i) for i in range(6)]
    assert [one.gamma for one in tried] == [0.1, 0.5, 1.0] * 2
    for i, one in enumerate(tried):
        assert torch.equal(one.images["mask"], SETTINGS.draw_initial_mask(7, SHAPE, start=i // 3))
    assert not tried[0].images["mask"].any()
    assert tried[3].images["mask"].any()


def test_what_was_begun_in_another_format_is_tried_once_more() -> None:
    assert count_attempts(SETTINGS, known_masks=False, first_twice=True) == 7
    tried = [attempt(first_twice=True, attempt=i).gamma for i in range(7)]
    assert tried == [0.1, 0.1, 0.5, 1.0, 0.1, 0.5, 1.0]


def test_a_known_mask_leaves_no_choice_but_gamma() -> None:
    assert count_attempts(SETTINGS, known_masks=True) == 3
    mask = torch.rand(SHAPE) < 0.5
    tried = [attempt(known_masks=True, mask=mask, attempt=i) for i in range(3)]
    assert [one.gamma for one in tried] == [0.1, 0.5, 1.0]
    assert all(torch.equal(one.images["mask"], mask) for one in tried)


def test_what_was_found_before_is_begun_with() -> None:
    mask, state = torch.rand(SHAPE) < 0.5, torch.rand(SHAPE)
    images = attempt(initial_mask=mask, initial_state=state).images
    assert torch.equal(images["mask"], mask)
    assert torch.equal(images["s"], state)
    assert "s" not in attempt().images


@pytest.mark.parametrize("shape", [SHAPE, (5,), (2, 3)])
def test_what_was_staged_is_loaded_and_what_the_operations_need_of_gamma_rounded_once(shape: tuple[int, ...]) -> None:
    gammas = (0.1, 1 / 3, 1e-9)
    prox = make_prox(nn.Identity().eval(), shape, torch.device("cpu"))
    images, masks = torch.rand(3, *shape), torch.rand(3, *shape) < 0.5
    samples = [Sample(i, y, initial_mask=mask) for i, (y, mask) in enumerate(zip(images, masks, strict=True))]
    staged = [stage(one, Settings(gamma=gammas[i]), prox, known_masks=False) for i, one in enumerate(samples)]
    slots = SplitState.allocate(3, prox.pixels, prox.device)
    admit_staged(staged, prox, slots)
    assert torch.equal(slots.y, images.flatten(1))
    assert torch.equal(slots.mask, masks.flatten(1))
    assert slots.gamma.tolist() == list(gammas)
    expected = [[gamma / 2, gamma / 2 - 1, 1 / (1 + gamma / 2)] for gamma in gammas]
    assert torch.equal(slots.coefficients, torch.tensor(expected))


def test_pixels_are_loaded_in_the_order_that_suits_the_autoencoder() -> None:
    prox = make_prox(nn.Conv2d(3, 3, 1).eval(), SHAPE, torch.device("cpu"))
    images = torch.rand(2, *SHAPE)
    staged = [stage(Sample(i, y), SETTINGS, prox, known_masks=False) for i, y in enumerate(images)]
    slots = SplitState.allocate(2, prox.pixels, prox.device)
    admit_staged(staged, prox, slots)
    assert torch.equal(slots.y, images.permute(0, 2, 3, 1).flatten(1))
    assert torch.equal(prox.to_images(slots.y), images)
