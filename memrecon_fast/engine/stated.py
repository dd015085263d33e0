"""What an autoencoder states of itself: the shape of its images, and how many it takes at a time."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from torch import nn

from memrecon_fast.common.typing import Autoencoder

ANY_NUMBER = range(1, sys.maxsize)
_WRAPPED = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}
"""By the name of torch's class that hands its images on as they are: where it keeps the module."""


def original_of(autoencoder: Autoencoder) -> Autoencoder:
    """What `torch.compile` or `DataParallel` was given; of anything else the thing itself."""
    while isinstance(autoencoder, nn.Module) and type(autoencoder).__name__ in _WRAPPED:
        autoencoder = getattr(autoencoder, _WRAPPED[type(autoencoder).__name__])
    return autoencoder


def stated_shape(autoencoder: Autoencoder) -> tuple[int, int, int] | None:
    """What the attribute `image_shape` says, of an `nn.Sequential` that of its first part; None unless that is three
    integers: another's model may mean anything."""
    autoencoder = original_of(autoencoder)
    shape = getattr(autoencoder, "image_shape", None)
    if isinstance(shape, (tuple, list)) and len(shape) == 3 and all(isinstance(size, int) for size in shape):
        return (shape[0], shape[1], shape[2])
    first = next(autoencoder.children(), None) if isinstance(autoencoder, nn.Sequential) else None
    return stated_shape(first) if first is not None else None


def stated_batch_sizes(autoencoder: Autoencoder) -> range:
    """How many images it takes at a time: what the attribute `batch_sizes` says, a range of positive integers, its own
    or that of a part; any number where nothing is said."""
    parts = autoencoder.modules() if isinstance(autoencoder, nn.Module) else [autoencoder]
    for part in parts:
        sizes = getattr(part, "batch_sizes", None)
        if isinstance(sizes, range) and len(sizes) and sizes.step > 0 and sizes[0] > 0:
            return sizes
    return ANY_NUMBER


def check_shape(autoencoder: Autoencoder, image_shape: Sequence[int]) -> None:
    """Raise ValueError where the autoencoder states another shape than that of the images."""
    expected, given = stated_shape(autoencoder), tuple(image_shape)
    if expected in (None, given):
        return
    hint = ""
    if len(given) == 3 and expected == (given[2], given[0], given[1]):
        hint = ": channels come first, (C, H, W), in a batch images.permute(0, 3, 1, 2)"
    elif given == expected[1:]:
        hint = ": an image alone is a batch as image[None]"
    raise ValueError(f"the model is for images of shape {expected}; these are {given}{hint}")


def layout_hint(image_shape: Sequence[int]) -> str:
    """What may be wrong where an autoencoder fails on such images; empty where nothing looks like it."""
    colours = (1, 3)
    if len(image_shape) == 3 and image_shape[2] in colours and image_shape[0] not in colours:
        return f"; images are channels-first, (C, H, W), and {tuple(image_shape)} looks like (H, W, C)"
    if len(image_shape) == 2:
        return f"; these are images of shape {tuple(image_shape)}: an image alone, (C, H, W), is a batch as image[None]"
    return ""
