"""A small autoencoder that really memorised photographs, shared by all tests."""

from __future__ import annotations

import dataclasses

import skimage.data
import torch
from torch import Tensor, nn

PIXELS = 3 * 8 * 8
WIDTH = 160


@dataclasses.dataclass(frozen=True)
class Memorised:
    """An autoencoder, the images it was trained on, and as many that it never saw; pixels in [0, 1]."""

    autoencoder: nn.Module
    members: Tensor
    controls: Tensor


def memorise_photographs() -> Memorised:
    """Train on 16 crops of a photograph, a few seconds."""
    photograph = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1).float() / 255
    small = nn.functional.avg_pool2d(photograph, 8)  # 3 × 64 × 64
    crops = small.unfold(1, 8, 8).unfold(2, 8, 8).permute(1, 2, 0, 3, 4).reshape(64, 3, 8, 8)
    vivid = crops.flatten(1).std(dim=1).argsort(descending=True)[:32]
    members, controls = crops[vivid[::2]].contiguous(), crops[vivid[1::2]].contiguous()
    return Memorised(_train(members, steps=1500), members, controls)


def make_autoencoder() -> nn.Module:
    """The layers, for images of 8×8 pixels in colour, not trained."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(PIXELS, WIDTH),
        *(layer for _ in range(3) for layer in (nn.LeakyReLU(), nn.Linear(WIDTH, WIDTH))),
        nn.LeakyReLU(),
        nn.Linear(WIDTH, PIXELS),
        nn.Unflatten(1, (3, 8, 8)),
    )


def _train(images: Tensor, steps: int) -> nn.Module:
    torch.manual_seed(42)
    autoencoder = make_autoencoder()
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        loss = (autoencoder(images) - images).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    assert loss.item() < 1e-5
    return autoencoder.eval()
