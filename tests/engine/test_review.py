from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import memrecon_fast as mf
from memrecon_fast import Settings, Status, degradation
from memrecon_fast.engine.inflight import InFlight
from memrecon_fast.engine.review import Review, score
from memrecon_fast.engine.samples import Batch, Finished, Sample
from memrecon_fast.engine.solver import Solver
from memrecon_fast.recovery import prepare_iterate, prepare_recover
from tests.helpers.memorised import Memorised

SHAPE = (3, 8, 8)
BACKENDS = [name for name, state in mf.backends().items() if state == "available"]
COUNTERS = ("evaluations", "attempts")
IN_SLOTS = ("outer_iterations", "evaluations", "accepted", "rejected", "mask_changes")


def pairs(count: int, known: bool) -> list[tuple[Sample, Finished]]:
    """Anything: estimates beyond [0, 1], noise, pixels left of what is known to be erased."""
    generator = torch.Generator().manual_seed(count)
    made = []
    for i in range(count):
        image, y = torch.randn(2, *SHAPE, generator=generator)
        mask = torch.rand(SHAPE, generator=generator) < 0.5
        finished = Finished(i, image, mask, 3, 9, Status.CONVERGED, 1e-10)
        made.append((Sample(i, y, mask if known else None), finished))
    return made


def done(pairs: list[tuple[Sample, Finished]]) -> Batch:
    """These as they come out of slots."""

    def column(name: str, dtype: torch.dtype) -> Tensor:
        return torch.tensor([getattr(finished, name) for _, finished in pairs], dtype=dtype)

    images, masks, degraded = (
        torch.stack(tensors).flatten(1)
        for tensors in zip(*[(one.image, one.mask, sample.degraded) for sample, one in pairs], strict=True)
    )
    known = pairs[0][0].mask is not None
    counters: dict[str, Any] = {name: column(name, torch.int32) for name in IN_SLOTS}
    return Batch(
        samples=[sample for sample, _ in pairs],
        images=images,
        masks=masks,
        observed=degraded * masks if known else degraded,
        status=column("status", torch.int8),
        residual=column("residual", torch.float32),
        gamma=column("gamma", torch.float64),
        **counters,
    )


def scores(one: Finished) -> tuple[float, ...]:
    return one.fixed_point_mse, one.misfit, one.explained, one.score


def score_pairs(solver: Solver, pairs: list[tuple[Sample, Finished]]) -> list[Finished]:
    with torch.inference_mode():
        scored = score(solver.prox, solver.ops, done(pairs))
    return list(scored.to_host(solver.prox).unpack())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("count", [1, 3, 17])
def test_scores_are_those_of_float64_and_the_same_bits_in_any_batch(
    memorised: Memorised, backend: str, known: bool, count: int
) -> None:
    solver = prepare_recover(memorised.autoencoder, SHAPE, known_masks=known, backend=backend)
    some = pairs(count, known)
    scored = score_pairs(solver, some)
    for (sample, before), one in zip(some, scored, strict=True):
        x, y = before.image, sample.degraded.double()
        with torch.inference_mode():
            v = memorised.autoencoder(x[None])[0]
        if known:
            y = y.masked_fill(~before.mask, 0)
        # forward passes of one row and of many differ in the last bits; sums are in float64, results float32
        assert one.fixed_point_mse == pytest.approx((v - x).double().square().mean().item(), rel=1e-5)
        assert one.misfit == pytest.approx((y - before.mask * x.double()).square().mean().item(), rel=1e-6)
        assert one.explained == pytest.approx(1 - one.misfit / y.square().mean().item(), abs=1e-6)
        assert one.score == math.inf  # estimates that explain next to nothing of what was given
        assert torch.equal(one.image, before.image)
        assert torch.equal(one.mask, before.mask)
        assert (one.index, one.status, one.evaluations) == (before.index, before.status, before.evaluations)
        (alone,) = score_pairs(solver, [(sample, before)])
        assert scores(alone) == scores(one)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("solver", ["paper", "accelerated"])
def test_the_scores_of_a_recovery_are_those_of_what_it_returns(memorised: Memorised, solver: str, known: bool) -> None:
    images = torch.cat([memorised.members[:5], memorised.controls[:5]])
    degraded = degradation.erase(images, mask := degradation.make_mask("random-50", SHAPE))
    settings = Settings(solver=solver, gamma=0.5, max_outer_iterations=12)
    got = mf.recover(memorised.autoencoder, degraded, mask if known else None, settings)
    with torch.inference_mode():
        v = memorised.autoencoder(got.images)
    expected = (v - got.images).double().square().flatten(1).mean(1)
    # at a fixed point the difference is of the size of what rounding does to it
    torch.testing.assert_close(got.fixed_point_mse.double(), expected, rtol=1e-3, atol=1e-12)
    misfit = (degraded - got.masks * got.images).double().square().flatten(1).mean(1)
    torch.testing.assert_close(got.misfit.double(), misfit, rtol=1e-6, atol=1e-15)
    assert (got.fixed_point_mse[:5] < 1e-7).all()
    torch.testing.assert_close(got.score[:5], got.fixed_point_mse[:5] + got.misfit[:5])
    assert (got.score[5:] > settings.recognized_below).all()


def test_iterates_are_scored_too(memorised: Memorised) -> None:
    degraded = degradation.erase(memorised.members[:4], degradation.make_mask("stripes", SHAPE))
    got = mf.iterate(memorised.autoencoder, degraded, max_iterations=5)
    misfit = (degraded - got.images).double().square().flatten(1).mean(1)
    torch.testing.assert_close(got.misfit.double(), misfit, rtol=1e-6, atol=0)
    assert got.gamma.isnan().all()
    assert got.attempts.tolist() == [1] * 4


def test_the_score_of_what_is_not_finite_is_nan_and_touches_no_other(memorised: Memorised) -> None:
    solver = prepare_recover(memorised.autoencoder, SHAPE)
    some = pairs(5, known=False)
    expected = score_pairs(solver, some)
    some[2][1].image[0, 0, 0] = torch.nan
    got = score_pairs(solver, some)
    assert math.isnan(got[2].score)
    others = [i for i in range(5) if i != 2]
    assert [scores(got[i]) for i in others] == [scores(expected[i]) for i in others]


def indices(scored: Batch) -> list[int]:
    return [finished.index for finished in scored.unpack()]


def test_estimates_are_scored_in_the_order_of_their_coming_as_many_as_are_asked_for(memorised: Memorised) -> None:
    review = Review(prepare_iterate(memorised.autoencoder, SHAPE))
    some = pairs(7, known=False)
    for part in (some[:1], some[1:6], some[6:]):
        review.add(done(part))
    assert review.waiting == 7
    first = review.score(3)
    assert indices(first) == [0, 1, 2]
    assert review.waiting == 4
    second = review.score(10)
    assert indices(second) == [3, 4, 5, 6]
    assert review.waiting == 0
    review.add(done(some))
    for apart, together in zip([*first.unpack(), *second.unpack()], review.score(7).unpack(), strict=True):
        assert scores(apart) == scores(together)
    assert not review.tries_again


def test_what_cannot_be_scored_still_waits(memorised: Memorised) -> None:
    fails = False

    def f(x: Tensor) -> Tensor:
        if fails:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return memorised.autoencoder(x)  # type: ignore[no-any-return]

    review = Review(prepare_iterate(f, SHAPE))
    review.add(done(pairs(7, known=False)))
    fails = True
    with pytest.raises(torch.cuda.OutOfMemoryError):
        review.score(7)
    fails = False
    assert indices(review.score(7)) == list(range(7))


KEPT = torch.tensor([[True, False], [False, False]])


def score_of_grey(grey: float) -> float:
    return torch.tensor([0.0, grey, grey, grey]).double().square().mean().float().item()


class Scripted:
    """A review of attempts whose scores are given: f(x) is 0 but for one pixel, the one that was kept, which is right
    in all estimates. So the score of an image that is grey elsewhere is that of `score_of_grey`."""

    def __init__(self, gammas: int, starts: int, recognized_below: float) -> None:
        gamma = tuple(0.1 * (i + 1) for i in range(gammas))
        self.settings = Settings(gamma=gamma, starts=starts, recognized_below=recognized_below)
        self.review = Review(self.solver())

    def solver(self) -> Solver:
        return prepare_recover(lambda x: KEPT.float().expand_as(x).clone(), (2, 2), self.settings)

    def attempt(self, sample: Sample, grey: float, evaluations: int) -> tuple[list[Finished], list[Sample]]:
        image, mask = torch.full((2, 2), grey).masked_fill(KEPT, 1.0), KEPT
        gamma = 0.1 * (sample.attempt + 1)
        finished = Finished(sample.index, image, mask, 1, evaluations, Status.CONVERGED, 0.0, gamma)
        self.review.add(done([(sample, finished)]))
        reviewed, again = self.review.decide(self.review.score(1))
        return list(reviewed.unpack()), again


@pytest.mark.parametrize(
    ("greys", "tried", "best"),
    [
        ([0.5, 0.3, 0.4, 0.2, 0.6, 0.7], 6, 3),  # all are tried; the lowest
        ([0.5, 0.3, 0.05, 0.0, 0.0, 0.0], 3, 2),  # recognised: no more
        ([0.05, 0.0, 0.0, 0.0, 0.0, 0.0], 1, 0),
        ([0.1, 0.3, 0.3, 0.3, 0.3, 0.3], 6, 0),  # the score of 0.1 is the threshold, not below it
        ([math.nan, 0.3, 0.5, math.nan, math.inf, 0.4], 6, 1),
        ([math.nan] * 6, 6, 5),
        ([0.3] * 6, 6, 0),  # of equal ones the first
    ],
)
def test_an_image_is_tried_until_it_is_recognised_and_its_best_estimate_kept(
    greys: list[float], tried: int, best: int
) -> None:
    scripted = Scripted(gammas=3, starts=2, recognized_below=score_of_grey(0.1))
    first = Sample(7, KEPT.float(), initial_mask=torch.ones(2, 2) > 0, iterations_before=4, evaluations_before=8)
    sample, done = dataclasses.replace(first, initial_state=torch.zeros(2, 2), label="kept"), list[Finished]()
    for number, grey in enumerate(greys[:tried]):
        done, again = scripted.attempt(sample, grey, evaluations=10 + number)
        assert bool(done) == (number == tried - 1)
        if again:
            (sample,) = again
            assert (sample.attempt, sample.index, sample.label) == (number + 1, 7, "kept")
            assert sample.initial_mask is None  # each attempt begins anew
            assert sample.initial_state is None
            assert sample.iterations_before == sample.evaluations_before == 0
    (finished,) = done
    assert finished.attempts == tried
    assert finished.evaluations == 8 + sum(10 + number for number in range(tried))
    assert finished.gamma == pytest.approx(0.1 * (best + 1))
    assert finished.image[0, 1].item() == pytest.approx(greys[best], nan_ok=True)


def test_an_estimate_that_explains_nothing_of_what_was_given_has_no_score(memorised: Memorised) -> None:
    """Where hardly a kept pixel is lighter than black, a mask of zeros explains them away, and any member would do."""
    member = memorised.members[0]
    mask = degradation.make_mask("corner", SHAPE)
    dark = degradation.erase(memorised.members[1:2], mask)[0] * 1e-4
    nothing = torch.zeros(SHAPE, dtype=torch.bool)
    solver = prepare_recover(memorised.autoencoder, SHAPE)
    finished = Finished(0, member, nothing, 3, 9, Status.CONVERGED, 1e-10)
    (one,) = score_pairs(solver, [(Sample(0, dark), finished)])
    assert one.fixed_point_mse + one.misfit < 1e-4
    assert one.explained == 0
    assert one.score == math.inf
    (black,) = score_pairs(solver, [(Sample(0, 0 * dark), finished)])
    assert black.score == math.inf


def in_flight(f: Callable[[Tensor], Tensor], settings: Settings, y: Tensor) -> list[Finished]:
    solver = prepare_recover(f, SHAPE, settings)
    return sorted(InFlight(solver, 16).stream(Sample(i, one) for i, one in enumerate(y)), key=lambda one: one.index)


@pytest.mark.parametrize(
    "choice", [{"solver": "accelerated"}, {"solver": "accelerated", "starts": 2}, {"solver": "paper"}]
)
def test_several_attempts_are_the_single_runs_until_one_is_recognised(
    memorised: Memorised, choice: dict[str, Any]
) -> None:
    """The result is that of the run with the lowest score, and counts what all those before it cost."""
    images = torch.cat([memorised.members[:6], memorised.controls[:4]])
    degraded = degradation.erase(images, degradation.make_mask("corner", SHAPE))
    settings = Settings(**choice, gamma=(1.0, 0.2), max_outer_iterations=12, recognized_below=1e-10)
    tried = in_flight(memorised.autoencoder, settings, degraded)
    recovery = mf.recover(memorised.autoencoder, degraded, settings=settings)
    single: list[list[Finished]] = []
    for attempt in range(2 * settings.starts):
        solver = prepare_recover(memorised.autoencoder, SHAPE, settings)
        samples = [Sample(i, y, attempt=attempt) for i, y in enumerate(degraded)]
        alone = {one.index: one for one in InFlight(solver, 16, reviewed=False).stream(samples)}
        single.append(score_pairs(solver, [(sample, alone[sample.index]) for sample in samples]))
    for i, one in enumerate(tried):
        runs = [each[i] for each in single]
        recognised = [run.score < settings.recognized_below for run in runs]
        count = recognised.index(True) + 1 if any(recognised) else len(runs)
        best = min(runs[:count], key=lambda run: run.score)
        assert one.attempts == count
        assert one.evaluations == sum(run.evaluations for run in runs[:count])
        assert torch.equal(one.image, best.image)
        for name in ("gamma", "outer_iterations", "status", "accepted", "rejected", "mask_changes", "score"):
            assert getattr(one, name) == getattr(best, name), name
        assert torch.equal(recovery.images[i], one.image)
        for name in (*COUNTERS, "gamma", "outer_iterations", "accepted", "fixed_point_mse", "misfit"):
            assert getattr(recovery, name)[i].item() == getattr(one, name), name
    assert len({one.attempts for one in tried}) > 1
    assert len({one.gamma for one in tried}) > 1


def test_the_shared_first_iteration_of_the_paper_is_that_of_every_gamma(memorised: Memorised) -> None:
    """From an all-zeros mask it depends on no γ: two γ in one run, and each alone."""
    degraded = degradation.erase(memorised.members, degradation.make_mask("center", SHAPE))
    settings = Settings(
        solver="paper", initial_mask="zeros", gamma=(0.1, 1.0), recognized_below=0.0, max_outer_iterations=12
    )
    both = mf.recover(memorised.autoencoder, degraded, settings=settings)
    alone = [
        mf.recover(memorised.autoencoder, degraded, settings=dataclasses.replace(settings, gamma=gamma))
        for gamma in (0.1, 1.0)
    ]
    scores = torch.stack([one.score for one in alone])
    assert torch.equal(both.score, scores.amin(dim=0))
    assert torch.equal(both.evaluations, alone[0].evaluations + alone[1].evaluations)
    assert both.attempts.tolist() == [2] * 16
