"""Small nets of which all weights were trained, and what they were trained on."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from memrecon_fast.reconstruction import Trained, fit
from memrecon_fast.reconstruction.projected import onto_sphere


@dataclasses.dataclass(frozen=True, eq=False)
class Net:
    """A net, and its training."""

    module: nn.Module
    inputs: Tensor
    states: Trained


def random_inputs(n: int, d: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(2000 + seed)  # not that of the weights
    return onto_sphere(torch.randn(n, d, generator=generator, dtype=torch.float64))


def trained(module: nn.Module, inputs: Tensor, only: str | None = None, size: float = 1.0) -> Net:
    """size: of labels; where they are small, the body hardly moves."""
    labels = size * torch.tensor([1.0, -1.0]).double().repeat(len(inputs))[: len(inputs)]
    return Net(module, inputs, fit(module, inputs, labels, only, size**2 * 1e-7))


def by_sgd(module: nn.Module, inputs: Tensor, labels: Tensor, batch: int, steps: int) -> Net:
    """As anyone would: float32, cross-entropy, momentum, batches."""
    initial = {name: value.clone() for name, value in module.state_dict().items()}
    optimiser = torch.optim.SGD(module.parameters(), 0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        chosen = torch.randperm(len(inputs), generator=generator)[:batch]
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(inputs[chosen]), labels[chosen]).backward()
        optimiser.step()
    return Net(module, inputs, Trained(module.state_dict(), initial, 0.0, steps))
