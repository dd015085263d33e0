"""The reconstruction among what an autoencoder returns: a tensor, or a tuple, a dictionary or an object that has it."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

RECONSTRUCTIONS = (
    "sample", "reconstruction", "reconstructions", "reconstructed", "recon", "recons", "recon_x", "x_recon", "x_rec",
    "x_hat",
)  # fmt: skip
"""What libraries call the reconstruction: diffusers ("sample"), transformers ("reconstruction"), pythae ("recon_x"),
CompressAI ("x_hat"), and people's own variational autoencoders."""
_OTHERS = (
    "input", "inputs", "image", "images", "x", "target", "targets", "original", "noise", "noise_pred", "eps",
    "residual", "mask", "logits", "mu", "logvar", "log_var", "var", "std", "scale", "z", "latent", "latents",
)  # fmt: skip
"""Names that say that a tensor is something else, whatever its shape."""
_SHOWN = 8
_DEPTH = 3
"""Of structures inside of others."""


class OutputError(TypeError):
    """None of what an autoencoder returns can be told to be the reconstruction."""


@dataclasses.dataclass(frozen=True)
class Output:
    """One of the outputs of an autoencoder, by its name or its position; see `find_output`."""

    name: str

    def of(self, returned: Any) -> Tensor:
        """The tensor. Raises OutputError where there is none of this name or at this position."""
        found = _fields(returned)
        value = next((field.value for field in found if field.name == self.name), None)
        if value is None and isinstance(returned, (Mapping, tuple)) and self.name.isdecimal():
            in_order = returned.values() if isinstance(returned, Mapping) else returned
            value = next(itertools.islice(in_order, int(self.name), None), None)
        if not isinstance(value, Tensor):
            raise OutputError(
                f"there is no tensor {self.name!r} in what the autoencoder returns, {_describe(returned, found)}"
            )
        return value


def find_output(returned: Any, given: Tensor) -> Output:
    """Which of the outputs is the reconstruction of the images that the autoencoder was given.

    The one with the shape of the images and one of the names `RECONSTRUCTIONS`; or, where none has such a name, the
    only floating-point tensor of that shape, which a RuntimeWarning then says. What is inside of another is named with
    dots: "0.recon".

    Raises OutputError where that does not decide.
    """
    found = _fields(returned)
    fitting = [field for field in found if _may_be(field.value, given)]
    named = [field for field in fitting if field.last_name in RECONSTRUCTIONS]
    if len(named) == 1:
        return Output(named[0].name)
    said_otherwise = any(field.last_name in RECONSTRUCTIONS for field in found)
    if len(fitting) == 1 and not said_otherwise and fitting[0].last_name not in _OTHERS:
        rivals = sum(isinstance(field.value, Tensor) and field.value.shape == given.shape for field in found) - 1
        warnings.warn(
            f"the autoencoder returns {_describe(returned, found)}: {fitting[0].name}, the only one of the shape of "
            f"the images{' that can be' * bool(rivals)}, is taken for the reconstruction",
            RuntimeWarning,
            stacklevel=4,
        )
        return Output(fitting[0].name)
    message = f"autoencoder must return a floating-point tensor, not {type(returned).__name__}"
    tensors = [field for field in found if isinstance(field.value, Tensor)]
    if not tensors:
        raise OutputError(message)
    likely = (named or fitting or tensors)[0]
    raise OutputError(
        f"{message}; it returns {_describe(returned, found)}, and which is the reconstruction of images "
        f"{tuple(given.shape)} is not clear. Give its name or position, --output NAME or "
        f"mf.autoencoders.adapt(model, output=NAME); or wrap the model:\n"
        f"class Wrapped(torch.nn.Module):\n"
        f"    def __init__(self, model): super().__init__(); self.model = model\n"
        f"    def forward(self, images): return self.model(images){likely.access}.view_as(images)"
    )


@dataclasses.dataclass(frozen=True)
class _Field:
    """Something that is no tuple, list or mapping in what an autoencoder returns."""

    name: str
    access: str
    """As it is written in Python, after the name of the whole."""
    value: Any

    @property
    def last_name(self) -> str:
        return self.name.rpartition(".")[2].lower()


def _fields(returned: Any, name: str = "", access: str = "") -> list[_Field]:
    """All that is in a structure; of an object, what its attributes are."""
    if isinstance(returned, Tensor):
        return [_Field(name, access, returned)] if name else []
    if isinstance(returned, Mapping):
        inside = [(str(key), f"[{key!r}]", value) for key, value in returned.items()]
    elif isinstance(returned, (tuple, list)):
        names = getattr(returned, "_fields", range(len(returned)))
        inside = [(str(key), f"[{i}]", value) for i, (key, value) in enumerate(zip(names, returned, strict=True))]
    elif name:
        return [_Field(name, access, returned)]
    elif dataclasses.is_dataclass(returned):
        inside = [(one.name, f".{one.name}", getattr(returned, one.name)) for one in dataclasses.fields(returned)]
    else:
        inside = [(key, f".{key}", value) for key, value in getattr(returned, "__dict__", {}).items()]
    if access.count("[") >= _DEPTH:
        return []
    return [
        field
        for key, written, value in inside
        for field in _fields(value, f"{name}.{key}".lstrip("."), f"{access}{written}")
    ]


def _may_be(value: Any, given: Tensor) -> bool:
    """Whether it may be the reconstruction of what was given: some return that, too."""
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.shape == given.shape
        and value.layout == torch.strided
        and not (value is given or value.data_ptr() == given.data_ptr())
    )


def _describe(returned: Any, found: Sequence[_Field]) -> str:
    """For a message: the type, and the names and shapes of what it holds."""
    if isinstance(returned, Tensor):
        return f"one tensor {tuple(returned.shape)}"
    shown = [
        f"{field.name} {tuple(field.value.shape) if isinstance(field.value, Tensor) else type(field.value).__name__}"
        for field in found[:_SHOWN]
    ]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"a {type(returned).__name__} of {', '.join(shown) or 'nothing'}{more}"
