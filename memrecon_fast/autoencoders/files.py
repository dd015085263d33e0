"""Models as files: safetensors with the architecture in the metadata. Nothing here unpickles anything."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memrecon_fast.autoencoders.architectures import ARCHITECTURES, name_of
from memrecon_fast.autoencoders.exported import load_exported
from memrecon_fast.autoencoders.factories import call_factory, is_factory
from memrecon_fast.common.files import replacing
from memrecon_fast.common.typing import Autoencoder

PICKLED = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt")
_KEY = "memrecon_fast.architecture"


def save(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a model of one of `ARCHITECTURES` to `path`, a `.safetensors` file, with its architecture in the metadata.

    The file appears whole or not at all. Raises TypeError for another model, ValueError for another suffix,
    FileNotFoundError where the folder does not exist.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"models are saved as .safetensors files, not {path.name!r}")
    write_tensors(path, model.state_dict(), {_KEY: json.dumps(describe(model))})


def load(
    path: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
) -> Autoencoder:
    """Load an autoencoder, (B, *image_shape) → the same, in eval mode.

    path: a `.safetensors` file that `save` wrote; a `.pt2` file that `torch.export.save` wrote, with a dynamic batch
        dimension; or "package.module:factory", a function without arguments that returns the model, imported from
        the installed packages or from the current working directory, which comes first.
    weights: for a factory only, a `.safetensors` file with the model's state dict.
    device: where to put the model; what a factory returns that is no nn.Module stays where it is.

    Raises FileNotFoundError where there is no such file; ValueError for a pickled file, one that is corrupt or is not
    ours, a factory that cannot be imported, and weights that do not fit.
    """
    name = os.fspath(path)
    if is_factory(name):
        model = call_factory(name)
        if weights is not None:
            _load_weights(model, Path(weights), name)
        return model.to(device).eval() if isinstance(model, nn.Module) else model
    if weights is not None:
        raise ValueError(f"weights are for a factory, package.module:factory; {name} brings its own")
    file = Path(path)
    _check_is_file(file)
    if file.suffix == ".pt2":
        return load_exported(file, device)
    tensors, metadata = read_tensors(file)
    if _KEY not in metadata:
        raise ValueError(
            f"{file} does not say what architecture its weights belong to: it was not written by "
            f"memrecon_fast.autoencoders.save. Give the architecture as package.module:factory, and this file as its "
            f"weights"
        )
    built = _build_described(metadata[_KEY], file)
    _fit(built, tensors, file, "the architecture in its metadata")
    return built.to(device).eval()


def describe(model: nn.Module) -> dict[str, Any]:
    """The name of the architecture and its arguments, for JSON. Raises TypeError for a model of another class."""
    name = name_of(model)
    if name is not None:
        return {"name": name, "arguments": model.arguments()}  # type: ignore[operator]  # see `Architecture.model`
    raise TypeError(
        f"only {' and '.join(ARCHITECTURES)} can be saved, not {type(model).__name__}: export the model with "
        f"torch.export.save to a .pt2 file instead"
    )


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file under a temporary name beside `path`, then rename it."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: there is no folder {path.parent}")
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = _safetensors().save(contiguous, dict(metadata))
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file. Raises ValueError for any other file."""
    _check_is_file(path)
    if path.suffix.lower() in PICKLED:
        raise ValueError(
            f"{path} is refused: {path.suffix} files are pickled, and unpickling runs whatever code the file carries. "
            f"Convert it where you trust it: safetensors.torch.save_file(state_dict, 'weights.safetensors'), and load "
            f"that with a package.module:factory; or torch.export.save to a .pt2 file"
        )
    safetensors = _safetensors()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
        return safetensors.load(path.read_bytes()), metadata
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read as a safetensors file: {error}") from error


def _safetensors() -> Any:
    try:
        return importlib.import_module("safetensors.torch")
    except ImportError as error:
        raise ImportError("model files need safetensors: pip install 'memrecon-fast[audit]'") from error


def _check_is_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"there is no model file {path}")


def _build_described(description: str, file: Path) -> nn.Module:
    try:
        parsed = json.loads(description)
        return ARCHITECTURES[parsed["name"]].model(**parsed["arguments"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{file}: the architecture in its metadata cannot be built by this version: {description[:200]} ({error!r})"
        ) from error


def _load_weights(model: Autoencoder, file: Path, factory: str) -> None:
    if not isinstance(model, nn.Module):
        raise ValueError(f"{factory} returned a {type(model).__name__}, no torch.nn.Module: it takes no weights")
    tensors, _ = read_tensors(file)
    _fit(model, tensors, file, f"the model of {factory}")


def _fit(model: nn.Module, tensors: dict[str, Tensor], file: Path, what: str) -> None:
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"the weights in {file} do not fit {what}: {error}") from error
    if not all(tensor.isfinite().all() for tensor in tensors.values() if tensor.is_floating_point()):
        raise ValueError(f"the weights in {file} hold NaN or infinity")
