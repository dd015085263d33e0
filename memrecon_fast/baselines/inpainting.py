"""Classical inpainting: erased pixels from their neighbours, the mask known, without any autoencoder.

What this gets back of a training image tells nothing about a model: it is what an image gives away by itself.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ALGORITHM = {"algorithm": "biharmonic"}


def inpaint(degraded: Tensor, masks: Tensor) -> Tensor:
    """Fill the erased pixels so that the biharmonic equation ∇⁴x = 0 holds in them (scikit-image); float32.

    degraded: float32 (B, C, H, W). masks: bool, the same shape, True = kept. Kept pixels stay as they are, erased ones
    stay within the range of the kept ones of their channel; a channel without a kept pixel stays as it is.
    """
    pairs = zip(degraded.cpu().numpy(), masks.cpu().numpy(), strict=True)
    return torch.from_numpy(np.stack([_inpaint_one(image, kept) for image, kept in pairs])).to(degraded.device)


def _inpaint_one(image: NDArray[np.float32], kept: NDArray[np.bool_]) -> NDArray[np.float32]:
    from skimage.restoration import inpaint_biharmonic

    if kept.all() or not kept.any():
        return image
    if (kept == kept[0]).all():  # one system of equations for all channels
        return np.asarray(inpaint_biharmonic(image, ~kept[0], channel_axis=0), np.float32)
    channels = [
        inpaint_biharmonic(channel, ~of_channel) if of_channel.any() and not of_channel.all() else channel
        for channel, of_channel in zip(image, kept, strict=True)
    ]
    return np.asarray(np.stack(channels), np.float32)
