"""The state of a training as a file: weights, the optimiser's moments, and what they belong to."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memrecon_fast.autoencoders.files import describe
from memrecon_fast.autoencoders.tensors import read_tensors, write_tensors

FILE_NAME = "training.safetensors"
_KEY = "memrecon_fast.training"


@dataclasses.dataclass(frozen=True)
class Identity:
    """What decides the steps of a training: a state resumes only under the same."""

    architecture: str
    images: str
    max_steps: int
    batch_size: int
    learning_rate: float
    seed: int

    @classmethod
    def of(
        cls, model: nn.Module, images: Tensor, max_steps: int, batch_size: int, learning_rate: float, seed: int
    ) -> Identity:
        """The identity of a training; the images by their SHA-256."""
        digest = hashlib.sha256(images.detach().cpu().contiguous().numpy().data).hexdigest()
        try:
            architecture = json.dumps(describe(model), sort_keys=True)
        except TypeError:
            architecture = type(model).__qualname__
        return cls(architecture, digest, max_steps, batch_size, learning_rate, seed)


def write(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: Identity,
    steps: int,
    epoch: int,
    levels: Iterable[float],
) -> None:
    """Write the state after `steps` steps, with the levels reached so far, to the folder, whole or not at all."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
    content = {"identity": dataclasses.asdict(identity), "steps": steps, "epoch": epoch, "levels": list(levels)}
    write_tensors(folder / FILE_NAME, tensors, {_KEY: json.dumps(content)})


def read(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, identity: Identity
) -> tuple[int, int, list[float]]:
    """Put a written state into `model` and `optimizer`; returns the steps and epochs made and the levels reached.

    Raises FileNotFoundError where there is none, ValueError where it belongs to another training.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        raise FileNotFoundError(f"there is no training to resume: {path} does not exist")
    tensors, metadata = read_tensors(path)
    if _KEY not in metadata:
        raise ValueError(f"{path} is not the state of a training")
    content = json.loads(metadata[_KEY])
    for name, value in dataclasses.asdict(identity).items():
        if content["identity"].get(name) != value:
            raise ValueError(
                f"{path} belongs to another training: its {name} is {content['identity'].get(name)}, not {value}"
            )
    model.load_state_dict(_with_prefix(tensors, "model."))
    parameters = list(model.parameters())
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _with_prefix(tensors, "optimizer.").items():
        index, _, key = name.partition(".")
        parameter = parameters[int(index)]
        if tensor.shape == parameter.shape:
            # In the parameter's own memory layout: the fused optimiser walks both in memory order.
            tensor = torch.empty_like(parameter, requires_grad=False).copy_(tensor)
        moments.setdefault(int(index), {})[key] = tensor
    state: dict[str, Any] = optimizer.state_dict()
    optimizer.load_state_dict({"state": moments, "param_groups": state["param_groups"]})
    return int(content["steps"]), int(content["epoch"]), list(content["levels"])


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
