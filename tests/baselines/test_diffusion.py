from __future__ import annotations

import dataclasses
import itertools
import math
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("diffusers")

from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler

from memrecon_fast.baselines.diffusion import Diffusion, NullSpace, _moves
from memrecon_fast.common.seeding import keyed_random
from memrecon_fast.degradation import MASKS, erase, make_mask
from memrecon_fast.engine.samples import Sample
from tests.helpers.diffusing import SHAPE, Gaussian, small_unet, smooth_covariance, train_on_strangers
from tests.helpers.memorised import open_photographs

CPU = torch.device("cpu")
SEED = 3


def samples_of(degraded: Tensor, noise_std: float = 0.0, first: int = 0) -> list[Sample]:
    return [Sample(first + i, image, noise_std=noise_std) for i, image in enumerate(degraded)]


def restored(
    diffusion: Diffusion, degraded: Tensor, mask: Tensor, noise_std: float = 0.0, samples: Sequence[Sample] = ()
) -> Tensor:
    """All images as one batch."""
    null_space = NullSpace(diffusion, degraded.shape[1:], SEED, CPU)
    samples = samples or samples_of(degraded, noise_std)
    return null_space(degraded, mask.expand_as(degraded), samples, len(degraded))


@pytest.fixture(scope="module")
def untrained() -> Diffusion:
    return Diffusion(small_unet(), DDPMScheduler(), steps=5)


@dataclasses.dataclass(frozen=True)
class Problem:
    """A Gaussian prior, an image of it that was degraded, and what is known then: all in [−1, 1], flat, float64."""

    scheduler: Any
    mean: Tensor
    covariance: Tensor
    mask: Tensor
    degraded: Tensor
    expected: Tensor
    """The mean of the image, given y."""
    std: Tensor
    """Its standard deviation, given y."""

    def shift(self, times: int) -> Tensor:
        """How far y moves the mean."""
        return self.expected - nn.functional.avg_pool2d(self.mean, times).flatten().double()


def problem_of(times: int, noise_std: float, scheduler: Any) -> Problem:
    """Images of 4×4 pixels, of a model of images that are `times` as large."""
    side, generator = 4 * times, torch.Generator().manual_seed(0)
    covariance = smooth_covariance(side)
    mean = 0.2 * torch.randn(1, side, side, generator=generator)
    mask = torch.rand(1, 4, 4, generator=generator) < 0.5
    drawn = torch.linalg.cholesky(covariance) @ torch.randn(side**2, generator=generator).double()
    pixels = torch.eye(side**2, dtype=torch.float64).reshape(-1, 1, side, side)
    pooling = nn.functional.avg_pool2d(pixels, times).flatten(1).T
    center = pooling @ mean.double().flatten()
    original = (center + pooling @ drawn + 1) / 2
    degraded = original.reshape(1, 4, 4).float() + noise_std * torch.randn(1, 4, 4, generator=generator)
    degraded = degraded.masked_fill(~mask, 0.0)
    known = pooling[mask.flatten()]
    gain = covariance @ known.T
    spread = known @ gain + (2 * noise_std) ** 2 * torch.eye(len(known), dtype=torch.float64)
    surprise = 2 * degraded.double().flatten()[mask.flatten()] - 1 - center[mask.flatten()]
    expected = center + pooling @ gain @ torch.linalg.solve(spread, surprise)
    left = covariance - gain @ torch.linalg.solve(spread, gain.T)
    std = (pooling @ left @ pooling.T).diag().clamp(min=0).sqrt()
    return Problem(scheduler, mean, covariance, mask, degraded, expected, std)


@pytest.mark.parametrize("times", [1, 2])
def test_the_mean_of_what_a_gaussian_model_draws_is_the_conditional_one(times: int) -> None:
    count, scheduler = 256, DDPMScheduler()
    problem = problem_of(times, 0.0, scheduler)
    diffusion = Diffusion(Gaussian(problem.mean, problem.covariance, scheduler), scheduler, steps=500)
    drawn = restored(diffusion, problem.degraded.expand(count, -1, -1, -1), problem.mask)
    found = 2 * drawn.double().flatten(1) - 1
    erased = ~problem.mask.flatten()
    apart = (found.mean(dim=0) - problem.expected)[erased].abs()
    # four standard errors, and the bias of 500 steps, which falls like one over their number (0.104, 0.070, 0.035 at
    # 100, 200, 500 where it was worst)
    assert (apart < 4 * problem.std[erased] / math.sqrt(count) + 0.04).all()
    assert problem.shift(times)[erased].abs().max() > 0.2  # what is known matters that much
    ratio = found.std(dim=0)[erased] / problem.std[erased]
    assert 0.7 < float(ratio.min()) <= float(ratio.max()) < 1.3  # they are draws, not the mean


@pytest.mark.parametrize("times", [1, 2])
def test_with_noise_the_kept_pixels_are_denoised(times: int) -> None:
    count, scheduler, noise_std = 256, DDPMScheduler(), 0.1
    problem = problem_of(times, noise_std, scheduler)
    diffusion = Diffusion(Gaussian(problem.mean, problem.covariance, scheduler), scheduler)
    drawn = restored(diffusion, problem.degraded.expand(count, -1, -1, -1), problem.mask, noise_std)
    found = 2 * drawn.double().flatten(1).mean(dim=0) - 1
    kept = problem.mask.flatten()
    given = 2 * problem.degraded.double().flatten() - 1
    # far nearer to what is to be expected, given the noisy pixels, than these are
    assert (found - problem.expected)[kept].abs().max() < (given - problem.expected)[kept].abs().max() / 4
    assert (found - problem.expected)[~kept].abs().max() < 0.1


def literally(diffusion: Diffusion, degraded: Tensor, kept: Tensor, index: int, noise_std: float) -> Tensor:
    """Algorithm 2 of the paper with its DDIM steps, and with noise its section 3.3 as the authors' program has it, by
    singular values: one image (C, H, W), in float64. Where the model's images are k times as large, A takes means of
    k × k pixels: its singular values are 1/k."""
    random = keyed_random("ddnm", SEED, index)
    times = diffusion.enlargement(degraded.shape)
    shape = (degraded.shape[0], times * degraded.shape[1], times * degraded.shape[2])

    def draw() -> Tensor:
        return torch.from_numpy(random.standard_normal(shape, np.float32)).double()

    def reduced(x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, times)

    def with_known(x: Tensor, known: Tensor) -> Tensor:
        change = torch.where(kept, known - reduced(x), 0.0)
        return x + change.repeat_interleave(times, 1).repeat_interleave(times, 2)

    levels = diffusion.scheduler.alphas_cumprod.double()
    skip, eta = len(levels) // diffusion.steps, diffusion.eta
    y, sigma_y = 2 * degraded.double() - 1, times * 2 * noise_std
    x = draw()
    x0 = x
    for here, there in _moves(diffusion.steps, diffusion.travel_length, diffusion.travel_repeat):
        after = levels[there * skip] if there >= 0 else torch.tensor(1.0, dtype=torch.float64)
        sigma_t, a = (1 - after).sqrt(), after.sqrt()
        if there > here:
            x = a * x0 + sigma_t * draw()
            continue
        at = levels[here * skip]
        epsilon = diffusion.unet(x[None].float(), here * skip).sample[0].double()
        x0 = (x - (1 - at).sqrt() * epsilon) / at.sqrt()
        noise = draw() if there >= 0 else torch.zeros_like(x)
        mixed = eta * sigma_t * noise + (1 - eta**2) ** 0.5 * sigma_t * epsilon
        if sigma_y == 0:
            x = a * with_known(x0, y) + mixed
        elif sigma_t < a * sigma_y:
            strength = sigma_t * (1 - eta**2) ** 0.5 / (a * sigma_y)
            corrected = with_known(x0, reduced(x0) - strength * (reduced(x0) - y))
            x = a * corrected + with_known(mixed, eta * sigma_t * reduced(noise))
        else:
            left = (sigma_t**2 - (a * sigma_y) ** 2).sqrt()
            x = a * with_known(x0, y) + with_known(mixed, left * reduced(noise))
    return ((reduced(x) + 1) / 2).clamp(0, 1).float()


@pytest.mark.parametrize("travel", [{}, {"travel_length": 3, "travel_repeat": 2}], ids=["straight", "travel"])
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("noise_std", [0.0, 0.05])
def test_the_steps_are_those_of_the_paper(
    untrained: Diffusion, noise_std: float, times: int, travel: dict[str, Any]
) -> None:
    diffusion = dataclasses.replace(untrained, steps=20, **travel)
    images = nn.functional.avg_pool2d(open_photographs()[0][:2], times)
    mask = make_mask("random-50", images.shape[1:])
    degraded = erase(images, mask, noise_std, seed=1)
    found = restored(diffusion, degraded, mask, noise_std, samples_of(degraded, noise_std, first=5))
    for position in range(2):
        with torch.inference_mode():
            expected = literally(diffusion, degraded[position], mask, 5 + position, noise_std)
        # float32 against float64: each pass of the net amplifies what was rounded before, most where it travels back in
        # time: 2.1e-5 at most, with AVX-512; a coefficient that is off by a thousandth moves it by 9e-5 to 6e-2
        torch.testing.assert_close(found[position], expected, rtol=0, atol=5e-5)


def test_time_travel_goes_the_way_of_the_paper() -> None:
    assert list(_moves(3, 1, 1)) == [(2, 1), (1, 0), (0, -1)]
    # from RePaint's schedule: down to a multiple of the length, up by it, once more down
    down_and_up = [5, 4, 3, 2, 3, 4, 3, 2, 1, 0, 1, 2, 1, 0, -1]
    assert list(_moves(6, 2, 2)) == list(itertools.pairwise(down_and_up))
    assert [there - here for here, there in _moves(2, 1, 4)] == [-1, 1, -1, 1, -1, 1, -1, -1]


@pytest.mark.parametrize("name", MASKS)
def test_kept_pixels_stay_as_they_are(untrained: Diffusion, name: str) -> None:
    images, mask = open_photographs()[0][:2], make_mask(name, SHAPE)
    degraded = erase(images, mask)
    found = restored(untrained, degraded, mask)
    assert torch.equal(found[:, mask], images[:, mask])
    assert found.dtype == torch.float32
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert not torch.equal(found[0, ~mask], found[1, ~mask])


def test_kept_pixels_stay_where_the_model_is_for_larger_images(untrained: Diffusion) -> None:
    images = nn.functional.avg_pool2d(open_photographs()[0][:2], 2)
    mask = make_mask("random-50", images.shape[1:])
    mask[1] = make_mask("half", images.shape[1:])[0]  # a mask for each channel
    found = restored(untrained, erase(images, mask), mask)
    assert torch.equal(found[:, mask], images[:, mask])
    assert found.shape == images.shape


def test_what_is_below_the_mask_does_not_matter(untrained: Diffusion) -> None:
    images, mask = open_photographs()[0][:1], make_mask("half", SHAPE)
    one, other = (restored(untrained, images.masked_fill(~mask, level), mask) for level in (0.0, 0.7))
    assert torch.equal(one, other)


def test_an_image_is_drawn_the_same_whatever_the_others_are(untrained: Diffusion) -> None:
    images, mask = open_photographs()[0][:5], make_mask("random-50", SHAPE)
    degraded = erase(images, mask)
    samples = samples_of(degraded)
    null_space = NullSpace(untrained, SHAPE, SEED, CPU)
    kept = mask.expand_as(degraded)
    together = null_space(degraded, kept, samples, 8)
    for order in ([4, 0, 3, 1, 2], [2]):
        some = null_space(degraded[order], kept[order], [samples[i] for i in order], 8)
        torch.testing.assert_close(some, together[order], rtol=0, atol=1e-5)  # another row may have other last bits
    alone = [null_space(degraded[i : i + 1], kept[i : i + 1], [samples[i]], 1) for i in (3, 0, 3)]
    assert torch.equal(alone[0], alone[2])
    torch.testing.assert_close(torch.cat(alone[:2]), together[[3, 0]], rtol=0, atol=1e-5)
    elsewhere = null_space(degraded[:1], kept[:1], [dataclasses.replace(samples[0], index=7)], 1)
    assert not torch.equal(elsewhere, alone[1])
    other_seed = NullSpace(untrained, SHAPE, SEED + 1, CPU)(degraded[:1], kept[:1], samples[:1], 1)
    assert not torch.equal(other_seed, alone[1])


def test_images_with_and_without_noise_in_one_batch(untrained: Diffusion) -> None:
    images, mask = open_photographs()[0][:2], make_mask("center", SHAPE)
    degraded = erase(images, mask)
    mixed = [Sample(0, degraded[0]), Sample(1, degraded[1], noise_std=0.1)]
    found = restored(untrained, degraded, mask, samples=mixed)
    torch.testing.assert_close(found[0], restored(untrained, degraded, mask)[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[1], restored(untrained, degraded, mask, noise_std=0.1)[1], rtol=0, atol=1e-5)
    assert torch.equal(found[0, mask], images[0, mask])
    assert not torch.equal(found[1, mask], images[1, mask])


def test_it_does_not_matter_what_the_model_predicts() -> None:
    schedulers = {kind: DDIMScheduler(prediction_type=kind) for kind in ("epsilon", "v_prediction", "sample")}
    problem = problem_of(1, 0.0, None)

    def drawn(kind: str, **more: bool) -> Tensor:
        gaussian = Gaussian(problem.mean, problem.covariance, schedulers[kind], **more)
        return restored(Diffusion(gaussian, schedulers[kind], steps=50), problem.degraded[None], problem.mask)

    expected = drawn("epsilon")
    for found in (drawn("v_prediction"), drawn("sample"), drawn("epsilon", variances=True)):
        # the answers are rounded to float32, and those of ε are divided by √ᾱ, which is 0.0078 in the first step
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_a_trained_model_knows_more_than_the_mean(untrained: Diffusion) -> None:
    """Trained on crops of photographs that are none of these images."""
    unet = small_unet(seed=1).train()
    train_on_strangers(unet, untrained.scheduler)
    diffusion = Diffusion(unet.eval(), untrained.scheduler, steps=50)
    images = torch.cat(open_photographs())
    for name in ("random-50", "random-80"):
        mask = make_mask(name, SHAPE)
        found = restored(diffusion, erase(images, mask), mask)
        mean = (images * mask).sum(dim=(2, 3), keepdim=True) / mask.sum(dim=(1, 2))[:, None, None]
        errors = [(guess - images)[:, ~mask].square().mean() for guess in (found, mean.expand_as(images))]
        assert errors[0] < 0.8 * errors[1], name


class Failing(nn.Module):
    config = types.SimpleNamespace(in_channels=3, sample_size=None)

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.eval()

    def forward(self, x: Tensor, timestep: int) -> Tensor:
        if self.how == "raises":
            raise RuntimeError("sizes must be even\nbut are not")
        return x[..., :-1]


def test_what_cannot_be_used_is_named(untrained: Diffusion) -> None:
    scheduler = untrained.scheduler
    with pytest.raises(TypeError, match=r"must be an nn\.Module, not function"):
        Diffusion(lambda x, t: x, scheduler)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"is in training mode; call \.eval\(\) first"):
        Diffusion(small_unet().train(), scheduler)
    with pytest.raises(TypeError, match=r"must be float32; its .* is torch\.bfloat16: call \.float\(\)"):
        Diffusion(small_unet().bfloat16(), scheduler)
    with pytest.raises(ValueError, match="is for classes of images; expected one without"):
        Diffusion(small_unet(num_class_embeds=4), scheduler)
    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler has no alphas_cumprod; expected one such as"):
        Diffusion(untrained.unet, FlowMatchEulerDiscreteScheduler())
    other = types.SimpleNamespace(
        alphas_cumprod=scheduler.alphas_cumprod, config=types.SimpleNamespace(prediction_type="flow")
    )
    with pytest.raises(ValueError, match="predicts 'flow', as its scheduler says; expected one of 'epsilon'"):
        Diffusion(untrained.unet, other)
    with pytest.raises(ValueError, match="steps must be a divisor of the scheduler's 1000 timesteps, not 300"):
        Diffusion(untrained.unet, scheduler, steps=300)
    with pytest.raises(ValueError, match="travel_length must be at least 1 and at most 9, not 10"):
        Diffusion(untrained.unet, scheduler, steps=10, travel_length=10)
    rising = types.SimpleNamespace(alphas_cumprod=scheduler.alphas_cumprod.flip(0), config=scheduler.config)
    with pytest.raises(ValueError, match="alphas_cumprod must fall from timestep to timestep"):
        Diffusion(untrained.unet, rising)
    for shape, words in (
        ((1, 8, 8), "is for images of 3 channels; these have 1"),
        ((3, 16, 16), "is for images of 8×8 pixels, no whole multiple of these, 16×16"),
        ((3, 8, 4), "is for images of 8×8 pixels, no whole multiple of these, 8×4"),
        ((3, 3, 3), "is for images of 8×8 pixels, no whole multiple of these, 3×3"),
        ((64,), r"is for images \(C, H, W\), not of shape \(64,\)"),
    ):
        with pytest.raises(ValueError, match=words):
            NullSpace(untrained, shape, SEED, CPU)
    for size in ([8], "8", 8.0):
        sized: Any = Failing("raises")
        sized.config = {"sample_size": size}
        with pytest.raises(ValueError, match="sample_size must be a whole number, or two of them, not"):
            NullSpace(Diffusion(sized, scheduler), SHAPE, SEED, CPU)
    broken = small_unet()
    broken.conv_in.bias.data[0] = float("nan")
    with pytest.raises(ValueError, match="answers an image of zeros by NaN or infinity"):
        NullSpace(Diffusion(broken, scheduler), SHAPE, SEED, CPU)
    for how, words in (
        ("raises", r"fails on images of shape \(3, 8, 8\): RuntimeError: sizes must be even$"),
        ("cuts", r"answers images of shape \(1, 3, 8, 8\) by \(1, 3, 8, 7\); expected the same shape"),
    ):
        with pytest.raises(ValueError, match=words):
            NullSpace(Diffusion(Failing(how), scheduler), SHAPE, SEED, CPU)


def test_the_identity_tells_models_apart(untrained: Diffusion) -> None:
    before = untrained.identity()
    assert before == Diffusion(small_unet(), DDPMScheduler(), steps=5).identity()
    assert {name: before[name] for name in ("steps", "travel_length", "travel_repeat", "eta")} == {
        "steps": 5,
        "travel_length": 1,
        "travel_repeat": 1,
        "eta": 0.85,
    }
    others = [
        Diffusion(small_unet(seed=1), DDPMScheduler(), steps=5),
        Diffusion(small_unet(center_input_sample=True), DDPMScheduler(), steps=5),  # no layer prints it
        Diffusion(small_unet(), DDPMScheduler(beta_end=0.01), steps=5),
        Diffusion(small_unet(), DDPMScheduler(prediction_type="v_prediction"), steps=5),
    ]
    digests = {diffusion.identity()["diffusion_model"] for diffusion in (untrained, *others)}
    assert len(digests) == 5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_the_images_are_those_of_the_cpu(untrained: Diffusion) -> None:
    images, mask = open_photographs()[0][:5], make_mask("random-50", SHAPE)
    degraded, kept = erase(images, mask), mask.expand_as(images)
    samples = samples_of(degraded)
    null_space = NullSpace(untrained, SHAPE, SEED, torch.device("cuda", 0))
    rows = null_space.most_rows
    found = null_space(degraded, kept, samples, rows)
    assert found.is_cuda
    assert {parameter.device for parameter in untrained.unet.parameters()} == {CPU}
    torch.testing.assert_close(found.cpu(), restored(untrained, degraded, mask), rtol=0, atol=1e-3)
    assert torch.equal(found.cpu()[:, mask], images[:, mask])
    order = [3, 0]
    some = null_space(degraded[order], kept[order], [samples[i] for i in order], rows)
    torch.testing.assert_close(some, found[order], rtol=0, atol=1e-5)
