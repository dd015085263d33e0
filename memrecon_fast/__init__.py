"""Which training images can be recovered from this autoencoder?

Plug-and-play ADMM with the autoencoder as the proximal step and a blind estimate of the erasure mask
(Abitbul & Dar, arXiv 2310.02897), on compiled kernels, with images batched in flight.
"""

from memrecon_fast import autoencoders, degradation, metrics, reference
from memrecon_fast.ops import backends
from memrecon_fast.recovery import iterate, recover
from memrecon_fast.results import Recovery, Status
from memrecon_fast.settings import Settings

__version__ = "0.1.0"

__all__ = [
    "Recovery",
    "Settings",
    "Status",
    "autoencoders",
    "backends",
    "degradation",
    "iterate",
    "metrics",
    "recover",
    "reference",
]
