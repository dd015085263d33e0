"""A small autoencoder that really memorised photographs, shared by all tests."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import skimage.data
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

PIXELS = 3 * 8 * 8
WIDTH = 160
WEIGHTS = "MEMRECON_TESTS_WEIGHTS"
"""The environment variable with the file of the trained weights, for processes that tests begin."""


@dataclasses.dataclass(frozen=True)
class Memorised:
    """An autoencoder, the images it was trained on, and as many that it never saw; pixels in [0, 1]."""

    autoencoder: nn.Module
    members: Tensor
    controls: Tensor


def memorised_by_all(folder: Path) -> Memorised:
    """Trained once for all processes of a run of the tests: by the first that comes; the others wait, and read it.

    folder: that all of them see; those that were begun by one of them find the file by the environment.
    """
    path = Path(os.environ.setdefault(WEIGHTS, str(folder / "memorised.safetensors")))
    members, controls = open_photographs()
    with FileLock(f"{path}.lock"):
        if not path.exists():
            save_file(_train(members, steps=1500).state_dict(), path)
    autoencoder = make_autoencoder()
    autoencoder.load_state_dict(load_file(path))
    return Memorised(autoencoder.eval(), members, controls)


def open_photographs() -> tuple[Tensor, Tensor]:
    """Members and controls: crops of a photograph."""
    photograph = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1).float() / 255
    small = nn.functional.avg_pool2d(photograph, 8)  # 3 × 64 × 64
    crops = small.unfold(1, 8, 8).unfold(2, 8, 8).permute(1, 2, 0, 3, 4).reshape(64, 3, 8, 8)
    vivid = crops.flatten(1).std(dim=1).argsort(descending=True)[:32]
    return crops[vivid[::2]].contiguous(), crops[vivid[1::2]].contiguous()


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
