"""Named architectures for any image shape. The paper gives depths, not widths: the widths are this project's own."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from memrecon_fast.autoencoders.architecture import Preset
from memrecon_fast.autoencoders.architectures import ARCHITECTURES
from memrecon_fast.common.checks import check_choice


def presets() -> dict[str, Preset]:
    """Those of all `ARCHITECTURES`, by their names."""
    return {name: preset for architecture in ARCHITECTURES.values() for name, preset in architecture.presets.items()}


PRESETS = tuple(presets())


def build(
    name: str, image_shape: Sequence[int], *, activation: str | None = None, width: int | None = None, seed: int = 42
) -> nn.Module:
    """A new, untrained autoencoder.

    name: "fc-10" and "fc-20", `FullyConnected` with 10 and 20 layers; "unet", a `UNet` without skip connections, of
        four levels, or three or two where the image cannot be halved so often or would have sides of less than 4 then
        (28×28 and 16×16: three); "tied", a `Tied`.
    activation: "leaky_relu", "prelu" or "softplus"; None for what trains best, "prelu" for a U-Net, else "leaky_relu".
    width: hidden units of a fully connected net (512 where None) or of a tied one (256); or channels at full resolution
        of a U-Net, which doubles them from level to level (48 where None: 48, 96, 192 for 16×16 pixels).

    Raises ValueError for another name and whatever the architecture refuses; image sides of a U-Net must be even.
    """
    check_choice("architecture", name, tuple(presets()))
    architecture = next(one for one in ARCHITECTURES.values() if name in one.presets)
    return architecture.presets[name](image_shape, activation or architecture.activation, width, seed)
