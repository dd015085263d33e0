"""The folder of a run: what identifies it, and each solution as it is found."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from memrecon_fast.audit.store.manifest import PLACE
from memrecon_fast.common.files import open_regular, read_json, remove_unfinished, replacing, write_json
from memrecon_fast.common.shapes import Each, Fields, Listed, Of
from memrecon_fast.images.listing import MARKER_OF_RECONSTRUCTION
from memrecon_fast.reconstruction.results import Reconstruction
from memrecon_fast.results import Status

DESCRIPTION = MARKER_OF_RECONSTRUCTION
SOLUTIONS = "solutions"
"""The folder of the solutions, a file for each target and start."""
TRUTH = "truth.npz"
_TENSORS = ("inputs", "coefficients", "signs_known", "gains")
_NUMBERS: dict[str, Callable[[float], Any]] = {
    "residual": float,
    "iterations": int,
    "passes": float,
    "status": lambda status: Status(int(status)),
    "certain": bool,
    "moved": float,
    "lengths_known": bool,
}
_NUMBER = Of(int, float)
_TARGET = Fields(
    {
        "name": Of(str),
        "features": Of(str),
        "lengths_known": Of(bool),
        "p": Of(int),
        "d": Of(int),
        "outputs": Of(int),
        "image_shape": Of(list, type(None)),
        "scaling": Fields({"name": Of(str), "mean": Listed(_NUMBER), "std": Listed(_NUMBER)}),
    }
)
_SHAPE = Fields(
    {
        "targets": Listed(_TARGET),
        "plan": Fields(
            {
                "targets": Listed(Of(str)),
                "images": Of(int, type(None)),
                "settings": Each(Of(int, float, str, bool, type(None))),
                "starts": Of(int),
                "seed": Of(int),
                "truth": Of(str, type(None)),
            }
        ),
        "truth": Of(dict, type(None)),
        "law": Of(dict, type(None)),
        "sessions": Listed(Fields({**PLACE, "solutions": Of(int)})),
    }
)
_TRUTH = Fields({"source": Of(str), "names": Listed(Of(str))})
_LAW = Fields({"inputs": Of(int), "training_error": Listed(Listed(_NUMBER))})


def read_description(run: Path) -> dict[str, Any]:
    """The content of `reconstruction.json`. Raises ValueError for what is no run."""
    path = run / DESCRIPTION
    try:
        found = read_json(path)
    except FileNotFoundError as error:
        raise ValueError(f"{run} is not the folder of a reconstruction: there is no {path}") from error
    fault = _SHAPE.fault(found, "it")
    for name, shape in (("truth", _TRUTH), ("law", _LAW)):
        if not fault and found[name] is not None:
            fault = shape.fault(found[name], f"its {name}")
    if not fault and (not found["targets"] or len(found["targets"]) != len(found["plan"]["targets"])):
        fault = "it must have targets, as many as its plan"
    if fault:
        raise ValueError(f"{path} does not describe a reconstruction: {fault}")
    return dict(found)


def write_description(run: Path, description: Mapping[str, Any]) -> None:
    """Write `reconstruction.json`, whole or not at all."""
    write_json(run / DESCRIPTION, description)


@dataclasses.dataclass(frozen=True)
class Solution:
    """A reconstruction from one start."""

    found: Reconstruction
    seconds: float


@dataclasses.dataclass(frozen=True)
class Store:
    """The solutions of a run."""

    run: Path

    def mend(self, remark: Callable[[str], None]) -> None:
        """Remove unfinished files, and those that are damaged: what they held is done again."""
        remove_unfinished(self.run)
        folder = self.run / SOLUTIONS
        if not folder.exists():
            return
        remove_unfinished(folder)
        for path in sorted(folder.glob("*.npz")):
            if fault := _fault(path):
                path.unlink()
                remark(f"{fault}; what it held is done again")

    def write(self, target: int, seed: int, solution: Solution) -> None:
        """Keep a solution, whole or not at all."""
        path = self._path(target, seed)
        path.parent.mkdir(exist_ok=True)
        found = solution.found
        numbers = [float(getattr(found, name)) for name in _NUMBERS] + [solution.seconds]
        arrays = {name: getattr(found, name).numpy() for name in _TENSORS}
        _write(path, {**arrays, "numbers": np.array(numbers, np.float64)})

    def read(self, target: int, seed: int) -> Solution | None:
        """A solution; None where there is none yet. Raises ValueError where its file is damaged."""
        path = self._path(target, seed)
        if not path.exists():
            return None
        arrays = _read(path)
        try:
            tensors: dict[str, Any] = {name: torch.from_numpy(arrays[name]) for name in _TENSORS}
            *numbers, seconds = arrays["numbers"].tolist()
            others = {name: of(number) for (name, of), number in zip(_NUMBERS.items(), numbers, strict=True)}
            found = Reconstruction(**tensors, **others)
        except (KeyError, ValueError, TypeError) as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        return Solution(found, seconds)

    def write_truth(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep the pictures to compare with, and what was made of them."""
        _write(self.run / TRUTH, arrays)

    def read_truth(self) -> dict[str, NDArray[Any]]:
        """The same; empty where there are none. Raises ValueError where the file is damaged."""
        path = self.run / TRUTH
        return _read(path) if path.exists() else {}

    def _path(self, target: int, seed: int) -> Path:
        return self.run / SOLUTIONS / f"{target}-{seed}.npz"


def _write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, **dict(arrays))  # type: ignore[arg-type]


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with open_regular(path) as stream, np.load(stream, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _fault(path: Path) -> str:
    """What is wrong with a file; "" if nothing is."""
    try:
        _read(path)
    except ValueError as error:
        return str(error)
    return ""
