"""The model of an audit: in this process, by its name, and as worker processes load it."""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from memrecon_fast import autoencoders
from memrecon_fast.autoencoders import Adaptation
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.prox import device_of
from memrecon_fast.engine.stated import original_of

CPU = torch.device("cpu")


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A model, open for an audit; made by `open_model`."""

    name: str
    """What to call it in the report."""
    autoencoder: Autoencoder
    """As this process uses it."""
    load: Callable[[torch.device], Autoencoder]
    """Loads it again, in a worker process."""
    device: str
    """Where it is asked to work: "auto", "cpu", "cuda" or "cuda:N"."""

    @property
    def kind(self) -> str:
        """The type of the device that it is on in this process, or is asked for if nothing of it tells."""
        return device_of(self.autoencoder, find_device(self.device)).type


def open_model(
    path: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    device: str = "auto",
    *,
    arguments: Mapping[str, Any] | None = None,
    adaptation: Adaptation | None = None,
    trust_model: bool = False,
    in_workers: bool = False,
) -> Model:
    """Load a model by its name: the path of a model file, or "package.module:factory"; see `autoencoders.load`.

    weights: for a factory, a file with its weights. arguments: for a factory, what it is called with.
    adaptation: what the model takes and returns, where that is not pixels in [0, 1], RGB.
    trust_model: a `.pt2` file is a program, which can do anything when it is opened: it is refused without this.
    device: where it is to work: "auto" (a GPU, if there is one), "cpu", "cuda" or "cuda:N".
    in_workers: worker processes use it; here it is only looked at, on the CPU.

    Raises FileNotFoundError or ValueError as `autoencoders.load`, and ValueError for a device that is not there.
    """
    load = functools.partial(
        autoencoders.load, path, weights, arguments=arguments, adaptation=adaptation, trust_model=trust_model
    )
    place = CPU if in_workers else find_device(device)
    return Model(os.fspath(path), load(place), load, device)


def as_model(model: Model | str | os.PathLike[str] | Autoencoder, *, in_workers: bool) -> Model:
    """What `run` was given, as a `Model`; of one in memory the workers get a copy."""
    if isinstance(model, Model):
        return model
    if isinstance(model, (str, os.PathLike)):
        return open_model(model, in_workers=in_workers)
    original, kind = original_of(model), device_of(model, CPU).type
    sent = original
    if in_workers and isinstance(original, nn.Module) and kind != "cpu":  # each has its own GPU
        sent = copy.deepcopy(original).cpu()
    return Model(type(original).__name__, model, functools.partial(_put, sent), kind)


def find_device(name: str) -> torch.device:
    """The device of this name. Raises ValueError for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device must be auto, cpu, cuda or cuda:N, not {name!r}") from error
    gpus = torch.cuda.device_count()
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and (device.index or 0) >= gpus):
        raise ValueError(f"--device {name} is not there: torch finds {gpus} GPU{'' if gpus == 1 else 's'}")
    return device


def _put(model: Autoencoder, device: torch.device) -> Autoencoder:
    return model.to(device) if isinstance(model, nn.Module) else model
