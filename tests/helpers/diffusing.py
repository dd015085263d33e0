"""Diffusion models for tests: of a Gaussian, whose answers are known exactly, and small ones of diffusers."""

from __future__ import annotations

import types
from typing import Any

import skimage.data
import torch
from torch import Tensor, nn

SHAPE = (3, 8, 8)


class Gaussian(nn.Module):
    """Called like a `UNet2DModel`: what the best denoiser says of images N(mean, covariance), in [−1, 1].

    E[x₀|x] = μ + √ᾱ Σ (ᾱΣ + 1 − ᾱ)⁻¹ (x − √ᾱ μ), in what `prediction` asks for. variances: a second half of the
    channels is added, of no meaning.
    """

    def __init__(self, mean: Tensor, covariance: Tensor, scheduler: Any, variances: bool = False) -> None:
        super().__init__()
        self.config = {"in_channels": mean.shape[0], "sample_size": tuple(mean.shape[1:])}
        self.scheduler, self.variances = scheduler, variances
        values, vectors = torch.linalg.eigh(covariance.double())
        self.register_buffer("mean", mean.double())
        self.register_buffer("values", values)
        self.register_buffer("vectors", vectors)
        self.eval()

    def forward(self, x: Tensor, timestep: int) -> types.SimpleNamespace:
        level = self.scheduler.alphas_cumprod[timestep].double()
        centred = (x.double() - level.sqrt() * self.mean).flatten(1) @ self.vectors
        guess = (centred * level.sqrt() * self.values / (level * self.values + 1 - level)) @ self.vectors.T
        x0 = self.mean + guess.reshape(x.shape)
        epsilon = (x - level.sqrt() * x0) / (1 - level).sqrt()
        answer = {
            "epsilon": epsilon,
            "v_prediction": level.sqrt() * epsilon - (1 - level).sqrt() * x0,
            "sample": x0,
        }[self.scheduler.config.prediction_type].float()
        if self.variances:
            answer = torch.cat([answer, torch.full_like(answer, 7.0)], dim=1)
        return types.SimpleNamespace(sample=answer)


def smooth_covariance(side: int, std: float = 0.3) -> Tensor:
    """Of images (1, side, side) whose pixels go with their neighbours."""
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    places = torch.stack([row.flatten(), column.flatten()], dim=1).double()
    near = torch.exp(-((torch.cdist(places, places) / 2) ** 2))
    return std**2 * near + 1e-3 * torch.eye(side**2, dtype=torch.float64)


def small_unet(seed: int = 0, **changes: Any) -> Any:
    """A `UNet2DModel` for images of `SHAPE`, not trained."""
    from diffusers import UNet2DModel

    torch.manual_seed(seed)
    arguments: dict[str, Any] = {
        "sample_size": 8, "in_channels": 3, "out_channels": 3, "layers_per_block": 1, "block_out_channels": (16,),
        "norm_num_groups": 8, "down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",),
        "add_attention": False,
    }  # fmt: skip
    return UNet2DModel(**arguments | changes).eval()


def strangers() -> Tensor:
    """Crops of photographs of which `open_photographs` has none, (N, *SHAPE) in [0, 1]: no member and no control."""
    found = []
    for name in ("chelsea", "coffee", "rocket"):
        photograph = torch.from_numpy(getattr(skimage.data, name)()).permute(2, 0, 1).float() / 255
        small = nn.functional.avg_pool2d(photograph, 8)
        found.append(small.unfold(1, 8, 2).unfold(2, 8, 2).permute(1, 2, 0, 3, 4).reshape(-1, *SHAPE))
    crops = torch.cat(found)
    return crops[crops.flatten(1).std(dim=1) > 0.05]


def train_on_strangers(unet: nn.Module, scheduler: Any, steps: int = 200, batch: int = 32) -> None:
    """Teach it to predict the noise on these crops."""
    images, generator = 2 * strangers() - 1, torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(unet.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = images[torch.randint(len(images), (batch,), generator=generator)]
        noise = torch.randn(chosen.shape, generator=generator)
        timesteps = torch.randint(scheduler.config.num_train_timesteps, (batch,), generator=generator)
        answer = unet(scheduler.add_noise(chosen, noise, timesteps), timesteps).sample
        loss = (answer - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
