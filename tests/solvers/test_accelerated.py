from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import memrecon_fast as mf
from memrecon_fast import Recovery, Settings, Status, degradation, metrics, reference
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.inflight import InFlight
from memrecon_fast.engine.samples import Finished, Sample
from memrecon_fast.ops.anderson import AndersonState, plain
from memrecon_fast.recovery import prepare_recover
from memrecon_fast.solvers.accelerated import AcceleratedSolver
from tests.helpers.memorised import Memorised

SHAPE = (3, 8, 8)
BACKENDS = [name for name, state in mf.backends().items() if state == "available"]
FUNCTIONS = ("measure", "estimate", "stop", "weigh", "mix")


def accelerated(**changes: Any) -> Settings:
    return Settings(solver="accelerated", **changes)


def prepare(autoencoder: Autoencoder, shape: tuple[int, ...], settings: Settings, **options: Any) -> AcceleratedSolver:
    solver = prepare_recover(autoencoder, shape, settings, **options)
    assert isinstance(solver, AcceleratedSolver)
    return solver


def with_functions(solver: AcceleratedSolver, **changed: Any) -> AcceleratedSolver:
    """The solver with some functions of ops/anderson replaced."""
    functions: Any = SimpleNamespace(**{name: getattr(plain, name) for name in FUNCTIONS} | changed)
    return dataclasses.replace(solver, ops=dataclasses.replace(solver.ops, anderson=functions))


def run(solver: AcceleratedSolver, samples: list[Sample], slots: int = 16) -> dict[int, Finished]:
    return {one.index: one for one in InFlight(solver, slots).stream(samples)}


def assert_same_recovery(got: Recovery, oracle: Recovery, originals: Tensor, settings: Settings) -> None:
    """The contract with the literal twin.

    Verdicts are equal, with the originals and without. What is recovered was found in the same attempt, with the same
    status; estimates agree per pixel to three times what they stand still to, the root of the tolerance. Forward passes
    of one row and of many differ in the last bits. Without extrapolation these do not grow, and all counters agree
    exactly, but for the changes of a mask at pixels that are 0: estimates lie on both sides of such a tie of the mask
    rule. With it they do, as it divides by small differences of residuals; and where a residual is just at the
    tolerance, or a pixel at a tie of the mask rule, they cost an estimate or a few: two in an attempt, but for one
    image. What is not recovered may wander to another place.
    """
    for threshold in (metrics.ACCURATE_MSE, metrics.APPROXIMATE_MSE):
        verdicts = [metrics.mse(result.images, originals) < threshold for result in (got, oracle)]
        assert torch.equal(*verdicts)
    recognized = [result.score < 1e-4 for result in (got, oracle)]
    assert torch.equal(*recognized)
    recovered = recognized[0] & verdicts[0]
    assert recovered.sum() >= 4  # of 6 members or more
    exact = ["attempts", "status"]
    if settings.recognized_below:
        exact.append("gamma")  # otherwise the last bits decide between equally good ones
    if not settings.memory:
        exact += ["evaluations", "outer_iterations", "accepted", "rejected"]
        no_ties = recovered & (originals != 0).flatten(1).all(dim=1)
        assert torch.equal(got.mask_changes[no_ties], oracle.mask_changes[no_ties])
    for name in exact:
        assert torch.equal(getattr(got, name)[recovered], getattr(oracle, name)[recovered]), name
    atol = 3.2 * math.sqrt(settings.stop_below)
    torch.testing.assert_close(got.images[recovered], oracle.images[recovered], rtol=0, atol=atol)
    assert (got.masks == oracle.masks)[recovered].float().mean() > 0.999
    more = (got.evaluations - oracle.evaluations).abs()[recovered]
    assert (more > 2 * settings.mask_period * oracle.attempts[recovered]).sum() <= 1
    assert more.sum() <= 0.1 * oracle.evaluations[recovered].sum()


CASES: list[tuple[str, dict[str, Any]]] = [
    ("center", {}),
    ("random-80", {"gamma": 0.1}),
    ("half", {"gamma": 0.5, "initial_mask": "zeros"}),
    ("stripes", {"gamma": 1.0, "mask_period": 5}),
    ("corner", {"gamma": 0.5, "mask_period": 1}),
    ("random-50", {"gamma": (0.2, 1.0), "starts": 2}),
    ("center", {"gamma": (0.1, 0.5), "starts": 2, "recognized_below": 0.0, "initial_mask": "zeros"}),
    ("half", {"memory": 0, "gamma": 0.5}),
    ("random-80", {"memory": 0, "gamma": 0.2, "mask_period": 5}),
    ("center", {"memory": 2, "settle": 0, "gamma": 0.5}),
    ("center", {"gamma": 0.5, "restore_known_pixels": False, "max_outer_iterations": 12}),
]


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(("name", "choice"), CASES)
def test_recovery_agrees_with_the_literal_twin(
    memorised: Memorised, name: str, choice: dict[str, Any], known: bool
) -> None:
    images = torch.cat([memorised.members[:6], memorised.controls[:2]])
    mask = degradation.make_mask(name, SHAPE)
    degraded = degradation.erase(images, mask)
    settings = accelerated(**{"max_outer_iterations": 60, **choice})
    given = mask if known else None
    oracle = reference.recover(memorised.autoencoder, degraded, given, settings)
    for backend in BACKENDS:
        got = mf.recover(memorised.autoencoder, degraded, given, settings, backend=backend)
        assert got.backend == backend
        assert_same_recovery(got, oracle, images, settings)


def test_what_makes_no_progress_is_given_up_where_the_literal_twin_gives_it_up(memorised: Memorised) -> None:
    images = torch.cat([memorised.members[:4], memorised.controls[:8]])
    degraded = degradation.erase(images, degradation.make_mask("half", SHAPE))
    settings = accelerated(memory=0, gamma=0.5, stall=4)  # without extrapolation last bits do not grow
    oracle = reference.recover(memorised.autoencoder, degraded, settings=settings)
    assert (oracle.status == Status.STALLED).sum() >= 4
    for backend in BACKENDS:
        got = mf.recover(memorised.autoencoder, degraded, settings=settings, backend=backend)
        for name in ("status", "outer_iterations", "evaluations"):
            assert torch.equal(getattr(got, name), getattr(oracle, name)), name
        torch.testing.assert_close(got.images, oracle.images, rtol=0, atol=1e-4)


def test_noisy_images_agree_with_the_literal_twin(memorised: Memorised) -> None:
    images = memorised.members[:8]
    degraded = degradation.erase(images, degradation.make_mask("center", SHAPE), noise_std=0.01, seed=1)
    assert (degraded < 0).any()
    settings = accelerated(gamma=0.5, restore_known_pixels=False, max_outer_iterations=40)
    oracle = reference.recover(memorised.autoencoder, degraded, settings=settings)
    for backend in BACKENDS:
        got = mf.recover(memorised.autoencoder, degraded, settings=settings, backend=backend)
        assert_same_recovery(got, oracle, images, settings)


def test_a_block_is_as_many_evaluations_as_the_mask_is_kept_for(memorised: Memorised) -> None:
    """And begins where the paper's does: without history, one block of K − 1 evaluations ends at the same ξ."""
    settings = accelerated(gamma=0.1, mask_period=39, settle=10)
    solver = prepare(memorised.autoencoder, SHAPE, settings)
    degraded = degradation.erase(memorised.members[:8], degradation.make_mask("half", SHAPE))
    slots = solver.allocate(8)
    masks = torch.stack([settings.draw_initial_mask(i, SHAPE) for i in range(8)])
    with torch.inference_mode():
        solver.admit(slots, [solver.stage(Sample(i, y)) for i, y in enumerate(degraded)])
        assert torch.equal(slots.mask.view_as(masks), masks)
        solver.advance(slots)
        x = reference.admm(memorised.autoencoder, degraded, masks, 0.1, 40)
    # 39 float32 iterations of a map that contracts near its attractors: rounding does not add up beyond 1e-4
    torch.testing.assert_close(slots.x.view_as(x), x, rtol=0, atol=1e-4)
    assert (slots.mask.view_as(masks) == reference.estimate_mask(x, degraded)).float().mean() > 0.999
    assert slots.iterations.tolist() == [1] * 8


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("name", ["center", "random-80", "corner"])
def test_extrapolation_takes_fewer_evaluations_for_what_is_recovered_either_way(
    memorised: Memorised, name: str, known: bool
) -> None:
    mask = degradation.make_mask(name, SHAPE)
    degraded = degradation.erase(memorised.members, mask)
    results = [
        mf.recover(memorised.autoencoder, degraded, mask if known else None, accelerated(gamma=0.2, memory=memory))
        for memory in (5, 0)
    ]
    both = torch.stack([metrics.mse(one.images, memorised.members) < metrics.ACCURATE_MSE for one in results]).all(0)
    assert both.sum() >= 5
    needed = [one.evaluations[both].sum().item() for one in results]
    assert needed[0] < 0.8 * needed[1]
    assert (results[0].accepted[both] > 0).all()
    assert not results[1].accepted.any()


def slowly_then_away(x: Tensor) -> Tensor:
    """Each pixel goes up by nearly the same each time until it is at 0.8, and then converges to 1.

    The line through two of its first residuals crosses zero near 100; and from beyond 3 it only goes up, for good.
    """
    slow = torch.minimum(0.1 - 0.001 * x, 0.5 * (1 - x))
    return x + torch.where(x < 3, slow, 1.0 + 0 * x)


def never_rejecting(state: AndersonState, **how: int) -> None:
    """`weigh` without its safeguard."""
    state.extrapolated.zero_()
    plain.weigh(state, **how)


def test_the_safeguard_brings_back_what_extrapolation_carries_away() -> None:
    settings = accelerated(
        gamma=0.5, max_outer_iterations=60, mask_period=3, stall=60, settled_counts=1
    )  # time to get away
    solver = prepare(slowly_then_away, (5,), settings, known_masks=True)
    unsafe = with_functions(solver, weigh=never_rejecting)
    plain_steps = prepare(slowly_then_away, (5,), dataclasses.replace(settings, memory=0), known_masks=True)
    erased = Sample(0, torch.zeros(5), mask=torch.zeros(5, dtype=torch.bool))
    with_safeguard, without, unaccelerated = (run(one, [erased])[0] for one in (solver, unsafe, plain_steps))
    assert without.status != Status.CONVERGED
    assert not (without.image - 1).abs().min() < 10
    for one in (with_safeguard, unaccelerated):
        torch.testing.assert_close(one.image, torch.ones(5), rtol=0, atol=1e-3)
        assert one.status == Status.CONVERGED
    assert with_safeguard.rejected >= 1
    assert with_safeguard.accepted >= 1


def test_an_exactly_converged_image_leaves_all_others_as_they_are(memorised: Memorised) -> None:
    """Black images are fixed points from the start: all their residuals are zero, all their systems singular."""

    def f(x: Tensor) -> Tensor:
        black = (x == 0).flatten(1).all(dim=1)
        return torch.where(black[:, None, None, None], 0.0, memorised.autoencoder(x))

    degraded = degradation.erase(memorised.members[:9], degradation.make_mask("center", SHAPE))
    with_black = degraded.clone()
    with_black[[2, 5]] = 0
    others = torch.tensor([i for i in range(9) if i not in (2, 5)])
    settings = accelerated(gamma=0.5, tolerance=0.0, max_outer_iterations=30)
    for backend in BACKENDS:
        got, expected = (mf.recover(f, y, settings=settings, backend=backend) for y in (with_black, degraded))
        for name in ("images", "masks", "evaluations", "accepted", "rejected", "mask_changes", "residual", "status"):
            assert torch.equal(getattr(got, name)[others], getattr(expected, name)[others]), name
        assert (got.accepted[others] > 0).all()
        assert not got.images[[2, 5]].any()
        assert got.residual[[2, 5]].tolist() == [0, 0]
        assert got.accepted[[2, 5]].tolist() == [0, 0]


@pytest.mark.parametrize("tolerance", [1e-9, 1e-6, 0.0])
@pytest.mark.parametrize("name", ["corner", "random-80"])
def test_of_an_image_that_does_not_converge_the_estimate_with_the_lowest_score_is_returned(
    memorised: Memorised, name: str, tolerance: float
) -> None:
    images = torch.cat([memorised.members[:4], memorised.controls[:8]])
    degraded = degradation.erase(images, degradation.make_mask(name, SHAPE))
    settings = accelerated(gamma=0.1, max_outer_iterations=25, tolerance=tolerance, restore_known_pixels=False)
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def recording(state: AndersonState, v: Tensor, **how: bool) -> None:
        plain.estimate(state, v, **how)
        x, y, mask = state.x, state.y, state.mask
        misfit = torch.where(mask, y - x, y)
        score = ((v - x).double().square() + misfit.double().square()).mean(dim=1)
        seen.append((score, x.clone(), mask.clone()))

    solver = with_functions(prepare(memorised.autoencoder, SHAPE, settings), estimate=recording)
    slots = solver.allocate(12)
    with torch.inference_mode():
        solver.admit(slots, [solver.stage(Sample(i, y)) for i, y in enumerate(degraded)])
        for _ in range(25):
            solver.advance(slots)
        results = solver.results(slots, torch.arange(12), [])
    converged = results.status == Status.CONVERGED
    assert (~converged).sum() >= (12 if tolerance == 0 else 2)
    scores = torch.stack([score for score, _, _ in seen])
    for row in range(12):
        # what converged changes no more: its last estimate is that of the end
        which = len(seen) - 1 if converged[row] else int(scores[:, row].argmin())
        assert torch.equal(results.images[row], seen[which][1][row])
        assert torch.equal(results.masks[row], seen[which][2][row])
    assert (scores.argmin(dim=0)[~converged] < 24).any()


def explode(x: Tensor) -> Tensor:
    return 1e30 * (1 + x.abs())


@pytest.mark.parametrize(("f", "memory"), [(lambda x: 3 * x + 1, 0), (explode, 5), (explode, 0)])
@pytest.mark.parametrize("known", [False, True])
def test_an_unbounded_map_is_reported_as_diverged_and_touches_no_other(f: Any, memory: int, known: bool) -> None:
    """By its first pixel, which is kept, f tells the images apart; it contracts for all but one of them."""
    degraded = torch.rand(10, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.3
    mask = degradation.make_mask("half", (1, 4, 4)) if known else None

    def contract(x: Tensor) -> Tensor:
        return 0.5 * x + 0.2

    def mixed(x: Tensor) -> Tensor:
        bright = x.flatten(1).abs().amax(dim=1) > 0.75
        return torch.where(bright[:, None, None, None], f(x), contract(x))

    degraded[3] = 0.95
    if mask is not None:
        degraded = degradation.erase(degraded, mask)
    settings = accelerated(gamma=0.1, memory=memory, max_outer_iterations=60, stall=60)
    others = torch.arange(10) != 3
    for backend in BACKENDS:
        got = mf.recover(mixed, degraded, mask, settings, backend=backend)
        expected = mf.recover(contract, degraded, mask, settings, backend=backend)
        assert got.status[3] == Status.DIVERGED
        assert (got.status[others] != Status.DIVERGED).all()
        for name in ("images", "masks", "evaluations", "status", "residual", "fixed_point_mse", "misfit"):
            assert torch.equal(getattr(got, name)[others], getattr(expected, name)[others]), name
        oracle = reference.recover(mixed, degraded, mask, settings)
        assert torch.equal(got.status, oracle.status)
        assert got.evaluations[3] == oracle.evaluations[3]


def test_an_image_goes_on_from_the_state_that_another_solver_left(memorised: Memorised) -> None:
    solver = prepare(memorised.autoencoder, SHAPE, accelerated(gamma=0.5))
    state = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))
    mask = degradation.make_mask("half", SHAPE)
    samples = [Sample(0, state * 0.5), Sample(1, state * 0.5, initial_mask=mask, initial_state=state)]
    slots = solver.allocate(4)
    with torch.inference_mode():
        solver.admit(slots.narrow(2), [solver.stage(sample) for sample in samples])
    assert torch.equal(slots.s[1].view(SHAPE), state)
    assert torch.equal(slots.mask[1].view(SHAPE), mask)
    torch.testing.assert_close(slots.s[0], torch.where(slots.mask[0], slots.y[0] / 1.25, 0.0), rtol=1e-6, atol=0)


@pytest.mark.parametrize("known", [False, True])
def test_what_was_in_a_slot_before_is_forgotten(memorised: Memorised, known: bool) -> None:
    solver = prepare(memorised.autoencoder, SHAPE, accelerated(gamma=0.5), known_masks=known)
    degraded = degradation.erase(memorised.members[:4], mask := degradation.make_mask("center", SHAPE))
    staged = [solver.stage(Sample(i, y, mask if known else None)) for i, y in enumerate(degraded)]
    tables = [solver.allocate(4), solver.allocate(4)]
    for tensor in tables[1].tensors().values():
        tensor.fill_(torch.nan if tensor.is_floating_point() else 1)
    with torch.inference_mode():
        for slots in tables:
            solver.admit(slots, staged)
            assert slots.held.tolist() == [2 * known] * 4  # a known mask has held from the start
            for _ in range(8):
                solver.advance(slots)
        results = [solver.results(slots, torch.arange(4), []).columns for slots in tables]
    assert results[0].keys() == results[1].keys()
    for name, tensor in results[0].items():
        assert torch.equal(tensor, results[1][name]), name


def test_the_memory_of_a_slot_is_what_is_documented(memorised: Memorised) -> None:
    for memory in (0, 3, 5):
        slots = prepare(memorised.autoencoder, SHAPE, accelerated(memory=memory)).allocate(1)
        pixels = math.prod(SHAPE)
        per_pixel = sum(tensor.nbytes for tensor in slots.tensors().values() if tensor.shape[-1] == pixels) / pixels
        assert per_pixel == 18 + 8 * (memory + 1)


def test_a_sample_without_its_mask_is_named(memorised: Memorised) -> None:
    solver = prepare(memorised.autoencoder, SHAPE, accelerated(), known_masks=True)
    with pytest.raises(ValueError, match="image 17 comes without its mask"):
        solver.stage(Sample(17, torch.zeros(SHAPE)))
