"""How images are degraded before they are recovered: y = Hx + ε, (3), H a mask of kept (1) and erased (0) entries.

The six named masks are this project's own: the figure that shows the paper's six is not available as text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from memrecon_fast.common.checks import check_choice, check_integer, check_number, check_seed
from memrecon_fast.common.seeding import keyed_random

MASKS = ("center", "half", "random-50", "random-80", "stripes", "corner")


def make_mask(name: str, image_shape: Sequence[int], seed: int = 0) -> Tensor:
    """The named mask as bool (C, H, W), True = kept; the same for every channel.

    center     a square of half the height and width in the centre is erased (25 % of the pixels)
    half       the lower half is erased
    random-50  each pixel is erased with probability 0.5, a function of `seed`
    random-80  each pixel is erased with probability 0.8, a function of `seed`
    stripes    every second band of rows is erased; a band is a sixteenth of the height, at least one row
    corner     all is erased but the upper left quarter

    The command `memrecon audit` draws the random ones with seed 42, if its `--seed` does not say otherwise.

    Raises ValueError for another name, or for a shape that is not (C, H, W).
    """
    check_choice("mask", name, MASKS)
    check_seed(seed)
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(f"the named masks are for images (C, H, W), not for {tuple(image_shape)}")
    channels, height, width = image_shape
    row = torch.arange(height)[:, None].expand(height, width)
    column = torch.arange(width)[None, :].expand(height, width)
    if name == "center":
        kept = ~(_in_middle(row, height) & _in_middle(column, width))
    elif name == "half":
        kept = row < height - height // 2
    elif name == "stripes":
        kept = (row // max(1, height // 16)) % 2 == 0
    elif name == "corner":
        kept = (row < math.ceil(height / 2)) & (column < math.ceil(width / 2))
    else:
        erased_percent = int(name.removeprefix("random-"))
        kept = torch.from_numpy(keyed_random(name, seed, 0).random((height, width)) >= erased_percent / 100)
    return kept.expand(channels, height, width).clone()


def erase(images: Tensor, mask: Tensor, noise_std: float = 0.0, seed: int = 0, first_index: int = 0) -> Tensor:
    """Degrade images: y = Hx + ε, (3); float32 like `images` (B, *image_shape).

    mask: bool, True = kept, broadcastable to `images`.
    noise_std: standard deviation of the Gaussian noise ε that is added to every entry, kept or erased; y is not
        clipped, so that it may leave [0, 1].
    seed, first_index: the noise of an image depends on (seed, first_index + its position) alone, not on the batch.

    Raises TypeError for images that are not floating-point or a mask that is not boolean, ValueError for a mask that
    does not broadcast.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"images must be a floating-point tensor with pixels in [0, 1], not {kind}")
    check_number("noise_std", noise_std, low=0)
    check_seed(seed)
    check_integer("first_index", first_index, low=0)
    mask = broadcast_mask(mask, images)
    degraded = torch.where(mask, images, 0.0)
    if noise_std > 0:
        for position in range(len(images)):
            random = keyed_random("noise", seed, first_index + position)
            noise = torch.from_numpy(random.standard_normal(images.shape[1:], dtype=np.float32))
            degraded[position] += noise_std * noise.to(degraded.device)
    return degraded


def check_mask(name: str, mask: Tensor) -> None:
    """Raise ValueError where a mask keeps every entry, or none: what comes back under it says nothing of a model."""
    if mask.all():
        raise ValueError(f"{name} keeps everything; it must erase a part of the images")
    if not mask.any():
        raise ValueError(f"{name} erases everything; it must keep a part of the images")


def is_about_zero(erased: Tensor) -> bool:
    """Whether entries are 0, or noise about 0 that is too weak to matter: up to a standard deviation of 0.003, which
    adds a tenth of what a score may have."""
    return not erased.numel() or bool(erased.abs().amax() <= 0.02 and erased.square().mean() <= 1e-5)


def may_be_erased(images: Tensor) -> Tensor:
    """Of each image (B, *image_shape) whether any entry can be one that was erased, bool (B,): 0, or noise about 0 that
    is too weak to matter."""
    return (images.abs() <= 0.01).flatten(1).any(dim=1)


def contradiction(degraded: Tensor, mask: Tensor, noisy: bool) -> str:
    """How a degraded image contradicts the mask that is said to have degraded it, in words; "" where it does not.

    degraded: float32 (image_shape). mask: bool, the same shape, True = kept. noisy: whether it may carry noise;
        without, what was erased is about 0, see `is_about_zero`.
    """
    erased = degraded[~mask]
    wrong = int(erased.count_nonzero())
    if is_about_zero(erased):
        return ""
    if mask.any() and not degraded[mask].any():
        return (
            f"all is 0 that the mask keeps, and {wrong} of {len(erased)} entries are not that it erases: it is inverted"
        )
    if noisy:
        return ""
    return (
        f"{wrong} of the {len(erased)} entries that the mask erases are not 0; is the mask inverted (True or bright "
        "means kept), is the image not degraded, are its holes filled with another value (white, grey, what JPEG makes "
        "of black), or does it carry noise?"
    )


def broadcast_mask(mask: Tensor, images: Tensor) -> Tensor:
    """`mask` expanded to the shape of `images`. Raises TypeError unless boolean, ValueError unless it broadcasts."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask must be a boolean tensor (True = kept), not {kind}")
    try:
        return mask.to(images.device).expand_as(images)
    except RuntimeError:
        raise ValueError(
            f"mask of shape {tuple(mask.shape)} does not broadcast to the images' shape {tuple(images.shape)}"
        ) from None


def _in_middle(position: Tensor, size: int) -> Tensor:
    return (position >= size // 4) & (position < size // 4 + size // 2)
