"""Files of tensors: safetensors, written and read; what `torch.save` wrote, of which only tensors are unpickled."""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from memrecon_fast.autoencoders.contents import CONVERT, INSTEAD, TAKEN, TORCH_SUFFIXES, kind_of, open_file
from memrecon_fast.common.errors import first_line
from memrecon_fast.common.files import replacing

SAFE_SINCE = (2, 10)
"""The torch from which on `weights_only` keeps what it promises: before, a file could corrupt memory or run code all
the same (CVE-2025-32434, CVE-2026-24747)."""
_DEPTH = 3
"""Of dictionaries in a checkpoint."""

StateDicts = dict[str, dict[str, Tensor]]
"""The state dicts of a file, by where they are in it: "state_dict", "model", …; "" is the file itself."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file under a temporary name beside `path`, then rename it."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: there is no folder {path.parent}")
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = _safetensors().save(contiguous, dict(metadata))
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def read_shapes(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """The shapes of the tensors of a safetensors file, none of which is read, and its metadata. As `read_tensors`."""
    _safetensors()
    from safetensors import SafetensorError, safe_open

    with open_file(path) as opened:
        kind = kind_of(path, opened)
    if kind not in ("safetensors", "unknown"):
        raise ValueError(f"{path} cannot be read as a safetensors file: it is {INSTEAD[kind]}")
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
            return shapes, dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        hint = "" if path.suffix.lower() == ".safetensors" else f"; {TAKEN}"
        raise ValueError(f"{path} cannot be read as a safetensors file: {error}{hint}") from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file. Raises ValueError for any other file."""
    _, metadata = read_shapes(path)
    safetensors = _safetensors()
    from safetensors import SafetensorError

    with open_file(path) as file:
        content = file.read()
    try:
        return safetensors.load(content), metadata
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read as a safetensors file: {error}") from error


def read_state_dicts(path: Path, *, trusted: bool = False) -> StateDicts:
    """The state dicts of a file of weights: of safetensors, or of what `torch.save` wrote, a checkpoint for instance.

    trusted: whether a torch is used for the latter that is known to have been deceived by such files.

    Raises ValueError for a file that holds none, needs unpickling of anything but tensors, or holds more than there is
    memory for.
    """
    with open_file(path) as file:
        kind = kind_of(path, file)
        if kind in ("scripted", "exported"):
            raise ValueError(f"{path} holds no weights alone; it is {INSTEAD[kind]}")
        damaged = kind in ("unknown", "other")  # or of neither kind; then its name says what it should be
        if kind == "safetensors" or (damaged and path.suffix.lower() not in TORCH_SUFFIXES):
            return {"": read_tensors(path)[0]}
        if not trusted and tuple(map(int, torch.__version__.split(".")[:2])) < SAFE_SINCE:
            raise ValueError(
                f"{path} is refused: what torch.save wrote can run code when torch {torch.__version__} opens it, even "
                f"as weights only. Take torch {'.'.join(map(str, SAFE_SINCE))} or newer, or --trust-model. {CONVERT}"
            )
        content = _load_weights_only(path, file)
    found = dict(_state_dicts(content, "", set()))
    for tensors in found.values():
        for name, tensor in tensors.items():
            if (
                tensor.layout == torch.strided
                and tensor.numel() > 1
                and tensor.untyped_storage().nbytes() < tensor.nbytes
            ):
                raise ValueError(f"{path} is refused: {name} {tuple(tensor.shape)} has more entries than it stores")
    if not found:
        raise ValueError(f"{path} holds no state dict, a dictionary of names and tensors, but {_describe(content)}")
    return found


def _load_weights_only(path: Path, file: Any) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that torch will change
            return torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # torch raises many kinds here
        needed = re.search(r"GLOBAL (\S+)", str(error))
        said = re.search(r"WeightsUnpickler error: (.+)", str(error))
        why = f"is damaged, or no file of torch.save ({(said[1] if said else first_line(error))[:100]})"
        if needed:
            why = f"holds more than tensors ({needed[1]})"
        raise ValueError(
            f"{path} is refused: it {why}, and such files are pickled: unpickling runs whatever code the file carries. "
            f"{CONVERT}"
        ) from error


def _state_dicts(content: Any, where: str, seen: set[int]) -> list[tuple[str, dict[str, Tensor]]]:
    """The dictionaries of names and tensors in a checkpoint, with where they are: "model.ema". One that is there twice
    is found once: `seen` has the ids."""
    if not isinstance(content, Mapping) or id(content) in seen or not all(isinstance(name, str) for name in content):
        return []
    seen.add(id(content))
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    found = [(where, tensors)] if tensors else []
    for name, value in content.items():
        if where.count(".") + 1 < _DEPTH:
            found += _state_dicts(value, f"{where}.{name}".strip("."), seen)
    return found


def _describe(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"a dictionary with {', '.join(map(str, list(content)[:8])) or 'nothing'}"
    return f"a {type(content).__name__}"


def _safetensors() -> Any:
    try:
        return importlib.import_module("safetensors.torch")
    except ImportError as error:
        raise ImportError("model files need safetensors: pip install 'memrecon-fast[audit]'") from error
