"""The training image that is nearest to an image: by matrix products, and those that come close exactly."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from memrecon_fast.metrics import mse_of_rows

_BYTES_AT_ONCE = 2**24
"""Of training images in float64, as they are compared."""
_EPSILON = np.finfo(np.float64).eps


class Compared(Protocol):
    """Images that others are compared with; `Nearest` is one."""

    def of(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """As `Nearest.of`."""


class Nearest:
    """Training images, float32 (M, *image_shape), at least one, that others are compared with."""

    def __init__(self, images: Tensor) -> None:
        self._rows = images.cpu().flatten(1).numpy()
        self._squares = np.array([np.square(row, dtype=np.float64).sum() for row in self._rows])

    def of(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest of them to each query, int64 (n,), the first of several, and its MSE, float64 (n,).

        queries: float32 (n, *image_shape) on the CPU. −1 and NaN where a pixel is NaN or infinite. What comes of a
        query does not depend on the others.
        """
        rows = queries.flatten(1).numpy()
        nearest, least = np.full(len(rows), -1, np.int64), np.full(len(rows), np.nan)
        finite = np.flatnonzero(np.isfinite(rows).all(axis=1))
        exact = rows[finite].astype(np.float64)
        squares = np.einsum("ij,ij->i", exact, exact)
        entries = max(rows.shape[1], 1)
        step = max(1, _BYTES_AT_ONCE // (8 * entries))
        for first in range(0, len(self._rows), step):
            some = self._rows[first : first + step]
            sums = squares[:, None] + self._squares[None, first : first + step]
            distances = sums - 2 * exact @ some.astype(np.float64).T
            rounding = entries * _EPSILON * sums
            close = distances - rounding <= (distances + rounding).min(axis=1, keepdims=True)
            for at, row in enumerate(finite):
                candidates = np.flatnonzero(close[at])
                mse = mse_of_rows(some[candidates], rows[row : row + 1])
                best = int(mse.argmin())
                if nearest[row] < 0 or mse[best] < least[row]:
                    nearest[row], least[row] = first + candidates[best], mse[best]
        return torch.from_numpy(nearest), torch.from_numpy(least)
