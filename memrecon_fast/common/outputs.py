"""The reconstruction among what an autoencoder returns: a tensor, or a tuple, a dictionary or an object that has it."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

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


class OutputError(TypeError):
    """None of what an autoencoder returns can be told to be the reconstruction."""


@dataclasses.dataclass(frozen=True)
class Output:
    """One of the outputs of an autoencoder, by its name or its position; see `find_output`."""

    name: str

    def of(self, returned: Any) -> Tensor:
        """The tensor. Raises OutputError where there is none of this name or at this position."""
        fields = {} if isinstance(returned, Tensor) else _fields(returned)
        found = fields.get(self.name)
        if self.name not in fields and self.name.isdecimal() and int(self.name) < len(fields):
            found = list(fields.values())[int(self.name)]
        if not isinstance(found, Tensor):
            raise OutputError(
                f"there is no tensor {self.name!r} in what the autoencoder returns, {_describe(returned)}"
            )
        return found


def find_output(returned: Any, given: Tensor) -> Output:
    """Which of the outputs is the reconstruction of the images that the autoencoder was given.

    The one with the shape of the images and one of the names `RECONSTRUCTIONS`; or, where none has such a name, the
    only floating-point tensor of that shape, which a RuntimeWarning then says.

    Raises OutputError where that does not decide.
    """
    fields = {} if isinstance(returned, Tensor) else _fields(returned)
    fitting = [
        name
        for name, value in fields.items()
        if isinstance(value, Tensor)
        and value.is_floating_point()
        and value.shape == given.shape
        and not _is_same(value, given)  # some return their input as well
    ]
    named = [name for name in fitting if name.lower() in RECONSTRUCTIONS]
    if len(named) == 1:
        return Output(named[0])
    said_otherwise = any(name.lower() in RECONSTRUCTIONS for name in fields)
    if len(fitting) == 1 and not said_otherwise and fitting[0].lower() not in _OTHERS:
        warnings.warn(
            f"the autoencoder returns {_describe(returned)}: {fitting[0]}, the only one of the shape of the images, is "
            f"taken for the reconstruction",
            RuntimeWarning,
            stacklevel=4,
        )
        return Output(fitting[0])
    first = fitting[0] if fitting else next(iter(fields), "0")
    access = f".{first}" if _has_attributes(returned) else f"[{first if first.isdecimal() else repr(first)}]"
    raise OutputError(
        f"autoencoder must return a floating-point tensor, not {type(returned).__name__}; it returns "
        f"{_describe(returned)}, and which is the reconstruction of images {tuple(given.shape)} is not clear. Give its "
        f"name or position, --output NAME or mf.autoencoders.adapt(model, output=NAME); or wrap the model:\n"
        f"class Wrapped(torch.nn.Module):\n"
        f"    def __init__(self, model): super().__init__(); self.model = model\n"
        f"    def forward(self, images): return self.model(images){access}.view_as(images)"
    )


def _fields(returned: Any) -> dict[str, Any]:
    """What a structure holds, by name or position."""
    if isinstance(returned, Mapping):
        return {str(name): value for name, value in returned.items()}
    if isinstance(returned, (tuple, list)):
        names = getattr(returned, "_fields", range(len(returned)))
        return {str(name): value for name, value in zip(names, returned, strict=True)}
    if dataclasses.is_dataclass(returned):
        return {field.name: getattr(returned, field.name) for field in dataclasses.fields(returned)}
    return dict(vars(returned)) if hasattr(returned, "__dict__") else {}


def _has_attributes(returned: Any) -> bool:
    return not isinstance(returned, (Mapping, tuple, list))


def _is_same(value: Tensor, given: Tensor) -> bool:
    """Whether it is the very input: not a copy, and not something computed of it."""
    return value is given or value.data_ptr() == given.data_ptr()


def _describe(returned: Any) -> str:
    """For a message: the type, and the names and shapes of what it holds."""
    if isinstance(returned, Tensor):
        return f"one tensor {tuple(returned.shape)}"
    fields = _fields(returned)
    shown = [
        f"{name} {tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__}"
        for name, value in list(fields.items())[:_SHOWN]
    ]
    more = f" and {len(fields) - _SHOWN} more" if len(fields) > _SHOWN else ""
    return f"a {type(returned).__name__} of {', '.join(shown) or 'nothing'}{more}"
