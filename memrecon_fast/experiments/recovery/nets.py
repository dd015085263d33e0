"""The nets of the recovery experiments, and their training down to several levels of the loss."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memrecon_fast.autoencoders import FullyConnected, build, evaluate, load, save, train
from memrecon_fast.experiments.experiment import Given
from memrecon_fast.settings import Settings

LEVELS = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
_SAVE_EVERY = 100
"""Steps of a training between two writings of its state: what a kill costs."""


@dataclasses.dataclass(frozen=True)
class Net:
    """A net of the paper, in this project's widths."""

    title: str
    architecture: str
    """A preset of `autoencoders.build`."""
    activation: str
    gamma: float
    """Of the paper's method, as published."""
    width: int | None = None
    """None: the preset's."""
    depth: int | None = None
    """Of a fully connected net whose `width` is given; None: the preset's."""
    side: int | None = None
    """Images are reduced to side × side pixels, by averaging; None: they are taken as they are."""
    zeros: bool = False
    """Whether the first estimate of the mask is all zeros, as published for U-Nets; otherwise it is random."""
    max_outer_iterations: int = 200
    """Of the paper's method, for an image that does not converge."""
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """More of `autoencoders.train`'s arguments."""

    def images(self, pictures: Tensor) -> Tensor:
        """What it is given of pictures (n, C, H, W)."""
        if self.side is None or pictures.shape[-2:] == (self.side, self.side):
            return pictures
        return nn.functional.interpolate(pictures, (self.side, self.side), mode="area")

    def build(self, image_shape: Sequence[int], seed: int) -> nn.Module:
        """The net before training."""
        if self.depth is not None and self.width is not None:
            return FullyConnected(image_shape, self.width, self.depth, self.activation, seed=seed)
        return build(self.architecture, image_shape, activation=self.activation, width=self.width, seed=seed)

    def settings(self, seed: int, solver: str, noisy: bool = False) -> Settings:
        """Of a recovery: with "paper" as published, with "accelerated" this project's γ."""
        published = {"gamma": self.gamma, "max_outer_iterations": self.max_outer_iterations}
        return Settings(
            solver=solver,
            seed=seed,
            initial_mask="zeros" if self.zeros else "random",
            restore_known_pixels=not noisy,
            **(published if solver == "paper" else {}),  # type: ignore[arg-type]
        )


def check_shape(image_shape: tuple[int, ...], cells: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ValueError where the net of a cell is none for images of this shape."""
    for cell, arguments in cells.items():
        net: Net = arguments["net"]
        if net.side is not None and min(image_shape[1:]) < net.side:
            raise ValueError(
                f"{cell}, {net.title}: images are reduced to {net.side}×{net.side} pixels; these have "
                f"{image_shape[1]}×{image_shape[2]}"
            )
        try:
            net.build(net.images(torch.zeros(1, *image_shape)).shape[1:], seed=0)
        except ValueError as error:
            raise ValueError(f"{cell}, {net.title}: {error}") from error


@dataclasses.dataclass(frozen=True)
class Trained:
    """A net when it reached a level of the loss, or where its training ended."""

    level: float | None
    """None: the end, where that is at none of the levels."""
    loss: float
    path: Path

    @property
    def name(self) -> str:
        """For files and arrays."""
        return level_name(self.level)

    def load(self, device: str) -> nn.Module:
        """The model, in eval mode."""
        model = load(self.path)
        assert isinstance(model, nn.Module)
        return model.to(torch.device(device))


def level_name(level: float | None) -> str:
    """Of a level of the loss; None: the end of a training at none of them."""
    return "end" if level is None else f"{level:.0e}"


def fit(given: Given, net: Net, images: Tensor, levels: Sequence[float] = LEVELS) -> list[Trained]:
    """Train on the images (n, C, H, W), from where an interruption left it: the net at each level that it reached, the
    lowest loss last. Where it did not reach the lowest level, the net at the end of the training is among them, unless
    the loss rose again. Raises ValueError where the loss is no number in the end, and no level was reached."""
    folder = given.kept / "models"
    end = folder / "end.safetensors"
    model = net.build(images.shape[1:], given.seed).to(torch.device(given.device))
    result = train(
        model,
        images,
        min(levels),
        checkpoint_folder=folder,
        checkpoints=levels,
        resume=(folder / "training.safetensors").exists(),
        seed=given.seed,
        save_every=_SAVE_EVERY,
        **net.training,
    )
    found = []
    for level, path in sorted(result.checkpoints.items(), reverse=True):
        assert path is not None
        one = Trained(level, level, path)
        found.append(dataclasses.replace(one, loss=evaluate(one.load(given.device), images)))
    if not result.reached_target and result.loss < min([math.inf, *(one.loss for one in found)]):
        save(model, end)
        found.append(Trained(None, result.loss, end))
    if not found:
        raise ValueError(f"the training of {net.title} diverged: its loss is {result.loss} after {result.steps} steps")
    return sorted(found, key=lambda one: one.loss, reverse=True)
