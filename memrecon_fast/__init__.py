"""Which training images can be recovered from this autoencoder?

Plug-and-play ADMM with the autoencoder as the proximal step and a blind estimate of the erasure mask
(Abitbul & Dar, arXiv 2310.02897), on compiled kernels, with images batched in flight.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from memrecon_fast import degradation, metrics
from memrecon_fast.engine.inflight import InFlight
from memrecon_fast.engine.samples import Sample
from memrecon_fast.ops import backends
from memrecon_fast.recovery import iterate, prepare_recover, recover
from memrecon_fast.results import Recovery, Status
from memrecon_fast.settings import Settings
from memrecon_fast.tracing import Trace, trace, trace_iterate

if TYPE_CHECKING:
    from memrecon_fast import attractors, audit, autoencoders, images, reconstruction, reference
    from memrecon_fast.reconstruction import reconstruct as reconstruct

__version__ = "0.1.0"

__all__ = [
    "InFlight",
    "Recovery",
    "Sample",
    "Settings",
    "Status",
    "Trace",
    "attractors",
    "audit",
    "autoencoders",
    "backends",
    "degradation",
    "images",
    "iterate",
    "metrics",
    "prepare_recover",
    "reconstruct",
    "reconstruction",
    "recover",
    "reference",
    "trace",
    "trace_iterate",
]
_LATER = ("attractors", "audit", "autoencoders", "images", "reconstruction", "reference")
"""What needs more than torch and NumPy, or is not needed by every program: imported when it is first used."""


def __getattr__(name: str) -> Any:
    if name == "reconstruct":
        return importlib.import_module(f"{__name__}.reconstruction").reconstruct
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
