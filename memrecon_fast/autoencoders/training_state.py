"""The state of a training as a file: weights, the optimiser's state, and what they belong to."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memrecon_fast.autoencoders.files import describe
from memrecon_fast.autoencoders.tensors import read_tensors, write_tensors

FILE_NAME = "training.safetensors"
_KEY = "memrecon_fast.training"
_TENSOR = "tensor"
"""In JSON, a dictionary with this key stands for a tensor of the file."""


@dataclasses.dataclass(frozen=True)
class Identity:
    """What decides the steps of a training: a state resumes only under the same."""

    architecture: str
    images: str
    optimizer: str
    max_steps: int
    batch_size: int
    learning_rate: float
    seed: int
    recipe: str
    """What else the optimiser's name stands for."""

    @classmethod
    def of(cls, model: nn.Module, images: Tensor, **others: Any) -> Identity:
        """The identity of a training; the images by their SHA-256, the others as above."""
        digest = hashlib.sha256(images.detach().cpu().contiguous().numpy().data).hexdigest()
        try:
            architecture = json.dumps(describe(model), sort_keys=True)
        except TypeError:
            architecture = type(model).__qualname__
        return cls(architecture, digest, **others)


@dataclasses.dataclass(frozen=True)
class State:
    """What is written and read."""

    model: nn.Module
    weights: nn.Module
    """The module that is trained: the model itself, or that of whose weights it is the average."""
    optimizer: torch.optim.Optimizer
    identity: Identity

    def write(self, folder: Path, steps: int, epoch: int, levels: Iterable[float]) -> None:
        """Write the state after `steps` steps, with the levels reached so far, to the folder, whole or not at all."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self.weights is not self.model:
            tensors |= {f"weights.{name}": tensor for name, tensor in self.weights.state_dict().items()}
        content = {
            "identity": dataclasses.asdict(self.identity),
            "steps": steps,
            "epoch": epoch,
            "levels": list(levels),
            "optimizer": _to_json(self.optimizer.state_dict(), "optimizer", tensors),
        }
        write_tensors(folder / FILE_NAME, tensors, {_KEY: json.dumps(content)})

    def read(self, folder: Path) -> tuple[int, int, list[float]]:
        """Put what was written into the modules and the optimiser; returns the steps and epochs made and the levels
        reached.

        Raises FileNotFoundError where there is none, ValueError where it belongs to another training.
        """
        path = folder / FILE_NAME
        if not path.is_file():
            raise FileNotFoundError(f"there is no training to resume: {path} does not exist")
        tensors, metadata = read_tensors(path)
        if _KEY not in metadata:
            raise ValueError(f"{path} is not the state of a training")
        content = json.loads(metadata[_KEY])
        if "optimizer" not in content:
            raise ValueError(f"{path} was written by an earlier version, and cannot be resumed by this one")
        for name, value in dataclasses.asdict(self.identity).items():
            if content["identity"].get(name) != value:
                raise ValueError(
                    f"{path} belongs to another training: its {name} is {content['identity'].get(name)}, not {value}"
                )
        self.model.load_state_dict(_with_prefix(tensors, "model."))
        if self.weights is not self.model:
            self.weights.load_state_dict(_with_prefix(tensors, "weights."))
        self.optimizer.load_state_dict(_from_json(content["optimizer"], tensors))
        return int(content["steps"]), int(content["epoch"]), list(content["levels"])


def _to_json(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """The value with its tensors put among the others, under names that begin with this one."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return {_TENSOR: name, "stride": value.stride()}
    if isinstance(value, Mapping):
        return {str(key): _to_json(one, f"{name}.{key}", tensors) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(one, f"{name}.{index}", tensors) for index, one in enumerate(value)]
    return value


def _from_json(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `_to_json` was given. In its own memory layout: in another, sums are rounded otherwise, and fused optimisers
    walk their tensors in memory order."""
    if isinstance(value, list):
        return [_from_json(one, tensors) for one in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        tensor = tensors[value[_TENSOR]]
        return torch.empty_strided(tensor.shape, value["stride"], dtype=tensor.dtype).copy_(tensor)
    return {int(key) if key.isdecimal() else key: _from_json(one, tensors) for key, one in value.items()}


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
