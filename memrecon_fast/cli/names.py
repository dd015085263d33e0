"""Names and defaults that help texts and completion show.

They are those of the registries, which cannot be asked without torch, whose import takes longer than a person waits for
a completion. A test holds them to these; a name that is missing here works all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

METHODS = ("accelerated", "paper", "known-mask", "iterate", "inpaint", "ddnm")
DEFAULT_METHODS = ("accelerated", "iterate")
MASKS = ("center", "half", "random-50", "random-80", "stripes", "corner")
BACKENDS = ("auto", "torch", "cpp", "triton")
PRECISIONS = ("float32", "float32x3", "tf32", "bfloat16", "progressive")
INITIAL_MASKS = ("random", "zeros")
GAMMAS = {"paper": (0.5,), "accelerated": (0.2, 0.5, 1.0)}
PRESETS = ("fc-10", "fc-20", "unet", "tied")
ACTIVATIONS = ("leaky_relu", "prelu", "softplus")
OPTIMIZERS = ("adam", "soap")
KINDS = ("smooth", "uniform", "gaussian", "images")
DEVICES = ("auto", "cpu", "cuda")
CHANNELS = ("rgb", "bgr")
STARTS, SEED, MAX_OUTER_ITERATIONS = 1, 42, 200


def completing(names: Sequence[str]) -> Callable[[str], list[str]]:
    """Completes one of these names; typer calls it with what is written so far."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]
