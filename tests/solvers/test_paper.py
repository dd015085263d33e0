from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import memrecon_fast as mf
from memrecon_fast import Settings, Status, degradation, reference
from memrecon_fast.engine.inflight import InFlight
from memrecon_fast.engine.samples import Sample
from memrecon_fast.ops.admm import AdmmState, plain
from memrecon_fast.recovery import prepare_recover
from memrecon_fast.solvers.paper import PaperSolver
from tests.helpers.memorised import Memorised

SHAPE = (3, 8, 8)


def prepare(memorised: Memorised, settings: Settings, **options: Any) -> PaperSolver:
    solver = prepare_recover(memorised.autoencoder, SHAPE, settings, **options)
    assert isinstance(solver, PaperSolver)
    return solver


def load_members(memorised: Memorised, settings: Settings, count: int = 8) -> tuple[Tensor, list[Sample]]:
    degraded = degradation.erase(memorised.members[:count], degradation.make_mask("half", SHAPE))
    return degraded, [Sample(i, y) for i, y in enumerate(degraded)]


def test_a_block_is_an_outer_iteration_of_the_literal_form(memorised: Memorised) -> None:
    settings = Settings(solver="paper", gamma=0.1)
    solver = prepare_recover(memorised.autoencoder, SHAPE, settings)
    degraded, samples = load_members(memorised, settings)
    slots = solver.allocate(8)
    masks = torch.stack([settings.draw_initial_mask(i, SHAPE) for i in range(8)])
    with torch.inference_mode():
        solver.admit(slots, [solver.stage(sample) for sample in samples])
        assert torch.equal(slots.mask.view_as(masks), masks)
        solver.advance(slots)
        x = reference.admm(memorised.autoencoder, degraded, masks, 0.1, 40)
    # 40 float32 iterations of a map that contracts near its attractors: rounding does not add up beyond 1e-4
    torch.testing.assert_close(slots.x.view_as(x), x, rtol=0, atol=1e-4)
    assert (slots.mask.view_as(masks) == reference.estimate_mask(x, degraded)).float().mean() > 0.999


def test_the_shared_first_iteration_is_what_every_image_would_compute(memorised: Memorised) -> None:
    """Bit for bit: loading from the shared state against a block from an all-zeros mask."""
    shared = prepare(memorised, Settings(solver="paper", gamma=0.1, initial_mask="zeros"))
    _, samples = load_members(memorised, shared.settings)
    masked = [Sample(s.index, s.degraded, torch.zeros(SHAPE, dtype=torch.bool)) for s in samples]
    settings = Settings(solver="paper", gamma=0.1, restore_known_pixels=False)  # or what is erased must be 0
    known = prepare_recover(memorised.autoencoder, SHAPE, settings, known_masks=True)
    a, b = shared.allocate(8), known.allocate(8)
    with torch.inference_mode():
        shared.admit(a, [shared.stage(sample) for sample in samples])
        known.admit(b, [known.stage(sample) for sample in masked])
        known.advance(b)
    assert torch.equal(a.x, b.x)
    assert torch.equal(a.mask.view(8, *SHAPE), reference.estimate_mask(b.x.view(8, *SHAPE), b.y.view(8, *SHAPE)))
    assert a.iterations.tolist() == [1] * 8


def test_a_sample_without_its_mask_is_named(memorised: Memorised) -> None:
    solver = prepare_recover(memorised.autoencoder, SHAPE, Settings(solver="paper"), known_masks=True)
    with pytest.raises(ValueError, match="image 17 comes without its mask"):
        solver.stage(Sample(17, torch.zeros(SHAPE)))


class AllComputed(SimpleNamespace):
    """The operations, but for the knowledge that a mask was estimated before."""

    def stop(self, state: AdmmState, **rule: Any) -> None:
        for flags in (state.settled, state.recurs):
            flags.zero_()
        plain.stop(state, **rule)


@pytest.mark.parametrize("initial_mask", ["random", "zeros"])
@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"max_outer_iterations": 4},
        {"max_outer_iterations": 71},
        {"patience": 5},
        {"tolerance": 0.0},
        {"gamma": 0.1},
    ],
)
def test_what_is_not_computed_is_what_would_have_come(
    memorised: Memorised, initial_mask: str, limits: dict[str, Any]
) -> None:
    settings = Settings(**{"solver": "paper", "initial_mask": initial_mask, "max_outer_iterations": 40, **limits})
    images = torch.cat([memorised.members, memorised.controls])
    degraded = degradation.erase(images, degradation.make_mask("random-80", SHAPE))
    solver = prepare(memorised, settings)
    functions: Any = AllComputed(start=plain.start, step=plain.step, close=plain.close, mean_squares=plain.mean_squares)
    operations = dataclasses.replace(solver.ops, admm=functions)
    results = []
    for ops in (solver.ops, operations):
        stream = InFlight(dataclasses.replace(solver, ops=ops), 32).stream(Sample(i, y) for i, y in enumerate(degraded))
        results.append({one.index: one for one in stream})
    fast, full = results
    for index, one in full.items():
        assert torch.equal(fast[index].image, one.image)
        assert torch.equal(fast[index].mask, one.mask)
        assert (fast[index].outer_iterations, fast[index].status) == (one.outer_iterations, one.status)
        # sums in another order, but for what is exactly 0
        assert fast[index].residual == pytest.approx(one.residual, rel=1e-6, nan_ok=True)
    evaluations = [sum(one.evaluations for one in result.values()) for result in results]
    assert evaluations[0] < (0.85 if settings.max_outer_iterations == 4 else 0.6) * evaluations[1]


def test_an_image_that_never_stops_costs_little(memorised: Memorised) -> None:
    degraded = degradation.erase(memorised.controls, degradation.make_mask("corner", SHAPE))
    settings = Settings(solver="paper", gamma=0.1, max_outer_iterations=10_000)
    result = mf.recover(memorised.autoencoder, degraded, settings=settings)
    endless = result.status == Status.MAX_ITERATIONS
    assert endless.sum() >= 2
    assert (result.outer_iterations[endless] == 10_000).all()
    assert (result.evaluations[endless] <= 39 * 64).all()
