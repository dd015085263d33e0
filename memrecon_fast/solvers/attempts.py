"""Attempts at one image: pairs of a penalty γ and an initial mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from memrecon_fast.ops import plain
from memrecon_fast.settings import Settings
from memrecon_fast.solvers.samples import Sample


def count_attempts(settings: Settings, known_masks: bool, first_twice: bool = False) -> int:
    """How many there are; a known mask leaves no choice but γ.

    first_twice: the first one is made once more. It was begun in another number format, and no image is to be lost by
    that.
    """
    return len(settings.gammas) * (1 if known_masks else settings.starts) + first_twice


def begin(
    sample: Sample, settings: Settings, image_shape: Sequence[int], known_masks: bool, first_twice: bool = False
) -> tuple[float, Tensor]:
    """γ and the first mask, bool image_shape, of the attempt that the sample asks for: all γ with the first initial
    mask come first. Raises ValueError where a known mask is missing."""
    start, which = divmod(max(0, sample.attempt - first_twice), len(settings.gammas))
    if known_masks:
        if sample.mask is None:
            raise ValueError(f"image {sample.index} comes without its mask")
        mask = sample.mask
    elif sample.initial_mask is not None:
        mask = sample.initial_mask
    else:
        mask = settings.draw_initial_mask(sample.index, image_shape, start)
    return settings.gammas[which], mask


def gamma_rows(gamma: float) -> dict[str, Tensor]:
    """What is loaded into the slots' tensors `gamma` [S] and `coefficients` [S, 3]."""
    exact = torch.tensor([gamma], dtype=torch.float64, device="cpu")
    return {"gamma": exact[0].float(), "coefficients": plain.coefficients(exact)[0]}
