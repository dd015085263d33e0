"""Models of random features that were fitted to random inputs."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from memrecon_fast.reconstruction import RandomFeatures


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A model, and what it was fitted to."""

    model: RandomFeatures
    inputs: Tensor
    labels: Tensor
    theta: Tensor


def fitted(n: int, d: int, p: int, seed: int = 0, activation: str = "relu") -> Fitted:
    generator = torch.Generator().manual_seed(1000 + seed)  # not that of the weights
    inputs = torch.randn(n, d, generator=generator, dtype=torch.float64)
    inputs *= math.sqrt(d) / inputs.norm(dim=1, keepdim=True)
    labels = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0).double()
    model = RandomFeatures.from_seed(p, d, seed, activation)
    return Fitted(model, inputs, labels, model.fit(inputs, labels))
