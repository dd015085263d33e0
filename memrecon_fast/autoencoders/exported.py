"""Models that torch.export wrote, `.pt2`, without the pickles that such a file may carry."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor


def load_exported(path: Path, device: str | torch.device = "cpu") -> Callable[[Tensor], Tensor]:
    """The model of a `.pt2` file on this device, a callable (B, *image_shape) → the same for any B ≥ 1.

    torch.export.load unpickles what it finds in some places. Files with anything there but plain tensors are refused.
    What is left is a program all the same: load one only from where you would install software.

    Raises ValueError for a file that is corrupt, needs unpickling, or has a fixed batch size.
    """
    content = path.read_bytes()
    _refuse_pickles(path, content)
    try:
        program = torch.export.load(io.BytesIO(content))
    except Exception as error:  # torch raises many kinds here
        raise ValueError(f"{path} cannot be loaded by torch.export of torch {torch.__version__}: {error}") from error
    _check_batch_is_dynamic(path, program)
    if torch.device(device).type != "cpu":
        from torch.export.passes import move_to_device_pass  # not in the oldest versions of torch that we support

        program = move_to_device_pass(program, device)
    return program.module()


def _refuse_pickles(path: Path, content: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            members = {name: archive.read(name) for name in names if name.endswith((".pt", ".json"))}
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"{path} is not a torch.export archive: {error}") from error
    if len(set(names)) < len(names):
        raise ValueError(f"{path} is refused: it holds two members of the same name")
    for name in names:
        if "/aotinductor/" in name:
            raise ValueError(f"{path} is refused: it holds compiled machine code ({name}); save the exported program")
    for name, member in members.items():
        if name.endswith("_config.json"):
            entries = json.loads(member).get("config", {}).values()
            if any(entry["use_pickle"] or "_obj_" in entry["path_name"] for entry in entries):
                raise ValueError(f"{path} is refused: {name} asks for unpickling, which runs whatever code it carries")
        elif name.endswith(".pt") and member:
            try:
                torch.load(io.BytesIO(member), weights_only=True)
            except Exception as error:
                raise ValueError(
                    f"{path} is refused: {name} holds more than tensors, and unpickling it would run whatever code it "
                    f"carries. Export again with plain tensors as the example inputs"
                ) from error


def _check_batch_is_dynamic(path: Path, program: torch.export.ExportedProgram) -> None:
    inputs = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    if len(inputs) != 1:
        raise ValueError(f"{path} takes {len(inputs)} inputs; expected one, the images (B, *image_shape)")
    shape = inputs[0].meta["val"].shape
    if not shape or isinstance(shape[0], int):
        raise ValueError(
            f"{path} was exported for inputs of shape {tuple(shape)} only; the batch dimension must be dynamic: "
            f"torch.export.export(model, (images,), dynamic_shapes=({{0: torch.export.Dim('batch')}},))"
        )
