"""What an architecture is: a class of models, with what the rest of the package has to know of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

Preset = Callable[[Sequence[int], str, int | None, int], nn.Module]
"""Builds a new, untrained model of (image_shape, activation, width or None for its own default, seed)."""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """An architecture; `architectures.ARCHITECTURES` lists them all."""

    model: type[nn.Module]
    """The class of the models. They map float32 (B, *image_shape) to the same, and have the attribute `image_shape` and
    the method `arguments()`: a dictionary for JSON, the arguments from which the class builds the same architecture."""
    presets: Mapping[str, Preset]
    """The names for `build`, for the command and for people."""
    shapes: Callable[..., Iterator[tuple[int, ...]]] | None = None
    """Of the class's arguments: the shapes of all tensors of the state dict, one after the other, before any is made. A
    file is held to them: its few bytes of metadata may ask for any size. None: what a file asks for is built."""
    last_layer: Callable[[Any], tuple[Callable[[Tensor], Tensor], nn.Linear]] | None = None
    """Of a model: a function from images (B, *image_shape) to features (B, width), and the linear layer that makes the
    reconstruction, flattened, of them. None where no such layer comes last; then a training cannot be polished."""
    optimizer: str = "adam"
    """Of `recipes.RECIPES`: what trains it best."""
    activation: str = "leaky_relu"
    """Of its presets, where none is given: what comes furthest in training."""
