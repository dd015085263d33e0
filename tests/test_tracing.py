from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

import memrecon_fast as mf
from memrecon_fast import Recovery, Settings, Status, Trace, degradation, reference
from tests.helpers.memorised import Memorised

SHAPE = (3, 8, 8)
RUNNING = -1


def degrade(memorised: Memorised, mask: str = "random-80") -> Tensor:
    """8 members and 8 controls."""
    images = torch.cat([memorised.members[:8], memorised.controls[:8]])
    return degradation.erase(images, degradation.make_mask(mask, SHAPE))


def assert_same(got: Recovery, expected: Recovery) -> None:
    """Bit for bit, all columns; NaN equals NaN."""
    for field in dataclasses.fields(Recovery):
        a, b = getattr(got, field.name), getattr(expected, field.name)
        if isinstance(a, Tensor):
            assert a.dtype == b.dtype, field.name
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True, msg=field.name)
        else:
            assert a == b, field.name


def assert_consistent(trace: Trace) -> None:
    """What holds for every trace: the chosen entries are the recovery, an attempt ends once, the end is repeated."""
    result = trace.recovery
    assert len(trace.images) == trace.iterations.max()
    for i in range(len(trace.iterations)):
        count, chosen = int(trace.iterations[i]), int(trace.chosen[i])
        assert torch.equal(trace.images[chosen, i], result.images[i])
        assert torch.equal(trace.masks[chosen, i], result.masks[i])
        for name in ("status", "score", "residual", "fixed_point_mse", "misfit", "gamma", "outer_iterations"):
            expected = getattr(result, name)[i]
            torch.testing.assert_close(getattr(trace, name)[chosen, i], expected, rtol=0, atol=0, equal_nan=True)
        assert trace.evaluations[-1, i] == result.evaluations[i]
        assert trace.attempts[-1, i] == result.attempts[i]
        assert (trace.evaluations[:count, i].diff() > 0).all()
        last_of_attempt = torch.cat([trace.attempts[:count, i].diff() == 1, torch.tensor([True])])
        assert torch.equal(trace.status[:count, i] != RUNNING, last_of_attempt)
        assert (trace.images[count:, i] == trace.images[count - 1, i]).all()


@pytest.mark.parametrize("backend", [name for name, state in mf.backends().items() if state == "available"])
@pytest.mark.parametrize(
    "options",
    [
        {"solver": "paper", "max_outer_iterations": 30},
        {"solver": "paper", "initial_mask": "zeros", "max_outer_iterations": 30},
        {"solver": "paper", "gamma": (1.0, 0.1), "starts": 2, "max_outer_iterations": 12},
        {"solver": "paper", "restore_known_pixels": False, "precision": "bfloat16", "max_outer_iterations": 5},
        {},
        {"gamma": 0.5, "restore_known_pixels": False},
    ],
)
def test_it_ends_with_what_recover_returns(memorised: Memorised, backend: str, options: dict[str, Any]) -> None:
    settings, degraded = Settings(**options), degrade(memorised)
    trace = mf.trace(memorised.autoencoder, degraded, settings=settings, backend=backend)
    assert_same(trace.recovery, mf.recover(memorised.autoencoder, degraded, settings=settings, backend=backend))
    assert_consistent(trace)
    if settings.starts * len(settings.gammas) == 1:
        assert torch.equal(trace.images[-1], trace.recovery.images)
    else:
        assert trace.attempts.max() > 1


@pytest.mark.parametrize("solver", ["paper", "accelerated"])
def test_known_masks(memorised: Memorised, solver: str) -> None:
    degraded, mask = degrade(memorised), degradation.make_mask("random-80", SHAPE)
    settings = Settings(solver=solver, gamma=0.5)
    trace = mf.trace(memorised.autoencoder, degraded, mask, settings)
    assert_same(trace.recovery, mf.recover(memorised.autoencoder, degraded, mask, settings))
    assert_consistent(trace)
    assert (trace.masks == mask).all()
    assert (len(trace.images) == 1) == (solver == "paper")


def test_iterations_of_the_autoencoder_alone(memorised: Memorised) -> None:
    degraded = degrade(memorised)
    trace = mf.trace_iterate(memorised.autoencoder, degraded, max_iterations=40, tolerance=1e-7)
    assert_same(trace.recovery, mf.iterate(memorised.autoencoder, degraded, max_iterations=40, tolerance=1e-7))
    assert_consistent(trace)
    assert {Status.CONVERGED, Status.MAX_ITERATIONS} == set(trace.recovery.status.tolist())
    with torch.no_grad():
        x = memorised.autoencoder(degraded)
        torch.testing.assert_close(trace.images[0], x, rtol=0, atol=1e-6)  # batches of other sizes round differently
        torch.testing.assert_close(trace.images[1], memorised.autoencoder(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "paper", "gamma": 0.1, "tolerance": 0.0},  # nothing converges: cycles of the mask are counted
        {"solver": "paper", "gamma": 0.5, "patience": 5, "initial_mask": "zeros"},
        {"gamma": 0.5, "stall": 20},
    ],
)
def test_an_entry_is_what_the_recovery_would_have_returned(memorised: Memorised, options: dict[str, Any]) -> None:
    """Bit for bit, of every outer iteration that has an entry, also where those before were not computed."""
    settings, degraded = Settings(max_outer_iterations=20, **options), degrade(memorised, "corner")
    trace = mf.trace(memorised.autoencoder, degraded, settings=settings)
    numbers = trace.outer_iterations
    assert numbers[0].min() == 1  # the first outer iteration has an entry, also where it is shared by all images
    for limit in numbers.unique().tolist():
        ended = dataclasses.replace(settings, max_outer_iterations=limit)
        result = mf.recover(memorised.autoencoder, degraded, settings=ended)
        for t, i in (numbers == limit).nonzero().tolist():
            assert torch.equal(trace.images[t, i], result.images[i])
            assert torch.equal(trace.masks[t, i], result.masks[i])
            assert trace.score[t, i] == result.score[i]
    if settings.solver == "paper":
        assert (numbers[-1] > trace.iterations).any()  # some repeated, and have no entry


@pytest.mark.parametrize("mask", ["half", "random-80"])
def test_outer_iterations_are_those_of_the_reference(memorised: Memorised, mask: str) -> None:
    """The image and the mask of every entry, under the number that it has; the reference computes all of them.

    40 float32 iterations of a map that contracts near its attractors: rounding does not add up beyond 1e-4.
    """
    settings, degraded = Settings(solver="paper", gamma=0.1, max_outer_iterations=12), degrade(memorised, mask)
    trace = mf.trace(memorised.autoencoder, degraded, settings=settings)
    numbers = trace.outer_iterations
    assert (numbers[0] == 1).all()
    assert len(numbers) > 4
    for number in numbers.unique().tolist():
        limited = dataclasses.replace(settings, max_outer_iterations=number)
        literal = reference.recover(memorised.autoencoder, degraded, settings=limited)
        at = numbers == number
        images = literal.images.expand_as(trace.images)[at]
        torch.testing.assert_close(trace.images[at], images, rtol=0, atol=1e-4)
        assert (trace.masks[at] == literal.masks.expand_as(trace.masks)[at]).float().mean() > 0.999
        for name in ("residual", "score"):
            expected = getattr(literal, name).expand_as(numbers)[at]
            torch.testing.assert_close(getattr(trace, name)[at], expected, rtol=1e-2, atol=1e-8, equal_nan=True)


def test_more_images_than_are_worked_on_at_a_time(memorised: Memorised, monkeypatch: pytest.MonkeyPatch) -> None:
    degraded, settings = degrade(memorised), Settings(gamma=(0.5, 1.0))
    expected = mf.trace(memorised.autoencoder, degraded, settings=settings)
    monkeypatch.setattr("memrecon_fast.tracing.slots_by_default", lambda solver: 5)
    got = mf.trace(memorised.autoencoder, degraded, settings=settings)
    for name in ("images", "masks", "score", "attempts", "chosen"):
        assert torch.equal(getattr(got, name), getattr(expected, name))


@pytest.mark.parametrize("solver", ["paper", "accelerated"])
def test_what_diverges_is_traced_to_its_end(memorised: Memorised, solver: str) -> None:
    degraded, settings = degrade(memorised)[:3], Settings(solver=solver, gamma=(0.5, 1.0))
    trace = mf.trace(lambda images: 1e4 * images + 1, degraded, settings=settings)
    assert_same(trace.recovery, mf.recover(lambda images: 1e4 * images + 1, degraded, settings=settings))
    assert (trace.recovery.status == Status.DIVERGED).all()
    assert trace.attempts[-1].tolist() == [2, 2, 2]
    assert trace.attempts[trace.chosen, range(3)].tolist() == [1, 1, 1]  # none is better: the first one


def test_no_images(memorised: Memorised) -> None:
    trace = mf.trace(memorised.autoencoder, torch.zeros(0, *SHAPE))
    assert trace.images.shape == (0, 0, *SHAPE)
    assert trace.recovery.images.shape == (0, *SHAPE)
    assert repr(trace) == "Trace of 0 images of shape (3, 8, 8), at most 0 entries each: no image"


def test_it_is_shown_in_a_line(memorised: Memorised) -> None:
    settings = Settings(solver="paper", max_outer_iterations=2)
    trace = mf.trace(memorised.autoencoder, degrade(memorised), settings=settings)
    expected = "Trace of 16 images of shape (3, 8, 8), at most 2 entries each: 16 MAX_ITERATIONS"
    assert repr(trace) == expected


def test_what_is_wrong_is_said_as_by_recover(memorised: Memorised) -> None:
    degraded = degrade(memorised)
    with pytest.raises(ValueError, match="precision 'progressive' is two recoveries: choose 'float32'"):
        mf.trace(memorised.autoencoder, degraded, settings=Settings(precision="progressive"))
    for function in (mf.trace, mf.trace_iterate):
        with pytest.raises(TypeError, match="degraded must be float32"):
            function(memorised.autoencoder, degraded.double())
    filled, settings = degraded.clamp(min=0.05), Settings(max_outer_iterations=1)
    with pytest.warns(RuntimeWarning, match="nothing seems to be erased in 16 of 16") as caught:
        mf.trace(memorised.autoencoder, filled, settings=settings)
    with pytest.warns(RuntimeWarning, match="nothing seems to be erased in 16 of 16") as by_recover:
        mf.recover(memorised.autoencoder, filled, settings=settings)
    assert caught[0].filename == by_recover[0].filename == __file__  # the lines that called them
