"""Models that take other pixels than [0, 1] RGB, or return more than a tensor, made into autoencoders."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from memrecon_fast.common.checks import check_choice, check_number
from memrecon_fast.common.outputs import Output, find_output
from memrecon_fast.common.typing import Autoencoder

CHANNELS = ("rgb", "bgr")
_STATED = ("image_shape", "batch_sizes")
"""What a model may state of itself."""


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """What a model takes and returns, where it is not pixels in [0, 1], RGB; the arguments are those of `adapt`.

    Raises ValueError or TypeError for arguments outside their ranges.
    """

    pixel_range: Sequence[float] = (0.0, 1.0)
    mean: float | Sequence[float] | None = None
    std: float | Sequence[float] | None = None
    channels: str = "rgb"
    output: str | int | None = None

    def __post_init__(self) -> None:
        low_and_high = _numbers("pixel_range", self.pixel_range)
        if len(low_and_high) != 2 or not low_and_high[0] < low_and_high[1]:
            raise ValueError(f"the pixel range must be two numbers, the lower first, not {self.pixel_range}")
        means = None if self.mean is None else _numbers("mean", self.mean)
        stds = None if self.std is None else _numbers("std", self.std)
        for std in stds or ():
            check_number("std", std, low=0, low_is_allowed=False)
        if means and stds and len({len(means), len(stds), 1}) > 2:
            raise ValueError(f"mean has {len(means)} channels, std {len(stds)}")
        check_choice("channels", self.channels, CHANNELS)
        if self.output is not None and (isinstance(self.output, bool) or not isinstance(self.output, (str, int))):
            raise TypeError(f"output must be a name or a position, not {self.output!r}")
        # as they are compared and written: 0 and 1 are what they are where nothing is given
        object.__setattr__(self, "pixel_range", low_and_high)
        object.__setattr__(self, "mean", means if means and any(means) else None)
        object.__setattr__(self, "std", stds if stds and any(std != 1 for std in stds) else None)
        object.__setattr__(self, "output", None if self.output is None else str(self.output))

    def of(self, model: Autoencoder) -> Autoencoder:
        """The model adapted; itself, where there is nothing to adapt. Raises as `adapt`."""
        return model if self == Adaptation() else Adapted(model, self)

    def __str__(self) -> str:
        """What differs from the defaults: "pixel_range=(-1.0, 1.0), output='sample'"."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return ", ".join(f"{name}={value!r}" for name, value in given.items() if value != getattr(Adaptation, name))


def adapt(
    model: Autoencoder,
    *,
    pixel_range: Sequence[float] = (0.0, 1.0),
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    channels: str = "rgb",
    output: str | int | None = None,
) -> Autoencoder:
    """Make of a model that takes other pixels an autoencoder of pixels in [0, 1], RGB.

    Pixels x ∈ [0, 1] become (low + (high − low)·x − mean)/std, with the channels reversed for "bgr"; what the model
    makes of them is turned back the same way.

    model: (B, *image_shape) → the same, in its own pixels; an nn.Module or any other callable.
    pixel_range: (low, high): what black and white are before mean and std are applied: (-1, 1), (0, 255), ….
    mean, std: in the units of `pixel_range`, for all channels or one for each, in the order that the model takes them
        (for "bgr" blue first). ImageNet's, as torchvision gives them, belong to the range (0, 1).
    channels: "rgb", or "bgr" (three channels, as OpenCV has them).
    output: which of several outputs is the reconstruction: the name in a dictionary or of an attribute, or its
        position; rows (B, pixels) become images. Without it one called sample, reconstruction, recon, x_hat or the
        like is taken, or the only one of the shape of the images.

    Returns an nn.Module on the device of the model, in the same mode, with the model as `.model` and its `image_shape`,
    if it states one; where there is nothing to adapt, the model itself.

    Raises ValueError or TypeError for arguments outside these ranges, and where the model states another number of
    channels.
    """
    if not callable(model):
        raise TypeError(f"model must be callable, not {type(model).__name__}")
    return Adaptation(pixel_range, mean, std, channels, output).of(model)


class Adapted(nn.Module):
    """A model that takes and gives [0, 1] RGB, made by `adapt`."""

    offset: Tensor | None
    spread: Tensor | None
    """The model's pixels are (x − offset)/spread; None where they are x."""

    def __init__(self, model: Autoencoder, adaptation: Adaptation) -> None:
        super().__init__()
        self.model: Callable[[Tensor], Any] = model
        self.adaptation = adaptation
        self.training = isinstance(model, nn.Module) and model.training and not _has_no_modes(model)
        self._output = None if adaptation.output is None else Output(str(adaptation.output))
        offset, spread = _affine(adaptation)
        tensors = (*model.parameters(), *model.buffers()) if isinstance(model, nn.Module) else ()
        device = tensors[0].device if tensors else torch.device("cpu")
        # not in the state dict, which stays that of the model
        self.register_buffer("offset", None if offset is None else offset.to(device), persistent=False)
        self.register_buffer("spread", None if spread is None else spread.to(device), persistent=False)
        for stated in _STATED:
            if hasattr(model, stated):
                setattr(self, stated, getattr(model, stated))
        shape = getattr(self, "image_shape", None)
        if isinstance(shape, (tuple, list)) and shape:
            self._check_channels(shape[0])

    def forward(self, images: Tensor) -> Tensor:
        """The reconstructions of images (B, *image_shape), both in [0, 1] RGB."""
        self._check_channels(images.shape[1])
        given = self._reversed(images)
        if self.offset is not None and self.spread is not None:
            given = (given - self.offset) / self.spread
        returned = self.model(given)
        if self._output is not None or not isinstance(returned, Tensor):
            self._output = self._output or find_output(returned, given)
            returned = self._output.of(returned)
            if returned.dim() == 2 and returned.shape == images.flatten(1).shape:
                returned = returned.reshape(images.shape)
        if returned.shape != images.shape:  # which broadcasting might hide
            raise ValueError(f"the model returned {tuple(returned.shape)} for images {tuple(images.shape)}")
        if self.offset is not None and self.spread is not None:
            returned = returned * self.spread + self.offset
        return self._reversed(returned)

    def train(self, mode: bool = True) -> Adapted:
        """Into training mode or out of it; an exported program has no modes."""
        if isinstance(self.model, nn.Module) and _has_no_modes(self.model):
            return self
        return super().train(mode)

    def extra_repr(self) -> str:
        """What identifies it, with the model's name where that is no module."""
        name = (
            "" if isinstance(self.model, nn.Module) else getattr(self.model, "__qualname__", type(self.model).__name__)
        )
        return ", ".join(filter(None, [name, str(self.adaptation)]))

    def _reversed(self, images: Tensor) -> Tensor:
        return images.flip(1) if self.adaptation.channels == "bgr" else images

    def _check_channels(self, channels: int) -> None:
        if self.adaptation.channels == "bgr" and channels != 3:
            raise ValueError(f"bgr is for images of 3 channels; these have {channels}")
        if self.offset is not None and len(self.offset) not in (1, channels):
            raise ValueError(f"mean and std are for {len(self.offset)} channels; the images have {channels}")


def _affine(adaptation: Adaptation) -> tuple[Tensor | None, Tensor | None]:
    """Offset and spread, float32: of one entry for all channels, or (C, 1, 1)."""
    low, high = adaptation.pixel_range
    if (low, high) == (0, 1) and adaptation.mean is None and adaptation.std is None:
        return None, None
    means = torch.tensor(adaptation.mean or (0.0,), dtype=torch.float64, device="cpu")
    stds = torch.tensor(adaptation.std or (1.0,), dtype=torch.float64, device="cpu")
    offset, spread = torch.broadcast_tensors((means - low) / (high - low), stds / (high - low))
    if len(offset) > 1:
        offset, spread = offset.view(-1, 1, 1), spread.view(-1, 1, 1)
    offset, spread = offset.float(), spread.float()
    if not (offset.isfinite().all() and spread.isfinite().all() and (spread > 0).all()):
        raise ValueError(f"{adaptation} is beyond what float32 can tell apart")
    return offset, spread


def _numbers(name: str, given: object) -> tuple[float, ...]:
    """One number or several, all finite."""
    listed = given.tolist() if hasattr(given, "tolist") else given
    values = tuple(listed) if isinstance(listed, (list, tuple)) else (listed,)
    if not values:
        raise ValueError(f"{name} must be a number, or one for each channel, not {given!r}")
    for value in values:
        check_number(f"{name} (each entry)" if len(values) > 1 else name, value, low=-sys.float_info.max)
    return tuple(float(value) for value in values)


def _has_no_modes(model: nn.Module) -> bool:
    """Whether it is an exported program: its flag says training, and switching it raises."""
    return isinstance(model, torch.fx.GraphModule)
