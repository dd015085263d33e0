"""A net whose layers share their weights, and that multiplies with them by itself."""

from __future__ import annotations

from torch import Tensor, nn


class Tied(nn.Module):
    """Of 8 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(8, 8), nn.Linear(8, 8)
        self.decoder.weight = self.encoder.weight

    def forward(self, x: Tensor) -> Tensor:
        """Three products with the shared weights."""
        return self.decoder(self.encoder(x) @ self.encoder.weight.T)  # type: ignore[no-any-return]
