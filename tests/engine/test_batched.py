from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from memrecon_fast import Sample, Status, metrics
from memrecon_fast.engine.batched import Batched
from memrecon_fast.recovery import prepare_iterate
from memrecon_fast.results import score_of
from tests.helpers.memorised import Memorised

SHAPE = (3, 8, 8)


def brighten(degraded: Tensor, masks: Tensor) -> Tensor:
    return torch.where(masks, degraded, 0.5)


def samples_of(memorised: Memorised) -> list[Sample]:
    masks = torch.rand(16, *SHAPE, generator=torch.Generator().manual_seed(2)) < 0.7
    return [
        Sample(index, image * mask, mask, label=f"image {index}")
        for index, (image, mask) in enumerate(zip(memorised.members, masks, strict=True))
    ]


@pytest.mark.parametrize("at_once", [1, 5, 16, None])
def test_every_image_gets_its_estimate_and_its_score(memorised: Memorised, at_once: int | None) -> None:
    samples = samples_of(memorised)
    stream = Batched(brighten, prepare_iterate(memorised.autoencoder, SHAPE), at_once)
    batches = list(stream.batches(iter(samples)))
    assert [len(batch) for batch in batches] == {1: [1] * 16, 5: [5, 5, 5, 1]}.get(at_once or 16, [16])
    done = [one for batch in batches for one in batch]
    assert [(one.index, one.label) for one in done] == [(sample.index, sample.label) for sample in samples]
    for sample, one in zip(samples, done, strict=True):
        assert sample.mask is not None
        image = brighten(sample.degraded, sample.mask)
        assert torch.equal(one.image, image)
        assert torch.equal(one.mask, sample.mask)
        assert (one.status, one.outer_iterations, one.evaluations, one.attempts) == (Status.CONVERGED, 1, 0, 1)
        with torch.inference_mode():
            answer = memorised.autoencoder(image[None])
        fixed_point = metrics.mse(answer, image[None])
        misfit = metrics.mse((image * sample.mask)[None], sample.degraded[None])
        energy = sample.degraded.double().square().mean()
        # float32 forward passes of other numbers of rows
        assert one.fixed_point_mse == pytest.approx(float(fixed_point), rel=1e-4)
        assert one.misfit == float(misfit) == 0
        assert one.explained == 1 - float(misfit) / float(energy)
        expected = score_of(*(torch.tensor([x]) for x in (one.fixed_point_mse, one.misfit, one.explained)))
        assert one.score == float(expected)


def test_a_function_that_applies_the_autoencoder_needs_no_gradients(memorised: Memorised) -> None:
    weight = torch.ones(1, requires_grad=True)
    stream = Batched(lambda degraded, masks: weight * degraded, prepare_iterate(memorised.autoencoder, SHAPE))
    for batch in stream.batches(samples_of(memorised)):
        assert not any(one.image.requires_grad for one in batch)


def test_results_are_the_same_bits_in_any_batch(memorised: Memorised) -> None:
    samples = samples_of(memorised)
    solver = prepare_iterate(memorised.autoencoder, SHAPE)
    scores = [
        [one.score for batch in Batched(brighten, solver, at_once).batches(samples) for one in batch]
        for at_once in (3, 16)
    ]
    assert scores[0] == scores[1]


def test_an_estimate_that_is_not_finite_diverged(memorised: Memorised) -> None:
    def fail_in_one(degraded: Tensor, masks: Tensor) -> Tensor:
        images = brighten(degraded, masks)
        images[1, 0, 0, 0] = torch.nan
        return images

    stream = Batched(fail_in_one, prepare_iterate(memorised.autoencoder, SHAPE))
    (batch,) = stream.batches(samples_of(memorised))
    assert [one.index for one in batch if one.status == Status.DIVERGED] == [1]
    assert batch[1].score == torch.inf


def test_a_mask_that_is_missing_is_named(memorised: Memorised) -> None:
    samples = [*samples_of(memorised)[:3], Sample(7, memorised.members[7])]
    stream = Batched(brighten, prepare_iterate(memorised.autoencoder, SHAPE), 2)
    batches = stream.batches(samples)
    assert len(next(batches)) == 2
    with pytest.raises(ValueError, match="image 7 comes without its mask"):
        next(batches)


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda degraded, masks: degraded[:1], r"torch.float32 \(1, 3, 8, 8\)"),
        (lambda degraded, masks: degraded.flatten(1), r"torch.float32 \(2, 192\)"),
        (lambda degraded, masks: masks, r"torch.bool \(2, 3, 8, 8\)"),
        (lambda degraded, masks: degraded.half(), r"torch.float16 \(2, 3, 8, 8\)"),
        (lambda degraded, masks: None, "NoneType"),
    ],
)
def test_an_answer_that_is_no_batch_of_images_is_named(memorised: Memorised, answer: Any, named: str) -> None:
    stream = Batched(answer, prepare_iterate(memorised.autoencoder, SHAPE), 2)
    with pytest.raises(
        TypeError, match=rf"function must return float32 or float64 \(2, 3, 8, 8\), .*; it returned {named}"
    ):
        next(stream.batches(samples_of(memorised)))


def test_an_answer_in_float64_is_converted(memorised: Memorised) -> None:
    scorer = prepare_iterate(memorised.autoencoder, SHAPE)
    found = [
        next(Batched(function, scorer, 2).batches(samples_of(memorised)))
        for function in (brighten, lambda degraded, masks: brighten(degraded, masks).double())
    ]
    for one, other in zip(*found, strict=True):
        assert torch.equal(one.image, other.image)
        assert one.score == other.score


def test_an_autoencoder_that_was_changed_is_refused(memorised: Memorised) -> None:
    autoencoder = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1)).eval()
    stream = Batched(brighten, prepare_iterate(autoencoder, SHAPE))
    autoencoder.train()
    with pytest.raises(ValueError, match="training mode"):
        next(stream.batches(samples_of(memorised)))
