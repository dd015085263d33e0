"""Weights from a file into the model of a factory."""

from __future__ import annotations

import dataclasses
import itertools
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from memrecon_fast.autoencoders.shards import read_weights
from memrecon_fast.autoencoders.tensors import StateDicts
from memrecon_fast.common.errors import reason

_COMPILED = "_orig_mod."
"""What `torch.compile` puts into names, anywhere."""
_COUNTER = "num_batches_tracked"
"""Of BatchNorm: older files do not have it, and nothing reads it in eval mode."""
_SHOWN, _LETTERS = 3, 300
"""In a message: so many names, and of each so much."""

State = Mapping[str, Tensor]
"""Tensors of a model or a file, by their names."""
Same = Mapping[str, frozenset[str]]
"""For each name of a model all names of the same tensor: of tied weights a file may have one alone."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """A state dict of a file that fits the model."""

    place: str
    """Where it is in the file, "" for the file itself."""
    tensors: State
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

    weights: the file, of safetensors or of `torch.save`; the index of several, as Hugging Face writes it; or FILE:NAME,
        one of several state dicts in a checkpoint, or the weights whose names begin with NAME. what: the model, for
        messages. trusted: as for `tensors.read_state_dicts`.

    Names may have a prefix that the model's have not ("module.", "model.", …), or lack one, where with that every
    weight of the model is there in its shape. A RuntimeWarning says what was chosen, renamed or left out.

    Raises FileNotFoundError where there is no file; ValueError where it cannot be read, none or more than one state
    dict in it fits, or it holds NaN or infinity.
    """
    path, name = _split_name(os.fspath(weights))
    found = read_weights(path, trusted=trusted)
    if name:
        found = _named(found, name, path)
    expected = {_plain(name): value for name, value in model.state_dict(keep_vars=True).items() if _is_tensor(value)}
    same = _same(expected)
    misfit = f"the weights in {path} do not fit {what}"
    chosen = _choose(found, expected, same, misfit)
    actual = {_plain(name): name for name in model.state_dict()}
    named = {actual.get(name, name): value for name, value in chosen.tensors.items()}
    try:
        left = model.load_state_dict(named, strict=False)
    except Exception as error:  # also of a person's module, which may raise anything
        why = _misfit(chosen.tensors, expected, same) or reason(error)[:300]
        raise ValueError(f"{misfit}: {why}") from error
    if left.unexpected_keys or _missing(map(_plain, left.missing_keys), chosen.tensors, same):
        raise ValueError(f"{misfit}: {_misfit(chosen.tensors, expected, same)}")
    check_finite(model, path)
    remarks = list(chosen.remarks())
    if remarks:
        warnings.warn(f"{path}: {', '.join(remarks)}", RuntimeWarning, stacklevel=3)


def _choose(found: StateDicts, expected: State, same: Same, misfit: str) -> Fit:
    """The state dict that fits, or the only one, as a module may rename by itself what it is given."""
    fits = [fit for place, tensors in found.items() for fit in _fits(place, tensors, expected, same)]
    if len(fits) > 1:
        names = _few([fit.name or "the file itself" for fit in fits])
        raise ValueError(f"{misfit} in one way alone, but as {names}; choose one as FILE:NAME")
    if fits:
        return fits[0]
    [(place, tensors), *others] = found.items()
    if others:
        problems = [f"{place or 'itself'}: {_misfit(tensors, expected, same)}" for place, tensors in found.items()]
        raise ValueError(f"{misfit}: {_few(problems, '; ')}")
    if not all(agree(value, expected[name]) for name, value in tensors.items() if name in expected):
        raise ValueError(f"{misfit}: {_misfit(tensors, expected, same)}")
    return Fit(place, tensors)


def check_finite(model: nn.Module, path: Path) -> None:
    """Raise ValueError where a parameter is NaN or infinite, or a buffer NaN: it may hold a mask of infinities."""
    parameters, buffers = (
        [tensor for tensor in tensors if tensor.is_floating_point() and not (tensor.is_meta or is_lazy(tensor))]
        for tensors in (model.parameters(), model.buffers())
    )
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
    begins: StateDicts = {}
    for place, tensors in found.items():
        full = {f"{place}.{key}".lstrip("."): value for key, value in tensors.items()}
        begins[place] = {key.removeprefix(f"{name}."): full[key] for key in full if key.startswith(f"{name}.")}
    begins = {place: tensors for place, tensors in begins.items() if tensors}
    if not begins:
        places = _few([place for place in found if place]) or "only one state dict"
        raise ValueError(f"{path} has no state dict {name!r} and no weights whose names begin so; it has {places}")
    return begins


def _same(expected: State) -> Same:
    names: dict[object, set[str]] = {}
    for name, value in expected.items():
        names.setdefault(_memory(value), set()).add(name)
    return {name: frozenset(group) for group in names.values() for name in group}


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)  # a module may add what it likes


def _plain(name: str) -> str:
    return name.replace(_COMPILED, "")


def _memory(value: Tensor) -> object:
    if is_lazy(value) or value.is_meta or value.layout != torch.strided or not value.numel():
        return id(value)
    return value.device, value.data_ptr(), value.shape, value.stride()


def _fits(place: str, tensors: State, expected: State, same: Same) -> list[Fit]:
    """The ways in which a state dict fits; one alone where its names are the model's."""
    named = {_plain(name): value for name, value in tensors.items()}
    if _fit(named, expected, same):
        return [Fit(place, named)]
    fits = []
    some = list(expected)[:2]  # of two that are tied a file has one
    for removed in sorted({name.removesuffix(one) for one in some for name in named if name.endswith(f".{one}")}):
        inside = {name.removeprefix(removed): value for name, value in named.items() if name.startswith(removed)}
        if _fit(inside, expected, same):
            left_out = tuple(name for name in named if not name.startswith(removed))
            fits.append(Fit(place, inside, removed=removed, left_out=left_out))
    for added in sorted({one.removesuffix(name) for one in some for name in named if one.endswith(f".{name}")}):
        outside = {f"{added}{name}": value for name, value in named.items()}
        if _fit(outside, expected, same):
            fits.append(Fit(place, outside, added=added))
    return fits


def _fit(tensors: State, expected: State, same: Same) -> bool:
    return (
        tensors.keys() <= expected.keys()
        and not _missing(expected, tensors, same)
        and all(agree(value, expected[name]) for name, value in tensors.items())
    )


def agree(value: Tensor, expected: Tensor) -> bool:
    """Whether a tensor can take the value: quantised weights are integers, which without their scales mean nothing."""
    same_kind = (value.is_floating_point() or not expected.is_floating_point()) and value.layout == expected.layout
    return same_kind and (is_lazy(expected) or value.shape == expected.shape)


def _missing(expected: Iterable[str], tensors: State, same: Same) -> list[str]:
    """What is in the file under none of its names."""
    return [
        name
        for name in expected
        if name not in tensors and not (same.get(name, frozenset()) & tensors.keys()) and not name.endswith(_COUNTER)
    ]


def _misfit(tensors: State, expected: State, same: Same) -> str:
    """What does not fit, in one line; of names that all begin alike, without that, if more of them are then known."""
    same_letters = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(min(tensors), max(tensors), strict=False))
    begin = "".join(letter for letter, _ in same_letters).rpartition(".")[0] + "."
    rest = {name.removeprefix(begin): value for name, value in tensors.items()}
    without = ""
    if len(rest.keys() & expected.keys()) > len(tensors.keys() & expected.keys()):
        tensors, without = rest, f"without {begin!r} in front, "
    missing = _missing(expected, tensors, same)
    unexpected = sorted(name for name in tensors if name not in expected)
    others = [
        f"{name} {_kind(value)} for {_kind(expected[name])}"
        for name, value in sorted(tensors.items())
        if name in expected and not agree(value, expected[name])
    ]
    problems = {
        f"{len(missing)} of {len(expected)} tensors of the model are missing": missing,
        f"{len(unexpected)} of {len(tensors)} in the file are not of the model": unexpected,
        f"{len(others)} are of another shape or kind": others,
    }
    said = ", ".join(f"{problem} ({_few(names)})" for problem, names in problems.items() if names)
    return f"{without}{said}" if said else ""


def _kind(value: Tensor) -> str:
    return "any shape" if is_lazy(value) else f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"


def _few(names: Sequence[str], separator: str = ", ") -> str:
    shown = [name[:_LETTERS] for name in names[:_SHOWN]]
    return separator.join([*shown, "…"] if len(names) > _SHOWN else shown)
