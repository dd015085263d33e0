"""Models as files: safetensors with the architecture in the metadata; and every other way to name a model."""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from memrecon_fast.autoencoders.adapting import Adaptation
from memrecon_fast.autoencoders.architectures import ARCHITECTURES, name_of
from memrecon_fast.autoencoders.contents import TORCH_SUFFIXES, kind_of, open_file
from memrecon_fast.autoencoders.exported import load_exported
from memrecon_fast.autoencoders.factories import call_factory, is_factory
from memrecon_fast.autoencoders.tensors import read_shapes, read_state_dicts, read_tensors, write_tensors
from memrecon_fast.autoencoders.weights import agree, check_finite, load_weights
from memrecon_fast.common.errors import is_out_of_memory, one_line
from memrecon_fast.common.typing import Autoencoder

_KEY = "memrecon_fast.architecture"
_SHOWN = 200
"""Characters of what is in a file."""


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
    *,
    arguments: Mapping[str, Any] | None = None,
    adaptation: Adaptation | None = None,
    trust_model: bool = False,
) -> Autoencoder:
    """Load an autoencoder, (B, *image_shape) → the same, in eval mode.

    path: a `.safetensors` file that `save` wrote; a `.pt2` file that `torch.export.save` wrote, with a dynamic batch
        dimension; or a factory, a function that returns the model: "package.module:function", imported from the
        current working directory, which comes first, or the installed packages; or "path/to/file.py:function".
    weights: for a factory only, a file with the model's state dict: `.safetensors`, or what `torch.save` wrote, of
        which nothing but tensors is unpickled; or the index of several such files; see `weights.load_weights`.
    device: where to put the model; what a factory returns that is no nn.Module stays where it is.
    arguments: for a factory only, what the function is called with, by name.
    adaptation: what the model takes and returns, where that is not pixels in [0, 1], RGB; see `adapt`.
    trust_model: a `.pt2` file is a program, which can do anything when it is opened: it is refused without this.

    Raises FileNotFoundError where there is no such file; ValueError for a file that is not trusted, is corrupt or is no
    model, a factory that fails, and weights that do not fit.
    """
    name = os.fspath(path)
    if "://" in name:
        raise ValueError(f"{name} is an address; the model must be a file on this machine")
    if is_factory(name):
        model = call_factory(name, arguments)
        _check_values(name, model)
        if weights is not None:
            if not isinstance(model, nn.Module):
                raise ValueError(f"{name} returned a {type(model).__name__}, no torch.nn.Module: it takes no weights")
            load_weights(model, weights, f"the model of {name}", trusted=trust_model)
    elif weights is not None or arguments is not None:
        open_file(Path(path)).close()  # raises where it is no model at all: a factory that is misspelt
        what = "weights" if weights is not None else "arguments"
        raise ValueError(f"{what} are for a factory, package.module:function; {name} brings its own")
    else:
        model = _load_file(Path(path), device, trust_model)
    if adaptation is not None:
        model = adaptation.of(model)
    if isinstance(model, nn.Module):
        try:
            model = model.to(device)
        except (RuntimeError, NotImplementedError) as error:  # for instance of a module of its own kind
            if is_out_of_memory(error):
                raise
            raise ValueError(f"{name} cannot be put on {device}: {one_line(error)}") from error
        with contextlib.suppress(NotImplementedError):  # which an exported program raises: it has no modes
            model.eval()
    return model


def _check_values(name: str, model: Autoencoder) -> None:
    """Raise ValueError for a model without memory for its parameters: weights cannot be copied there."""
    named = itertools.chain(model.named_parameters(), model.named_buffers()) if isinstance(model, nn.Module) else ()
    where = next((key for key, tensor in named if tensor.is_meta), None)
    if where is not None:
        raise ValueError(
            f"{name} builds its model on the device 'meta', where {where} has no values, and weights cannot be copied "
            f"to: build it on the CPU, without torch.device('meta') or init_empty_weights()"
        )


def _load_file(path: Path, device: str | torch.device, trust_model: bool) -> nn.Module:
    with open_file(path) as file:
        kind, suffix = kind_of(path, file), path.suffix.lower()
    if kind == "exported" or suffix == ".pt2":
        return load_exported(path, device, trust_model=trust_model)
    if kind != "safetensors" and suffix in TORCH_SUFFIXES:
        tensors = sum(map(len, read_state_dicts(path, trusted=trust_model).values()))
        raise ValueError(
            f"{path} holds weights, {tensors} tensors, and not the architecture that they belong to: give a factory "
            f"that makes the model, package.module:function or file.py:function, and this file as its --weights"
        )
    return _load_described(path)


def _load_described(path: Path) -> nn.Module:
    """A model of one of `ARCHITECTURES`. It is not built before its tensors are known to be those of the file: a few
    bytes of metadata may ask for any size."""
    shapes, metadata = read_shapes(path)
    if _KEY not in metadata:
        raise ValueError(
            f"{path} does not say what architecture its weights belong to: it was not written by "
            f"memrecon_fast.autoencoders.save. Give the architecture as package.module:factory, and this file as its "
            f"weights"
        )
    model = _build_described(metadata[_KEY], shapes.values(), path)
    tensors, expected = read_tensors(path)[0], model.state_dict()
    wrong = sorted(name for name in tensors if name not in expected or not agree(tensors[name], expected[name]))
    if wrong or len(tensors) < len(expected):
        raise ValueError(
            f"the weights in {path} do not fit the architecture in its metadata: it has {len(wrong)} others"
            f"{f', for instance {wrong[0][:_SHOWN]}' if wrong else ''}"
        )
    model.load_state_dict(tensors)
    check_finite(model, path)
    return model


def _build_described(description: str, found: Iterable[tuple[int, ...]], path: Path) -> nn.Module:
    """found: the shapes of the tensors in the file."""
    try:
        parsed = json.loads(description, object_pairs_hook=_without_repetition)
        architecture, arguments = ARCHITECTURES[parsed["name"]], parsed["arguments"]
        if architecture.shapes is not None:
            _check_shapes(architecture.shapes(**arguments), collections.Counter(found))
        return architecture.model(**arguments)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise ValueError(
            f"{path}: the architecture in its metadata cannot be built by this version: {description[:_SHOWN]} "
            f"({repr(error)[:_SHOWN]})"
        ) from error


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name is there twice")
    return dict(pairs)


def _check_shapes(expected: Iterable[tuple[int, ...]], found: collections.Counter[tuple[int, ...]]) -> None:
    """Raise ValueError where the shapes that an architecture expects, of which there may be any number, are others."""
    counted = collections.Counter(itertools.islice(expected, found.total() + 1))
    for shape in counted | found:
        if counted[shape] != found[shape]:
            raise ValueError(
                f"the weights do not fit: of tensors of shape {shape} the file has {found[shape]}, the architecture "
                f"{counted[shape]} or more"
            )


def describe(model: nn.Module) -> dict[str, Any]:
    """The name of the architecture and its arguments, for JSON. Raises TypeError for a model of another class."""
    name = name_of(model)
    if name is not None:
        return {"name": name, "arguments": model.arguments()}  # type: ignore[operator]  # see `Architecture.model`
    raise TypeError(
        f"only {' and '.join(ARCHITECTURES)} can be saved, not {type(model).__name__}: export the model with "
        f"torch.export.save to a .pt2 file instead"
    )
