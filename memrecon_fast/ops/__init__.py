"""One set of per-pixel functions, several implementations: `plain` (torch, any device) and `cpu` (C++)."""

from __future__ import annotations

import importlib
import warnings
from typing import Protocol, cast

import torch
from torch import Tensor

BACKENDS = ("auto", "torch", "cpp", "triton")
_AVAILABLE = "available"


class Ops(Protocol):
    """What every implementation offers; `plain` says what each function does."""

    def start(self, s: Tensor, y: Tensor, mask: Tensor, gamma: float) -> None:
        """Begin an inner loop."""

    def step(self, s: Tensor, v: Tensor, y: Tensor, mask: Tensor, gamma: float) -> None:
        """One ADMM iteration."""

    def close(
        self,
        s: Tensor,
        v: Tensor,
        y: Tensor,
        mask: Tensor,
        x: Tensor,
        mse: Tensor,
        gamma: float,
        estimate_mask: bool,
    ) -> None:
        """End an outer iteration and begin the next one."""

    def advance(self, x: Tensor, v: Tensor, mse: Tensor) -> None:
        """One iteration of the autoencoder alone."""


def backends() -> dict[str, str]:
    """For each backend: "available", or why it is not."""
    return {"torch": _AVAILABLE, "cpp": _why_no_cpp() or _AVAILABLE, "triton": "not part of this version"}


def choose(backend: str, device: torch.device) -> tuple[str, Ops]:
    """The name and the functions of the backend for tensors on `device`; "auto" takes the fastest there is.

    Raises ValueError for an unknown backend, or one that is not available there; warns (RuntimeWarning) where "auto"
    falls back to torch on a CPU.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(map(repr, BACKENDS))}, not {backend!r}")
    if backend == "auto":
        backend = "cpp" if device.type == "cpu" else "torch"
        if backend == "cpp" and (reason := _why_no_cpp()):
            warnings.warn(
                f"the compiled kernels are not available ({reason}); using torch",
                RuntimeWarning,
                stacklevel=3,
            )
            backend = "torch"
    reason = backends()[backend]
    if reason != _AVAILABLE:
        raise ValueError(f"backend {backend!r} is not available: {reason}")
    if backend == "cpp" and device.type != "cpu":
        raise ValueError(f"backend 'cpp' works on CPUs; the autoencoder is on {device}")
    module = importlib.import_module({"torch": "memrecon_fast.ops.plain", "cpp": "memrecon_fast.ops.cpu"}[backend])
    return backend, cast(Ops, module)


def _why_no_cpp() -> str | None:
    try:
        importlib.import_module("memrecon_fast._C")
    except ImportError as error:
        return f"memrecon_fast was built without its C++ kernels: {error}"
    return None
