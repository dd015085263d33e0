"""Which training images can be recovered from this autoencoder?

Plug-and-play ADMM with the autoencoder as the proximal step and a blind estimate of the erasure mask
(Abitbul & Dar, arXiv 2310.02897), on compiled kernels, with images batched in flight.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memrecon_fast import (
        attractors,
        audit,
        autoencoders,
        degradation,
        images,
        metrics,
        reconstruction,
        reference,
    )
    from memrecon_fast.engine.inflight import InFlight
    from memrecon_fast.engine.samples import Sample
    from memrecon_fast.ops import backends
    from memrecon_fast.reconstruction import reconstruct
    from memrecon_fast.recovery import iterate, prepare_recover, recover
    from memrecon_fast.results import Recovery, Status
    from memrecon_fast.settings import Settings
    from memrecon_fast.tracing import Trace, trace, trace_iterate

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
_HOMES = {
    "InFlight": "engine.inflight",
    "Recovery": "results",
    "Sample": "engine.samples",
    "Settings": "settings",
    "Status": "results",
    "Trace": "tracing",
    "backends": "ops",
    "iterate": "recovery",
    "prepare_recover": "recovery",
    "reconstruct": "reconstruction",
    "recover": "recovery",
    "trace": "tracing",
    "trace_iterate": "tracing",
}
"""The module of each public name: imported when it is first used, so that what needs no torch, such as the command's
completion, does not wait for it."""
_ROOMS = ("engine", "ops", "recovery", "results", "settings", "solvers", "tracing")
"""Modules that are no public names, and were always there."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name not in __all__ and name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
