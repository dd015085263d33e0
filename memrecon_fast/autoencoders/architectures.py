"""All architectures. A new one is a module with its class and its `Architecture`, and one line here."""

from __future__ import annotations

from torch import nn

from memrecon_fast.autoencoders import fully_connected, tied, unet
from memrecon_fast.autoencoders.architecture import Architecture

ARCHITECTURES: dict[str, Architecture] = {
    "FullyConnected": fully_connected.ARCHITECTURE,
    "UNet": unet.ARCHITECTURE,
    "Tied": tied.ARCHITECTURE,
}
"""By the names that are in the files of models."""


def name_of(model: nn.Module) -> str | None:
    """The name of the architecture of a model; None for a model of another class, derived ones included."""
    return next((name for name, one in ARCHITECTURES.items() if type(model) is one.model), None)
