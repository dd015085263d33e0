"""How near a reconstruction is to the truth."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

RECOVERED = 1e-2
"""An input counts as recovered where its distance to the true one, over √d, is not above this."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Of n true inputs with those that were found, matched so that the sum of their distances is least."""

    index: Tensor
    """int64 (n,): which of those that were found; −1 where there were too few."""
    distance: Tensor
    """float64 (n,): ‖x_i − x̂‖ over the length of the true inputs, √d or its root mean square; signs as they were
    found; √2 where there is none, as of an unrelated one."""
    flipped: Tensor
    """bool (n,): −x̂ would be nearer."""

    @property
    def error(self) -> float:
        """ρ, the mean of the distances."""
        return float(self.distance.mean())

    @property
    def recovered(self) -> int:
        """How many are."""
        return int((self.distance <= RECOVERED).sum())


def compare(truth: Tensor, found: Tensor, up_to_sign: bool = False) -> Comparison:
    """ρ = 1/(n√d)·Σ‖x_i − x̂_π(i)‖, π by the Hungarian method. truth: (n, d), each of length √d; of other lengths, their
    root mean square takes the place of √d. found: (m, d).

    Inputs are matched up to their signs, which are then compared. up_to_sign: signs do not count.
    """
    from scipy.optimize import linear_sum_assignment

    truth, found = truth.double(), found.double()
    scale = float(truth.square().sum(dim=1).mean().sqrt())
    same, opposite = torch.cdist(truth, found) / scale, torch.cdist(truth, -found) / scale
    rows, columns = map(torch.from_numpy, linear_sum_assignment(torch.minimum(same, opposite).numpy()))
    index = torch.full((len(truth),), -1, dtype=torch.int64)
    index[rows] = columns
    distance = torch.full((len(truth),), math.sqrt(2), dtype=torch.float64)
    flipped = torch.zeros(len(truth), dtype=torch.bool)
    flipped[rows] = opposite[rows, columns] < same[rows, columns]
    distance[rows] = torch.minimum(same, opposite)[rows, columns] if up_to_sign else same[rows, columns]
    return Comparison(index, distance, flipped)
