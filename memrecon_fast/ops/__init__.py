"""One set of per-pixel functions: `plain` (torch, any device), `cpu` (C++) and `triton` (GPUs)."""

from __future__ import annotations

import importlib
import os
import warnings
from typing import Protocol, cast

import torch
from torch import Tensor

BACKENDS = ("auto", "torch", "cpp", "triton")
_MODULES = {
    "torch": "memrecon_fast.ops.admm.plain",
    "cpp": "memrecon_fast.ops.admm.cpp",
    "triton": "memrecon_fast.ops.admm.triton",
}
_AVAILABLE = "available"


class Ops(Protocol):
    """What every implementation offers; `plain` says what each function does, and what the buffers are."""

    def start(self, s: Tensor, y: Tensor, mask: Tensor, coefficients: Tensor) -> None:
        """Begin an inner loop."""

    def step(self, s: Tensor, v: Tensor, y: Tensor, mask: Tensor, coefficients: Tensor) -> None:
        """One ADMM iteration."""

    def close(
        self,
        s: Tensor,
        v: Tensor,
        y: Tensor,
        mask: Tensor,
        anchor: Tensor,
        x: Tensor,
        residual: Tensor,
        settled: Tensor,
        recurs: Tensor,
        renew: Tensor,
        status: Tensor,
        coefficients: Tensor,
        estimate_mask: bool,
    ) -> None:
        """End an outer iteration and begin the next one."""

    def advance(self, x: Tensor, v: Tensor, residual: Tensor, status: Tensor) -> None:
        """One iteration of the autoencoder alone."""

    def judge(
        self,
        residual: Tensor,
        settled: Tensor,
        recurs: Tensor,
        renew: Tensor,
        iterations: Tensor,
        blocks: Tensor,
        below: Tensor,
        anchored: Tensor,
        period: Tensor,
        status: Tensor,
        tolerance: float,
        patience: int,
        limit: int,
        first_comparison: int,
    ) -> None:
        """Count one more estimate, and say which images are done."""


def backends() -> dict[str, str]:
    """For each backend: "available", or why it is not."""
    return {
        "torch": _AVAILABLE,
        "cpp": _why_no_cpp() or _AVAILABLE,
        "triton": _why_no_triton() or _AVAILABLE,
    }


def choose(backend: str, device: torch.device) -> tuple[str, Ops]:
    """The name and the functions of the backend for tensors on `device`; "auto" takes the fastest there is.

    Raises ValueError for an unknown backend, or one that is not available there; warns (RuntimeWarning) where "auto"
    falls back to torch.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(map(repr, BACKENDS))}, not {backend!r}")
    if backend == "auto":
        backend = {"cpu": "cpp", "cuda": "triton"}.get(device.type, "torch")
        if reason := _why_not(backend, device):
            warnings.warn(
                f"the compiled kernels are not available ({reason}); using torch",
                RuntimeWarning,
                stacklevel=3,
            )
            backend = "torch"
    elif reason := _why_not(backend, device):
        raise ValueError(f"backend {backend!r} is not available: {reason}")
    return backend, load(backend)


def load(backend: str) -> Ops:
    """The functions of a backend that `choose` found to be available."""
    return cast(Ops, importlib.import_module(_MODULES[backend]))


def _why_not(backend: str, device: torch.device) -> str | None:
    if backend == "cpp" and device.type != "cpu":
        return f"it works on CPUs, and the autoencoder is on {device}"
    if backend == "triton" and device.type != "cuda" and not _interpreted():
        return f"it works on GPUs, and the autoencoder is on {device}"
    return {"torch": lambda: None, "cpp": _why_no_cpp, "triton": _why_no_triton}[backend]()


def _why_no_cpp() -> str | None:
    try:
        importlib.import_module("memrecon_fast._C")
    except ImportError as error:
        return f"memrecon_fast was built without its C++ kernels: {error}"
    return None


def _why_no_triton() -> str | None:
    try:
        importlib.import_module("triton")
    except ImportError as error:
        return f"Triton is not installed: {error}"
    if not torch.cuda.is_available() and not _interpreted():
        return "torch finds no GPU"
    return None


def _interpreted() -> bool:
    """Whether Triton's interpreter, a tool of tests, runs the kernels on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"
