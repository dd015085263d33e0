"""How autoencoders are trained: optimisers, each with its schedule of learning rates and what else belongs to it."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

_WARM_UP = 0.02  # of all steps
# A shorter memory of the squared gradients than Adam's usual 0.999, which near the minimum overshoots again and again:
# 20 layers reach 1e-9 with this and 2e-3 without.
_ADAM_BETAS = (0.9, 0.99)
# As Adam's, and shorter still: of the moments, and of the statistics whose eigenvectors are the coordinates.
_SOAP_BETA = 0.95
_SOAP_EPSILON = 1e-12  # gradients at a loss of 1e-8 are that small
_SOAP_EIGENVECTORS_EVERY = 10
_SOAP_FALL, _SOAP_PLATEAU = 0.7, 1 / 3


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One way to train."""

    optimizer: Callable[[Iterable[nn.Parameter], float], torch.optim.Optimizer]
    """Of the parameters, and the peak of the learning rate."""
    schedule: Callable[[int, int], float]
    """Of a step and of how many there are: the learning rate, relative to its peak."""
    average: float
    """The model is the average of the weights, w̄ ← average·w̄ + (1 − average)·w after every step; 0: the weights."""
    edges: bool
    """Whether images (C, H, W) are fitted by what is minimised, ‖r‖² + ‖Δr‖², with the discrete Laplacian Δ of the
    error r, zero outside. Where the error can be 0 its minimum is the same, but fine detail, which comes last and
    bounds the loss, counts for up to 65 times as much."""
    max_steps: int
    learning_rate: float
    """Where nothing else is said."""

    @property
    def identity(self) -> str:
        """What its steps rest on, beside the optimiser and what a training is told."""
        of_soap = (_SOAP_BETA, _SOAP_EPSILON, _SOAP_EIGENVECTORS_EVERY, _SOAP_FALL, _SOAP_PLATEAU)
        return f"average {self.average}, edges {self.edges}, {_WARM_UP}, {_ADAM_BETAS}, {of_soap}"

    def objective(self, errors: Tensor) -> Tensor:
        """What is minimised, of the errors (B, *image_shape): their mean square, or with `edges` more."""
        objective = errors.square().mean()
        if self.edges and errors.dim() == 4:
            objective = objective + _laplacian(errors).square().mean()
        return objective


def _laplacian(errors: Tensor) -> Tensor:
    """4·r minus its neighbours, of each channel of (B, C, H, W)."""
    kernel = errors.new_tensor([[0.0, -1.0, 0.0], [-1.0, 4.0, -1.0], [0.0, -1.0, 0.0]])
    return nn.functional.conv2d(errors.flatten(0, 1)[:, None], kernel[None, None], padding=1)


def _adam(parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=learning_rate, betas=_ADAM_BETAS, fused=True)


def _soap(parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """Adam in the eigenvectors of Shampoo's statistics.  Vyas et al., arXiv 2409.11321."""
    try:
        library: Any = importlib.import_module("pytorch_optimizer")
    except ImportError as error:
        raise ImportError(
            "SOAP, the optimizer for U-Nets, needs pytorch-optimizer: pip install 'memrecon-fast[audit]'; or take the "
            "optimizer 'adam', which comes less far"
        ) from error
    found: torch.optim.Optimizer = library.SOAP(
        parameters,
        lr=learning_rate,
        betas=(_SOAP_BETA, _SOAP_BETA),
        weight_decay=0.0,
        eps=_SOAP_EPSILON,
        precondition_frequency=_SOAP_EIGENVECTORS_EVERY,
    )
    return found


def _risen(step: int, steps: int) -> tuple[int, float | None]:
    """How long the learning rate rises, and to what it has while it does."""
    warm_up = max(1, round(_WARM_UP * steps))
    return warm_up, (step + 1) / warm_up if step < warm_up else None


def _cosine(step: int, steps: int) -> float:
    """A linear rise, then a cosine down to zero."""
    warm_up, rising = _risen(step, steps)
    if rising is not None:
        return rising
    return 0.5 + 0.5 * math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up))


def _slow_fall(step: int, steps: int) -> float:
    """A linear rise, then slowly to a third at 70 % of the steps, then to zero."""
    warm_up, rising = _risen(step, steps)
    if rising is not None:
        return rising
    corner = max(warm_up + 1.0, _SOAP_FALL * steps)
    if step < corner:
        return 1 - (1 - _SOAP_PLATEAU) * (step - warm_up) / (corner - warm_up)
    return _SOAP_PLATEAU * max(0.0, steps - step) / max(1.0, steps - corner)


RECIPES = {
    "adam": Recipe(_adam, _cosine, average=0.0, edges=False, max_steps=4000, learning_rate=1e-3),
    "soap": Recipe(_soap, _slow_fall, average=0.98, edges=True, max_steps=3000, learning_rate=3e-3),
}
"""By the names that users give."""
