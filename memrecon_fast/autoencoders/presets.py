"""Named architectures for any image shape. The paper gives depths, not widths: the widths are this project's own."""

from __future__ import annotations

from collections.abc import Sequence

from memrecon_fast.autoencoders.fully_connected import FullyConnected
from memrecon_fast.autoencoders.unet import UNet
from memrecon_fast.common.checks import check_choice

PRESETS = ("fc-10", "fc-20", "unet")
_WIDTH = 512


def build(
    name: str, image_shape: Sequence[int], *, activation: str = "leaky_relu", width: int | None = None, seed: int = 42
) -> FullyConnected | UNet:
    """A new, untrained autoencoder.

    name: "fc-10" and "fc-20", fully connected with 10 and 20 layers; "unet", four levels without skip connections,
        because from one with skip connections at full resolution no training image could be recovered.
    width: hidden units of a fully connected net (512 where None), or channels at full resolution of a U-Net (16),
        which doubles them from level to level.

    Raises ValueError for another name and whatever the architecture refuses; image sides of a U-Net must be divisible
    by 8.
    """
    check_choice("architecture", name, PRESETS)
    if name == "unet":
        width = 16 if width is None else width
        return UNet(image_shape, (width, 2 * width, 4 * width, 8 * width), activation, skips="none", seed=seed)
    depth = int(name.removeprefix("fc-"))
    return FullyConnected(image_shape, _WIDTH if width is None else width, depth, activation, seed=seed)
