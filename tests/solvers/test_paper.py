from __future__ import annotations

import pytest
import torch
from torch import Tensor

from memrecon_fast import Settings, degradation, reference
from memrecon_fast.recovery import prepare_recover
from memrecon_fast.solvers.samples import Sample
from tests.memorised import Memorised

SHAPE = (3, 8, 8)


def load_members(memorised: Memorised, settings: Settings, count: int = 8) -> tuple[Tensor, list[Sample]]:
    degraded = degradation.erase(memorised.members[:count], degradation.make_mask("half", SHAPE))
    return degraded, [Sample(i, y) for i, y in enumerate(degraded)]


def test_a_block_is_an_outer_iteration_of_the_literal_form(memorised: Memorised) -> None:
    settings = Settings(gamma=0.1)
    solver = prepare_recover(memorised.autoencoder, SHAPE, settings)
    degraded, samples = load_members(memorised, settings)
    slots = solver.allocate(8)
    masks = torch.stack([settings.draw_initial_mask(i, SHAPE) for i in range(8)])
    with torch.inference_mode():
        solver.load(slots, samples)
        assert torch.equal(slots.mask.view_as(masks), masks)
        solver.advance(slots)
        x = reference.admm(memorised.autoencoder, degraded, masks, 0.1, 40)
    # 40 float32 iterations of a map that contracts near its attractors: rounding does not add up beyond 1e-4
    torch.testing.assert_close(slots.x.view_as(x), x, rtol=0, atol=1e-4)
    assert (slots.mask.view_as(masks) == reference.estimate_mask(x, degraded)).float().mean() > 0.999


def test_the_shared_first_iteration_is_what_every_image_would_compute(memorised: Memorised) -> None:
    """Bit for bit: loading from the shared state against a block from an all-zeros mask."""
    shared = prepare_recover(memorised.autoencoder, SHAPE, Settings(gamma=0.1, initial_mask="zeros"))
    _, samples = load_members(memorised, shared.settings)
    masked = [Sample(s.index, s.degraded, torch.zeros(SHAPE, dtype=torch.bool)) for s in samples]
    known = prepare_recover(memorised.autoencoder, SHAPE, Settings(gamma=0.1), known_masks=True)
    a, b = shared.allocate(8), known.allocate(8)
    with torch.inference_mode():
        shared.load(a, samples)
        known.load(b, masked)
        known.advance(b)
    assert torch.equal(a.x, b.x)
    assert torch.equal(a.mask.view(8, *SHAPE), reference.estimate_mask(b.x.view(8, *SHAPE), b.y.view(8, *SHAPE)))
    assert a.iterations.tolist() == [1] * 8


def test_a_sample_without_its_mask_is_named(memorised: Memorised) -> None:
    solver = prepare_recover(memorised.autoencoder, SHAPE, known_masks=True)
    with pytest.raises(ValueError, match="image 17 comes without its mask"):
        solver.load(solver.allocate(4), [Sample(17, torch.zeros(SHAPE))])
