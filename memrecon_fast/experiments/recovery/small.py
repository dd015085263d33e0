"""What those experiments share that answer questions which the paper leaves open: small nets, few images, few masks."""

from __future__ import annotations

from typing import Any

from memrecon_fast.experiments.experiment import Pictures
from memrecon_fast.experiments.recovery.nets import Net

PICTURES = Pictures(members=30, controls=30, size=16)
MASKS = ("center", "half", "random-80")
WIDTH = 384
ITERATED = ", then f"
"""After a method's name: its estimates, after iterations of the autoencoder f."""
NOT_IN_PAPER = "The paper has no such table or figure."
SMALL = (
    "The nets are fully connected, of 384 units a layer where nothing else is said, and know few images, reduced to "
    "16×16 pixels. Where nothing else is said, the paper's method makes at most 40 outer iterations. One training of "
    "each, from one seed: differences of a few images between two nets are no evidence."
)
_NAMES = {"leaky_relu": "LeakyReLU", "prelu": "PReLU", "softplus": "Softplus"}


def small_net(depth: int = 10, width: int = WIDTH, activation: str = "leaky_relu", **more: Any) -> Net:
    """A fully connected net for images of 16×16 pixels. γ: as published for 20 layers and for PReLU, else 0.5."""
    title = f"FC {depth} × {width}, {_NAMES[activation]}"
    gamma = 0.1 if depth == 20 or activation == "prelu" else 0.5
    how = {"gamma": gamma, "side": 16, "max_outer_iterations": 40, "training": {"max_steps": 2000}, **more}
    return Net(title, "fc-10", activation, width=width, depth=depth, **how)
