"""Attempts at one image: pairs of a penalty γ and an initial mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from memrecon_fast.degradation import contradiction
from memrecon_fast.engine.prox import Prox
from memrecon_fast.engine.samples import Sample, Staged
from memrecon_fast.engine.transfer import to_device, upload
from memrecon_fast.ops.admm import SplitState, plain
from memrecon_fast.settings import Settings


def count_attempts(settings: Settings, known_masks: bool, first_twice: bool = False) -> int:
    """How many there are; a known mask leaves no choice but γ.

    first_twice: the first one is made once more. It was begun in another number format, and no image is to be lost by
    that.
    """
    return len(settings.gammas) * (1 if known_masks else settings.starts) + first_twice


def stage(sample: Sample, settings: Settings, prox: Prox, known_masks: bool, first_twice: bool = False) -> Staged:
    """The attempt that the sample asks for: all γ with the first initial mask come first. Raises ValueError where a
    known mask is missing, or where the image contradicts it, see `degradation.contradiction` (on a CPU)."""
    start, which = divmod(max(0, sample.attempt - first_twice), len(settings.gammas))
    images = {"y": sample.degraded, "mask": _first_mask(sample, settings, prox.image_shape, known_masks, start)}
    if sample.initial_state is not None:
        images["s"] = sample.initial_state
    return Staged(sample, images, settings.gammas[which])


def admit_staged(staged: Sequence[Staged], prox: Prox, slots: SplitState) -> None:
    """Copy what was staged into these slots: y, the mask, γ and the coefficients."""
    for name, target in (("y", slots.y), ("mask", slots.mask)):
        upload([one.images[name] for one in staged], prox.as_images(target))
    gammas = torch.tensor([one.gamma for one in staged], dtype=torch.float64, device="cpu")
    slots.gamma.copy_(to_device(gammas, slots.device))
    slots.coefficients.copy_(to_device(plain.coefficients(gammas), slots.device))


def _first_mask(
    sample: Sample, settings: Settings, image_shape: Sequence[int], known_masks: bool, start: int
) -> Tensor:
    if known_masks:
        if sample.mask is None:
            raise ValueError(f"image {sample.index} comes without its mask")
        if sample.attempt == 0 and sample.degraded.device.type == "cpu":  # a GPU would have to be waited for
            wrong = contradiction(sample.degraded, sample.mask, noisy=not settings.restore_known_pixels)
            if wrong:
                raise ValueError(f"image {sample.index}: {wrong}")
        return sample.mask
    if sample.initial_mask is not None:
        return sample.initial_mask
    return settings.draw_initial_mask(sample.index, image_shape, start)
