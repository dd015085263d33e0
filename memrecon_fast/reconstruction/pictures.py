"""How pictures became the inputs of a model, and how inputs are shown as pictures."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from memrecon_fast.common.checks import check_choice

STANDARDISED, PIXELS = "standardised", "pixels"
SCALINGS = (STANDARDISED, PIXELS)


@dataclasses.dataclass(frozen=True)
class Scaling:
    """What was done to a picture of pixels in [0, 1] before the model saw it.

    name: "standardised": its own mean was taken from it, and it was divided by its own standard deviation, so that its
    length is √d; "pixels": (pixel − mean)/std, with the same numbers for all pictures, of each channel or of all.

    Raises ValueError for another name, other numbers of means than of deviations, or deviations that are not above 0.
    """

    name: str = STANDARDISED
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        check_choice("scaling", self.name, SCALINGS)
        if len(self.mean) != len(self.std) or not self.mean:
            raise ValueError(f"there must be as many means as deviations, not {len(self.mean)} and {len(self.std)}")
        if not all(math.isfinite(one) for one in (*self.mean, *self.std)) or min(self.std) <= 0:
            raise ValueError(f"means must be finite and deviations above 0, not {self.mean} and {self.std}")

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Raises ValueError where it has other numbers than these pictures have channels."""
        if len(self.mean) not in (1, image_shape[0]):
            raise ValueError(f"there are {len(self.mean)} means, and pictures of {image_shape[0]} channels")

    def inputs_of(self, pictures: Tensor) -> Tensor:
        """float64 (n, d), of any length, of pictures (n, C, H, W).

        Raises ValueError for a picture of one colour alone, of which standardising leaves nothing.
        """
        offset, factor = self._of(pictures.double())
        if (factor == 0).any():
            raise ValueError(f"picture {int((factor.flatten(1) == 0).any(1).nonzero()[0])} has one value in all pixels")
        return ((pictures.double() - offset) / factor).flatten(1)

    def pictures_like(self, inputs: Tensor, truth: Tensor) -> Tensor:
        """float64 (n, C, H, W), not clipped: inputs (n, d), of any length, as pictures of the brightness of the true
        ones (n, C, H, W): what the scaling took away is theirs, and their length is the one that fits best."""
        offset, factor = self._of(truth.double())
        true_inputs = self.inputs_of(truth)
        fitting = (true_inputs * inputs).sum(1).clamp_min(0) / inputs.square().sum(1)
        return offset + factor * (fitting[:, None] * inputs).reshape(truth.shape)

    def pictures_of(self, inputs: Tensor, image_shape: tuple[int, ...]) -> Tensor:
        """float64 (n, C, H, W) in [0, 1]: inputs (n, d), of any length, as pictures; as the brightness is unknown, the
        brightest pixel is 1, and the darkest of a standardised picture 0."""
        shaped = inputs.double().reshape(-1, *image_shape)
        if self.name == STANDARDISED:
            low, high = shaped.flatten(1).min(1).values, shaped.flatten(1).max(1).values
            return (shaped - _each(low)) / _each((high - low).clamp_min(1e-12))
        offset, factor = self._of(shaped)
        room = (1 - offset).clamp_min(0) / (factor * shaped).clamp_min(1e-12)
        return (offset + _each(room.flatten(1).min(1).values) * factor * shaped).clamp(0, 1)

    def _of(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """What is taken from each, and what it is divided by."""
        if self.name == STANDARDISED:
            flat = pictures.flatten(1)
            return _each(flat.mean(1)), _each(flat.std(1, correction=0))
        channels = (1, -1, 1, 1)
        return (
            torch.tensor(self.mean, dtype=torch.float64).reshape(channels),
            torch.tensor(self.std, dtype=torch.float64).reshape(channels).expand(len(pictures), -1, 1, 1),
        )


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]
