"""Small linear convolutional nets near zero, their training, and what iterating a net comes to."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from memrecon_fast.metrics import APPROXIMATE_MSE, mse

_NO_EPSILON = 1e-100
_BETAS = (0.9, 0.99)


class Chain(nn.Module):
    """3 × 3 convolutions without biases, one after the other, images (B, 1, s, s) → the same; float64, linear.

    filters: of all layers but the last. spread: standard deviation of the first weights. skip: where above 0, what goes
    into every so many layers is added to what comes out of them; the layers that are left over have no such connection.
    """

    def __init__(self, layers: int, filters: int, spread: float, skip: int = 0) -> None:
        super().__init__()
        sizes = [1, *[filters] * (layers - 1), 1]
        convolutions = [
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False, dtype=torch.float64)
            for inputs, outputs in itertools.pairwise(sizes)
        ]
        for layer in convolutions:
            nn.init.normal_(layer.weight, std=spread)
        self.layers = nn.ModuleList(convolutions)
        self.skip = skip

    def forward(self, images: Tensor) -> Tensor:
        """The net's values."""
        values = begun = images
        for number, layer in enumerate(self.layers, start=1):
            values = layer(values)
            if self.skip and number % self.skip == 0 and number < len(self.layers):
                values = begun = values + begun
        return values

    @property
    def parameter_count(self) -> int:
        """Of all layers."""
        return sum(one.numel() for one in self.parameters())


def fit(
    net: nn.Module, images: Tensor, rate: float, max_steps: int, target: float, *, falling: bool = False
) -> tuple[float, int]:
    """Train by Adam until the mean squared error is below `target`; returns it, and the steps.

    falling: whether the rate falls to 0, in a straight line, over `max_steps`.

    Adam without its ε: near zero, the gradient of a deep net is far below the usual 1e-8, and nothing would move.
    """
    optimizer = torch.optim.Adam(net.parameters(), lr=rate, betas=_BETAS, eps=_NO_EPSILON)
    for step in range(max_steps + 1):
        loss = (net(images) - images).square().mean()
        if loss.item() < target or step == max_steps:
            break
        if falling:
            for group in optimizer.param_groups:
                group["lr"] = rate * (1 - step / max_steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item(), step


@torch.inference_mode()
def iterates(net: Callable[[Tensor], Tensor], starts: Tensor, times: Sequence[int]) -> Tensor:
    """f applied t times to the starts (B, *image_shape), for each t: (len(times), B, *image_shape)."""
    kept, values = {}, starts
    for time in range(max(times) + 1):
        if time in times:
            kept[time] = values
        if time < max(times):
            values = net(values)
    return torch.stack([kept[time] for time in times])


def recovered(members: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """Of each end: whether it is a member (within 5e-4), and which one is nearest."""
    nearest = torch.cdist(ends.flatten(1).double(), members.flatten(1).double()).argmin(dim=1)
    return mse(ends, members[nearest]) < APPROXIMATE_MSE, nearest
