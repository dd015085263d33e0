"""Weights from a file into the model of a factory."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from memrecon_fast.autoencoders.tensors import StateDicts, read_state_dicts
from memrecon_fast.common.errors import one_line

_COMPILED = "_orig_mod."
"""What `torch.compile` puts into names, anywhere."""
_COUNTER = "num_batches_tracked"
"""Of BatchNorm: older files do not have it, and nothing reads it in eval mode."""
_SHOWN = 3

Shapes = Mapping[str, "tuple[int, ...] | None"]
"""Of the tensors of a model, by their names; None where it takes any."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """A state dict of a file that fits the model."""

    place: str
    """Where it is in the file, "" for the file itself."""
    tensors: Mapping[str, Tensor]
    """By the names of the model."""
    removed: str = ""
    """What was taken off the names in the file …"""
    added: str = ""
    """… or put in front of them."""
    left_out: tuple[str, ...] = ()
    """Names that do not begin so."""

    @property
    def name(self) -> str:
        """What chooses it: FILE:NAME."""
        return ".".join(filter(None, [self.place, self.removed.rstrip(".")]))

    def remarks(self) -> Iterator[str]:
        """What a person should know of it."""
        if self.place:
            yield f"its state dict {self.place!r} is taken"
        if self.removed:
            yield f"{self.removed!r} was taken off the names"
        if self.added:
            yield f"{self.added!r} was put in front of the names"
        if self.left_out:
            yield f"{len(self.left_out)} others are left out ({_few(self.left_out)})"


def load_weights(model: nn.Module, weights: str | os.PathLike[str], what: str, *, trusted: bool = False) -> None:
    """Put the weights of a file into the model.

    weights: the file, of safetensors or of `torch.save`; or FILE:NAME, one of several state dicts in a checkpoint, or
        the weights whose names begin with NAME. what: the model, for messages. trusted: as for `read_state_dicts`.

    Names may have a prefix that the model's have not ("module.", "model.", …), or lack one, where with that every
    weight of the model is there in its shape. A RuntimeWarning says what was chosen, renamed or left out.

    Raises FileNotFoundError where there is no file; ValueError where it cannot be read, none or more than one state
    dict in it fits, or it holds NaN or infinity.
    """
    path, name = _split_name(os.fspath(weights))
    found = read_state_dicts(path, trusted=trusted)
    if name:
        found = _named(found, name, path)
    shapes, same = _shapes(model), _same(model)
    fits = [fit for place, tensors in found.items() for fit in _fits(place, tensors, shapes, same)]
    if len(fits) > 1:
        names = ", ".join(fit.name or "the file itself" for fit in fits)
        raise ValueError(f"{path} holds several sets of weights that fit {what}: {names}; choose one as {path}:NAME")
    if not fits and len(found) > 1:
        problems = "; ".join(
            f"{place or 'itself'}: {_misfit(tensors, shapes, same)}" for place, tensors in found.items()
        )
        raise ValueError(f"none of the weights in {path} fit {what}: {problems}")
    [(place, tensors), *_] = found.items()
    chosen = fits[0] if fits else Fit(place, tensors)  # a module may rename by itself what it is given
    actual = {_plain(name): name for name in model.state_dict()}
    misfit = f"the weights in {path} do not fit {what}"
    try:
        left = model.load_state_dict(
            {actual.get(name, name): value for name, value in chosen.tensors.items()}, strict=False
        )
    except Exception as error:  # also of a person's module, which may raise anything
        raise ValueError(f"{misfit}: {_misfit(tensors, shapes, same) or one_line(error)}") from error
    if left.unexpected_keys or _missing(map(_plain, left.missing_keys), chosen.tensors, same):
        raise ValueError(f"{misfit}: {_misfit(tensors, shapes, same)}")
    check_finite(model, path)
    remarks = list(chosen.remarks())
    if remarks:
        warnings.warn(f"{path}: {', '.join(remarks)}", RuntimeWarning, stacklevel=3)


def check_finite(model: nn.Module, path: Path) -> None:
    """Raise ValueError where a parameter is NaN or infinite, or a buffer NaN: it may hold a mask of infinities."""
    parameters = [tensor for tensor in model.parameters() if tensor.is_floating_point()]
    buffers = [tensor for tensor in model.buffers() if tensor.is_floating_point()]
    if not all(tensor.float().isfinite().all() for tensor in parameters) or any(
        tensor.float().isnan().any() for tensor in buffers
    ):
        raise ValueError(f"the weights in {path} hold NaN or infinity")


def _split_name(weights: str) -> tuple[Path, str]:
    """FILE:NAME, where there is no file of the whole name."""
    file, colon, name = weights.rpartition(":")
    return (Path(file), name) if colon and not os.path.exists(weights) and os.path.exists(file) else (Path(weights), "")


def _named(found: StateDicts, name: str, path: Path) -> StateDicts:
    if name in found:
        return {name: found[name]}
    begins = {
        place: {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        for place, tensors in found.items()
    }
    begins = {place: tensors for place, tensors in begins.items() if tensors}
    if not begins:
        places = ", ".join(place for place in found if place) or "only one state dict"
        raise ValueError(f"{path} has no state dict {name!r} and no weights whose names begin so; it has {places}")
    return begins


def _shapes(model: nn.Module) -> Shapes:
    return {
        _plain(name): None if is_lazy(value) else tuple(value.shape)
        for name, value in model.state_dict(keep_vars=True).items()
        if isinstance(value, Tensor)
    }


def _same(model: nn.Module) -> Mapping[str, frozenset[str]]:
    """For each name all names of the same tensor: of tied weights a file may have one alone."""
    names: dict[object, set[str]] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor):
            names.setdefault(_memory(value), set()).add(_plain(name))
    return {name: frozenset(group) for group in names.values() for name in group}


def _plain(name: str) -> str:
    return name.replace(_COMPILED, "")


def _memory(value: Tensor) -> object:
    if is_lazy(value) or value.is_meta or value.layout != torch.strided or not value.numel():
        return id(value)
    return value.device, value.data_ptr(), value.shape, value.stride()


def _fits(place: str, tensors: Mapping[str, Tensor], shapes: Shapes, same: Mapping[str, frozenset[str]]) -> list[Fit]:
    """The ways in which a state dict fits; one alone where its names are the model's."""
    named = {_plain(name): value for name, value in tensors.items()}
    if _fit(named, shapes, same):
        return [Fit(place, named)]
    fits = []
    first = next(iter(shapes), "")
    for removed in sorted(name.removesuffix(first) for name in named if name.endswith(f".{first}")):
        inside = {name.removeprefix(removed): value for name, value in named.items() if name.startswith(removed)}
        if _fit(inside, shapes, same):
            left_out = tuple(name for name in named if not name.startswith(removed))
            fits.append(Fit(place, inside, removed=removed, left_out=left_out))
    for added in sorted({first.removesuffix(name) for name in named if first.endswith(f".{name}")}):
        outside = {f"{added}{name}": value for name, value in named.items()}
        if _fit(outside, shapes, same):
            fits.append(Fit(place, outside, added=added))
    return fits


def _fit(tensors: Mapping[str, Tensor], shapes: Shapes, same: Mapping[str, frozenset[str]]) -> bool:
    return (
        tensors.keys() <= shapes.keys()
        and not _missing(shapes, tensors, same)
        and all(shapes[name] in (None, tuple(value.shape)) for name, value in tensors.items())
    )


def _missing(expected: Iterable[str], tensors: Mapping[str, Tensor], same: Mapping[str, frozenset[str]]) -> list[str]:
    """What is in the file under none of its names."""
    return [
        name
        for name in expected
        if name not in tensors and not (same.get(name, frozenset()) & tensors.keys()) and not name.endswith(_COUNTER)
    ]


def _misfit(tensors: Mapping[str, Tensor], shapes: Shapes, same: Mapping[str, frozenset[str]]) -> str:
    """What does not fit, in one line."""
    missing = _missing(shapes, tensors, same)
    unexpected = sorted(name for name in tensors if name not in shapes)
    others = [
        f"{name} {tuple(value.shape)} for {shapes[name]}"
        for name, value in sorted(tensors.items())
        if name in shapes and shapes[name] not in (None, tuple(value.shape))
    ]
    problems = {
        f"{len(missing)} of {len(shapes)} tensors of the model are missing": missing,
        f"{len(unexpected)} of {len(tensors)} in the file are not of the model": unexpected,
        f"{len(others)} have another shape": others,
    }
    return ", ".join(f"{problem} ({_few(names)})" for problem, names in problems.items() if names)


def _few(names: Sequence[str]) -> str:
    return f"{', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''}"
