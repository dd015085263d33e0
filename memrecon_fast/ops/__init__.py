"""The per-pixel operations of the solvers, in three implementations: torch (any device), C++ (CPUs), Triton (GPUs).

`admm` and `anderson` say what the buffers are and what there is; their `plain` says what each operation does.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from memrecon_fast.common.checks import check_choice
from memrecon_fast.ops.admm import Admm
from memrecon_fast.ops.anderson import Anderson

_AVAILABLE = "available"
_OLDEST_TRITON = (3, 6)
_SOURCE_TREE = Path(__file__).resolve().parents[2]
"""Where the package is imported from one: the folder of setup.py."""


@dataclasses.dataclass(frozen=True)
class Operations:
    """What a solver works with."""

    backend: str
    admm: Admm
    anderson: Anderson


@dataclasses.dataclass(frozen=True)
class Backend:
    """An implementation of the operations."""

    name: str
    admm: str
    """Where the operations of this group are: a module, or what has them in a module."""
    anderson: str
    works_on: tuple[str, str] | None
    """The type of the devices that it works on, and what these are called; None: all."""
    why_not: Callable[[], str | None]
    """Why it is not available in this installation; None where it is."""

    def why_not_on(self, device: torch.device) -> str | None:
        """Why it is not available for tensors on this device; None where it is."""
        if self.works_on is not None:
            kind, called = self.works_on
            if device.type != kind and not (self.name == "triton" and _interpreted()):
                return f"it works on {called}, and the autoencoder is on {device}"
        return self.why_not()

    def load(self) -> Operations:
        """Its operations."""
        return Operations(self.name, _find(self.admm), _find(self.anderson))


def backends() -> dict[str, str]:
    """For each backend: "available", or why it is not."""
    return {name: backend.why_not() or _AVAILABLE for name, backend in _BACKENDS.items()}


def choose(backend: str, device: torch.device) -> Operations:
    """The operations of the backend for tensors on `device`; "auto" takes the fastest there is.

    Raises ValueError for an unknown backend, or one that is not available there; warns (RuntimeWarning) where "auto"
    falls back to torch.
    """
    check_choice("backend", backend, BACKENDS)
    chosen = _FASTEST.get(device.type, "torch") if backend == "auto" else backend
    reason = _BACKENDS[chosen].why_not_on(device)
    if reason and backend != "auto":
        raise ValueError(f"backend {backend!r} is not available: {reason}")
    if reason:
        message = f"the compiled kernels are not available ({reason}); using torch"
        warnings.warn(message, RuntimeWarning, stacklevel=3)
        chosen = "torch"
    return load(chosen)


def load(backend: str) -> Operations:
    """The operations of a backend that `choose` found to be available."""
    return _BACKENDS[backend].load()


def _find(place: str) -> Any:
    module, _, name = place.partition(":")
    found = importlib.import_module(module)
    return getattr(found, name) if name else found


def _why_no_cpp() -> str | None:
    try:
        importlib.import_module("memrecon_fast._C")
    except ImportError as error:
        if _is_source_tree(_SOURCE_TREE) and not _is_installed_from(_SOURCE_TREE):
            return (
                f"memrecon_fast is imported from a source tree that is not built ({_SOURCE_TREE}); "
                f"pip install -e . there"
            )
        return f"memrecon_fast was built without its C++ kernels: {error}"
    try:
        importlib.import_module("memrecon_fast.ops.cpp")
    except ImportError as error:
        return str(error)
    return None


def _is_source_tree(folder: Path) -> bool:
    return (folder / "setup.py").is_file() and (folder / "csrc").is_dir()


def _is_installed_from(folder: Path) -> bool:
    """Whether pip was told to leave the package there: `pip install -e`."""
    import importlib.metadata  # slow to import, and seldom needed

    for installed in importlib.metadata.distributions(name="memrecon_fast"):
        if json.loads(installed.read_text("direct_url.json") or "{}").get("url") == folder.as_uri():
            return True
    return False


def _why_no_triton() -> str | None:
    try:
        installed = getattr(importlib.import_module("triton"), "__version__", "")
    except ImportError as error:
        return f"Triton is not installed: {error}"
    version = re.match(r"(\d+)\.(\d+)", installed)
    if version is None:  # a folder of that name, say
        return "Triton is not installed: what is found has no version"
    if tuple(map(int, version.groups())) < _OLDEST_TRITON:  # an older torch brings it
        return f"it needs Triton {'.'.join(map(str, _OLDEST_TRITON))} or newer; {installed} is installed"
    if not torch.cuda.is_available() and not _interpreted():
        return "torch finds no GPU"
    return None


def _interpreted() -> bool:
    """Whether Triton's interpreter, a tool of tests, runs the kernels on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


_BACKENDS = {
    backend.name: backend
    for backend in (
        Backend(
            "torch",
            admm="memrecon_fast.ops.admm.plain",
            anderson="memrecon_fast.ops.anderson.plain",
            works_on=None,
            why_not=lambda: None,
        ),
        Backend(
            "cpp",
            admm="memrecon_fast.ops.cpp:Admm",
            anderson="memrecon_fast.ops.cpp:Anderson",
            works_on=("cpu", "CPUs"),
            why_not=lambda: _why_no_cpp(),
        ),
        Backend(
            "triton",
            admm="memrecon_fast.ops.admm.triton",
            anderson="memrecon_fast.ops.anderson.triton",
            works_on=("cuda", "GPUs"),
            why_not=lambda: _why_no_triton(),
        ),
    )
}
BACKENDS = ("auto", *_BACKENDS)
_FASTEST = {"cpu": "cpp", "cuda": "triton"}
"""By the type of the device."""
