"""Types that are used throughout."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Autoencoder = Callable[[Tensor], Tensor]
"""(B, *image_shape) → the same."""
