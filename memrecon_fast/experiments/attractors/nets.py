"""Small convolutional nets near zero, their training, and where a net takes what it is given."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

_NO_EPSILON = 1e-100
_BETAS = (0.9, 0.99)


class Chain(nn.Module):
    """3 × 3 convolutions without biases, one after the other, images (B, 1, s, s) → the same; float64, linear.

    filters: of all layers but the last. spread: standard deviation of the first weights. seed: of these.
    skip: 0, or the layers between two skip connections: to the values after 2·skip layers those after skip layers are
    added, and so on. The first layers are not skipped: where all are, a net near zero is the identity, which has
    nothing to learn.
    """

    def __init__(self, layers: int, filters: int, spread: float, seed: int, skip: int = 0) -> None:
        super().__init__()
        self.skip = skip
        sizes = [1, *[filters] * (layers - 1), 1]
        convolutions = [
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False, dtype=torch.float64)
            for inputs, outputs in itertools.pairwise(sizes)
        ]
        generator = torch.Generator().manual_seed(seed)
        for layer in convolutions:
            nn.init.normal_(layer.weight, std=spread, generator=generator)
        self.layers = nn.Sequential(*convolutions)

    def forward(self, images: Tensor) -> Tensor:
        """The net's values."""
        values = images
        kept: Tensor | None = None
        for number, layer in enumerate(self.layers, start=1):
            values = layer(values)
            if self.skip and number % self.skip == 0:
                values = kept = values if kept is None else values + kept
        return values

    @property
    def parameter_count(self) -> int:
        """Of all layers."""
        return sum(one.numel() for one in self.parameters())


def descend(net: nn.Module, images: Tensor, longest: float, max_steps: int, target: float) -> tuple[float, int]:
    """Gradient descent until the mean squared error is below `target`; returns it, and the steps.

    The step has the direction of the gradient and Polyak's length, loss / ‖gradient‖, at most `longest`: near zero,
    where the gradient of a deep net is next to nothing, and near the end alike, it is the path of small constant steps
    that is followed, in a few hundred of them.
    """
    parameters = list(net.parameters())
    for step in range(max_steps + 1):
        loss = (net(images) - images).square().mean()
        if loss.item() < target or step == max_steps:
            break
        gradients = torch.autograd.grad(loss, parameters)
        size = torch.linalg.vector_norm(torch.stack([one.norm() for one in gradients])).item()
        if not 0 < size < torch.inf:
            break
        length = min(longest, loss.item() / size)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(gradient, alpha=length / size)
    return loss.item(), step


def fit(net: nn.Module, images: Tensor, rate: float, max_steps: int, target: float) -> tuple[float, int]:
    """Train by Adam, without its ε, until the mean squared error is below `target`; the rate falls to 0 in a straight
    line over `max_steps`. Returns the error, and the steps."""
    optimizer = torch.optim.Adam(net.parameters(), lr=rate, betas=_BETAS, eps=_NO_EPSILON)
    for step in range(max_steps + 1):
        loss = (net(images) - images).square().mean()
        if loss.item() < target or step == max_steps:
            break
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


def from_span(images: Tensor, outputs: Tensor) -> Tensor:
    """‖P⊥ y‖ / ‖y‖ of each output y, float64: 0 in the span of the images."""
    spanning, y = images.flatten(1).double().T, outputs.flatten(1).double().T
    across = y - spanning @ (torch.linalg.pinv(spanning) @ y)
    share: Tensor = across.norm(dim=0) / y.norm(dim=0)
    return share
