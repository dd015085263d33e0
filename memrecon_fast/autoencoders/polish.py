"""The last layer of an autoencoder, where that is linear, solved exactly."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

_BATCH = 1024
# Of the mean eigenvalue of the Gram matrix. It keeps the change small in directions that the features hardly span.
_RIDGE = 1e-9


@torch.no_grad()
def solve_last_layer(features_of: Callable[[Tensor], Tensor], last: nn.Linear, images: Tensor) -> None:
    """Set the linear layer `last` to the least-squares fit of `images`, (B, *image_shape), in float64.

    features_of: from images (B, *image_shape) to what goes into `last`, (B, width).

    The fit nearest to the weights as they are: where there are at least as many hidden units as images, the loss falls
    to what float32 can hold. The layers before it stay as they are, so a net polished early attracts less than one
    trained down to the end (benchmarks/results/training.md, the rows that end in short-polished).
    """
    for _ in range(2):  # the second pass removes what rounding and the ridge left of the residual
        change = _least_squares(features_of, last, images)
        last.weight.add_(change[:-1].T)
        last.bias.add_(change[-1])


def _least_squares(features_of: Callable[[Tensor], Tensor], last: nn.Linear, images: Tensor) -> Tensor:
    """The change of (weights, bias), float64 (width + 1, d), that minimises the ridge-penalised loss."""
    size, device = last.in_features + 1, last.weight.device
    gram = torch.zeros(size, size, dtype=torch.float64, device=device)
    moment = torch.zeros(size, last.out_features, dtype=torch.float64, device=device)
    weights = torch.cat([last.weight.T, last.bias[None]]).double()
    for first in range(0, len(images), _BATCH):
        batch = images[first : first + _BATCH].to(device)
        features = nn.functional.pad(features_of(batch), (0, 1), value=1.0).double()
        gram += features.T @ features
        moment += features.T @ (batch.flatten(1).double() - features @ weights)
    gram.diagonal().add_(_RIDGE * gram.trace() / min(size, len(images)))
    return torch.cholesky_solve(moment, torch.linalg.cholesky(gram))
