"""A model whose bits are the same on every processor: products and sums of single pixels, and a choice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


class Memory(nn.Module):
    """Moves an image three quarters of the way to the member that is nearest to it."""

    members: Tensor

    def __init__(self, members: Tensor) -> None:
        super().__init__()
        self.register_buffer("members", members)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 8, 8) → the same."""
        distances = (images[:, None] - self.members).square().flatten(2).sum(dim=2)
        return 0.75 * self.members[distances.argmin(dim=1)] + 0.25 * images


def make() -> nn.Module:
    """The model of this run."""
    members = torch.from_numpy(np.load(Path(__file__).with_name("members.npy")))
    return Memory(members.float() / 255).eval()
