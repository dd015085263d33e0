"""DDNM: erased pixels from a diffusion model, the mask known, without any autoencoder (Wang et al., arXiv 2212.00490).

The diffusion model draws an image as it always does, from noise to x₀ in many steps; but in each step its estimate x₀|t
is corrected by what is known, which leaves it the null space of the degradation A alone:

    x̂₀ = x₀|t − λ A⁺(A x₀|t − y)

Here A = M P: the kept pixels M of the image, and P the mean over k×k pixels where the model is for images that are k
times as large (P = 1 where k = 1: x̂₀ = M∘y + (1 − M)∘x₀|t). A⁺ repeats a pixel k×k times, and all singular values of A
that are not 0 are 1/k.

What this gets back of a training image tells nothing about an autoencoder, unless the diffusion model has seen it too.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from memrecon_fast.common.checks import check_integer, check_number
from memrecon_fast.common.digests import digest_of, parts_of_module
from memrecon_fast.common.errors import is_out_of_memory, one_line
from memrecon_fast.common.seeding import keyed_random
from memrecon_fast.engine.precision import allow_tf32
from memrecon_fast.engine.samples import Sample
from memrecon_fast.engine.transfer import to_device, working_on

PREDICTIONS = ("epsilon", "v_prediction", "sample")
"""What a model may predict: the noise ε, v = √ᾱ ε − √(1 − ᾱ) x₀, or x₀ itself."""
MAX_ROWS_ON_GPU = 64
PLACES_ON_GPU = 2**20
"""Of all images that a GPU is given at a time, height × width: 16 of 256×256."""


@dataclasses.dataclass(frozen=True, eq=False)
class Diffusion:
    """A diffusion model of pixels in [−1, 1], and how images are drawn from it.

    unet: a diffusers `UNet2DModel`, or an nn.Module that is called like one: (x (B, C, H, W), timestep, int64 ()) →
        what it predicts, as `.sample`. A second C channels, of learned variances, are not used. Its `config` says
        in_channels and sample_size (the side, or (H, W); None: any).
    scheduler: the diffusers scheduler that it was trained with: only its `alphas_cumprod` ᾱ and the `prediction_type`
        of its config are used.
    steps: so many of the scheduler's T timesteps are made, evenly spaced; a divisor of T. Published: 100 of 1000.
    travel_length, travel_repeat: time travel: after so many steps the image is made noisy again, by as many steps, so
        often that each is made `travel_repeat` times, but for those near either end. 1 and 1: none.
    eta: the share of the noise that is drawn anew in each step; 0: none, 1: all of it. Published: 0.85.

    Raises TypeError or ValueError for a model that cannot be used: one that is in training mode, not float32, or for
    classes; or that predicts something else.
    """

    unet: nn.Module
    scheduler: Any
    steps: int = 100
    travel_length: int = 1
    travel_repeat: int = 1
    eta: float = 0.85

    def __post_init__(self) -> None:
        if not isinstance(self.unet, nn.Module):
            raise TypeError(f"the diffusion model must be an nn.Module, not {type(self.unet).__name__}")
        if any(module.training for module in self.unet.modules()):
            raise ValueError("the diffusion model is in training mode; call .eval() first")
        for name, parameter in self.unet.named_parameters():
            if parameter.dtype != torch.float32:
                raise TypeError(f"the diffusion model must be float32; its {name} is {parameter.dtype}: call .float()")
        if self._said("num_class_embeds") is not None or self._said("class_embed_type") is not None:
            raise ValueError("the diffusion model is for classes of images; expected one without")
        if not isinstance(getattr(self.scheduler, "alphas_cumprod", None), Tensor):
            raise ValueError(
                f"the scheduler {type(self.scheduler).__name__} has no alphas_cumprod; expected one such as that of "
                "DDPM or DDIM"
            )
        if self.prediction not in PREDICTIONS:
            raise ValueError(
                f"the diffusion model predicts {self.prediction!r}, as its scheduler says; expected one of "
                f"{', '.join(map(repr, PREDICTIONS))}"
            )
        levels = self.levels
        check_integer("steps", self.steps, low=1, high=len(levels))
        if len(levels) % self.steps:
            raise ValueError(f"steps must be a divisor of the scheduler's {len(levels)} timesteps, not {self.steps}")
        made = levels[:: len(levels) // self.steps]
        if not ((made > 0) & (made < 1)).all() or not (np.diff(made) < 0).all():
            raise ValueError("the scheduler's alphas_cumprod must fall from timestep to timestep, within (0, 1)")
        check_integer("travel_repeat", self.travel_repeat, low=1)
        check_integer("travel_length", self.travel_length, low=1, high=max(1, self.steps - 1))
        check_number("eta", self.eta, low=0, high=1)

    @property
    def levels(self) -> NDArray[np.float64]:
        """ᾱ of each timestep, (T,)."""
        found: NDArray[np.float64] = self.scheduler.alphas_cumprod.detach().cpu().double().numpy()
        return found

    @property
    def prediction(self) -> Any:
        """What the model predicts, one of `PREDICTIONS`."""
        return getattr(getattr(self.scheduler, "config", None), "prediction_type", None)

    def identity(self) -> dict[str, Any]:
        """What its images rest on, for JSON."""
        config = {name: value for name, value in dict(self._config()).items() if not name.startswith("_")}
        said = json.dumps([config, self.prediction], sort_keys=True, default=str)
        numbers = {name: getattr(self, name) for name in ("steps", "travel_length", "travel_repeat", "eta")}
        digest = digest_of([*parts_of_module(self.unet, said), self.scheduler.alphas_cumprod])
        return {"diffusion_model": digest, **numbers}

    def enlargement(self, image_shape: Sequence[int]) -> int:
        """How many times as large as these images (C, H, W) those of the model are. Raises ValueError unless that is a
        whole number, the same for height and width, or where the channels are others."""
        if len(image_shape) != 3:
            raise ValueError(f"the diffusion model is for images (C, H, W), not of shape {tuple(image_shape)}")
        channels, height, width = image_shape
        if self._said("in_channels") not in (None, channels):
            raise ValueError(
                f"the diffusion model is for images of {self._said('in_channels')} channels; these have {channels}"
            )
        side = self._said("sample_size")
        if side is None:
            return 1
        theirs = (side, side) if isinstance(side, int) else side
        if not isinstance(theirs, (tuple, list)) or len(theirs) != 2 or not all(isinstance(one, int) for one in theirs):
            raise ValueError(f"the diffusion model's sample_size must be a whole number, or two of them, not {side!r}")
        times: int = theirs[0] // height
        if not times or tuple(theirs) != (times * height, times * width):
            raise ValueError(
                f"the diffusion model is for images of {theirs[0]}×{theirs[1]} pixels, no whole multiple of these, "
                f"{height}×{width}"
            )
        return times

    def _config(self) -> Any:
        config = getattr(self.unet, "config", None) or {}
        return config if hasattr(config, "keys") else vars(config)

    def _said(self, name: str) -> Any:
        return self._config().get(name)


def most_steps(timesteps: int) -> int:
    """The largest divisor of so many timesteps, at least 1, that is at most 100, the published number of steps."""
    return next(steps for steps in range(100, 0, -1) if timesteps % steps == 0)


class NullSpace:
    """DDNM for images of a shape, on a device; with noise on the degraded images its form DDNM+.

    seed: the random numbers of an image depend on (seed, index of the image) alone.

    Raises ValueError where the model is not for such images, or fails on them.
    """

    def __init__(self, diffusion: Diffusion, image_shape: Sequence[int], seed: int, device: torch.device) -> None:
        self._times = diffusion.enlargement(image_shape)
        channels, height, width = image_shape
        self._shape = (channels, height * self._times, width * self._times)
        self._diffusion, self._seed, self._device = diffusion, seed, device
        self._unet = _on(diffusion.unet, device)
        self._timesteps = torch.arange(len(diffusion.levels), device=device)
        with working_on(device):
            self._try()

    @property
    def most_rows(self) -> int:
        """So many images at a time: on a CPU, where more take no less time for each, one."""
        _, height, width = self._shape
        return max(1, min(MAX_ROWS_ON_GPU, PLACES_ON_GPU // (height * width))) if self._device.type == "cuda" else 1

    def __call__(self, degraded: Tensor, masks: Tensor, samples: Sequence[Sample], rows: int) -> Tensor:
        """The images, float32 (B, C, H, W) in [0, 1], on the device. Kept pixels of images without noise are exactly
        the given ones.

        degraded: float32 (B, C, H, W). masks: bool, the same shape, True = kept. samples: whose indices and noise.
        rows: so many images the model is given in each call, with zeros in place of those beyond B ≤ rows: another
        number may mean other last bits.
        """
        with working_on(self._device):
            given, kept = (self._filled(images, rows) for images in (degraded, masks))
            found = self._mean(self._draw(2 * given - 1, kept, samples))
            found = ((found + 1) / 2).clamp_(0, 1)[: len(samples)]
            exact = torch.tensor([sample.noise_std == 0 for sample in samples], device="cpu")
            known = to_device(exact, self._device)[:, None, None, None] & kept[: len(samples)]
            return torch.where(known, given[: len(samples)], found)

    def _draw(self, y: Tensor, kept: Tensor, samples: Sequence[Sample]) -> Tensor:
        """Of the model, (B, C, kH, kW) in [−1, 1]. y: the degraded images, in [−1, 1] too."""
        diffusion = self._diffusion
        levels, skip = diffusion.levels, len(diffusion.levels) // diffusion.steps
        sigmas = np.zeros(len(y))
        sigmas[: len(samples)] = [2 * sample.noise_std for sample in samples]
        random = [keyed_random("ddnm", self._seed, sample.index) for sample in samples]
        x = self._noise(random, len(y))
        x0 = x
        for here, there in _moves(diffusion.steps, diffusion.travel_length, diffusion.travel_repeat):
            level = levels[there * skip] if there >= 0 else 1.0
            if there > here:  # back, as the authors' program does it: from x₀|t, not from x̂₀
                x = level**0.5 * x0 + (1 - level) ** 0.5 * self._noise(random, len(y))
                continue
            x0, epsilon = self._predict(x, here * skip, levels[here * skip])
            weights = _weights(level, sigmas, self._times, diffusion.eta)
            correction, fresh, old = to_device(torch.from_numpy(weights).float(), self._device)[..., None, None, None]
            noise = self._noise(random, len(y)) if level < 1 else torch.zeros_like(x)
            plain = ((1 - level) ** 0.5 * diffusion.eta, ((1 - level) * (1 - diffusion.eta**2)) ** 0.5)
            # what is known: within the range of A⁺, all at once
            known = self._repeat(
                torch.where(
                    kept,
                    level**0.5 * correction * (y - self._mean(x0))
                    + (fresh - plain[0]) * self._mean(noise)
                    + (old - plain[1]) * self._mean(epsilon),
                    0.0,
                )
            )
            x = level**0.5 * x0 + plain[0] * noise + plain[1] * epsilon + known
        return x

    def _predict(self, x: Tensor, timestep: int, level: float) -> tuple[Tensor, Tensor]:
        """x₀|t and ε, of the model's answer to x = √ᾱ x₀ + √(1 − ᾱ) ε."""
        signal, noise = level**0.5, (1 - level) ** 0.5
        answer = self._answer(x, timestep)
        if self._diffusion.prediction == "epsilon":
            return (x - noise * answer) / signal, answer
        if self._diffusion.prediction == "v_prediction":
            return signal * x - noise * answer, signal * answer + noise * x
        return answer, (x - signal * answer) / noise

    def _answer(self, x: Tensor, timestep: int) -> Tensor:
        with allow_tf32(False):
            answered: Any = self._unet(x, self._timesteps[timestep])
        answer: Tensor = getattr(answered, "sample", answered)
        if answer.shape[1] == 2 * x.shape[1]:  # the second half: learned variances
            answer = answer[:, : x.shape[1]]
        return answer.float()

    def _try(self) -> None:
        x = torch.zeros(1, *self._shape, device=self._device)
        try:
            answer = self._answer(x, 0)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise ValueError(
                f"the diffusion model fails on images of shape {self._shape}: {one_line(error)}"
            ) from error
        if answer.shape != x.shape:
            raise ValueError(
                f"the diffusion model answers images of shape {tuple(x.shape)} by {tuple(answer.shape)}; expected the "
                "same shape, or twice as many channels"
            )
        if not answer.isfinite().all():
            raise ValueError("the diffusion model answers an image of zeros by NaN or infinity")

    def _filled(self, images: Tensor, rows: int) -> Tensor:
        filled = images.new_zeros(rows, *images.shape[1:], device=self._device)
        filled[: len(images)] = images.to(self._device)
        return filled

    def _noise(self, random: Sequence[np.random.Generator], rows: int) -> Tensor:
        noise = np.zeros((rows, *self._shape), np.float32)
        for row, one in enumerate(random):
            one.standard_normal(dtype=np.float32, out=noise[row])
        return to_device(torch.from_numpy(noise), self._device)

    def _mean(self, images: Tensor) -> Tensor:
        """P: the mean over k×k pixels."""
        return nn.functional.avg_pool2d(images, self._times) if self._times > 1 else images

    def _repeat(self, images: Tensor) -> Tensor:
        """P⁺: each pixel k×k times."""
        if self._times == 1:
            return images
        return images.repeat_interleave(self._times, dim=2).repeat_interleave(self._times, dim=3)


def _weights(level: float, sigmas: NDArray[np.float64], times: int, eta: float) -> NDArray[np.float64]:
    """(3, B): of what is known, λ, and how much of new noise and of ε goes into the next image, whose ᾱ is `level`.

    sigmas: (B,), the standard deviation of the noise on y, 0 where there is none. Together with what y adds of its
    noise, √ᾱ λ σ k, the noise of the next image has the standard deviation σₜ = √(1 − ᾱ) that its timestep has.
    """
    sigma_t, brought = (1 - level) ** 0.5, level**0.5 * sigmas * times
    old = sigma_t * (1 - eta**2) ** 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        much = np.stack([old / brought, np.full_like(brought, sigma_t * eta), np.zeros_like(brought)])
    little = np.stack([np.ones_like(brought), np.sqrt(np.maximum(sigma_t**2 - brought**2, 0)), np.zeros_like(brought)])
    none = np.broadcast_to(np.array([1.0, sigma_t * eta, old])[:, None], little.shape)
    return np.where(sigmas == 0, none, np.where(brought > sigma_t, much, little))


def _moves(steps: int, travel_length: int, travel_repeat: int) -> Iterator[tuple[int, int]]:
    """From which step to which, from steps − 1 down to −1, which is the image: down by one, and in time travel up."""
    left = dict.fromkeys(range(0, steps - travel_length, travel_length), travel_repeat - 1)
    here = steps - 1
    while here >= 0:
        if left.get(here, 0):
            left[here] -= 1
            for _ in range(travel_length):
                yield here, here + 1
                here += 1
        yield here, here - 1
        here -= 1


def _on(unet: nn.Module, device: torch.device) -> nn.Module:
    """The model on the device: a copy, where it is not there."""
    there = all(tensor.device == device for tensor in (*unet.parameters(), *unet.buffers()))
    return unet if there else copy.deepcopy(unet).to(device)
