"""Diffusion models from folders, as diffusers' `DDPMPipeline.save_pretrained` and `UNet2DModel.save_pretrained` write
them: safetensors and JSON alone; nothing is downloaded, and nothing is unpickled."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import torch

from memrecon_fast.baselines.diffusion import Diffusion, most_steps
from memrecon_fast.common.errors import one_line
from memrecon_fast.common.files import read_json

UNET, SCHEDULER = "config.json", "scheduler_config.json"
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json")


def open_diffusion(folder: str | os.PathLike[str], **how: Any) -> Diffusion:
    """The diffusion model of a folder, float32 on the CPU.

    folder: of a pipeline, with the model in `unet/` and its scheduler in `scheduler/`, or with both in one place.
    how: steps, travel_length, travel_repeat and eta of `Diffusion`; without steps it makes 100, or as many below that
        as divide the scheduler's.

    Raises ValueError for another folder, or where the extra `diffusion` is missing; TypeError or ValueError as
    `Diffusion`.
    """
    home = Path(folder)
    if not home.is_dir():
        raise ValueError(f"{home} is no folder: expected one that diffusers' save_pretrained wrote")
    latent = sorted(_parts_of(home) & {"vae", "vqvae"})
    if latent:
        raise ValueError(f"{home} is a latent diffusion model (its {latent[0]}): expected one of pixels")
    unet, scheduler = _place(home, "unet", UNET), _place(home, "scheduler", SCHEDULER)
    if not any((unet / name).is_file() for name in WEIGHTS):
        raise ValueError(f"{unet} holds no {WEIGHTS[0]}: other weights, such as .bin, are not opened")
    diffusers = _diffusers()
    _check_class(diffusers.UNet2DModel, unet / UNET, diffusers.UNet2DModel)
    kind: Any = getattr(diffusers, _class_of(scheduler / SCHEDULER), None)
    _check_class(kind, scheduler / SCHEDULER, diffusers.SchedulerMixin)
    try:
        model, loading = diffusers.UNet2DModel.from_pretrained(
            os.fspath(unet.absolute()),
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,
            output_loading_info=True,
        )
        schedule = kind.from_pretrained(os.fspath(scheduler.absolute()), local_files_only=True)
    except Exception as error:  # whatever the library raises for files of another content
        raise ValueError(f"{home} cannot be opened by diffusers: {one_line(error)}") from error
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if found := loading.get(what):
            raise ValueError(f"the weights in {unet} are not those of its {UNET}: {what}, first {found[0]}")
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()  # out of the mapped file, where the last bits of products depend on its place
    if "steps" not in how and isinstance(getattr(schedule, "alphas_cumprod", None), torch.Tensor):
        how["steps"] = most_steps(len(schedule.alphas_cumprod))
    try:
        return Diffusion(model.eval().requires_grad_(False), schedule, **how)
    except ValueError as error:
        raise ValueError(f"{home}: {error}") from error


def _parts_of(home: Path) -> set[str]:
    """Of a pipeline, by their names; none where the folder is that of a model."""
    index = home / "model_index.json"
    content = read_json(index) if index.is_file() else {}
    return set(content) if isinstance(content, dict) else set()


def _place(home: Path, part: str, config: str) -> Path:
    """Where a part of the model is."""
    for place in (home / part, home):
        if (place / config).is_file():
            return place
    raise ValueError(
        f"{home} holds no {part}/{config} and no {config}: expected a folder that diffusers' save_pretrained wrote, of "
        "a pipeline, or of a UNet2DModel and a scheduler in one place"
    )


def _class_of(config: Path) -> str:
    content = read_json(config)
    name = content.get("_class_name") if isinstance(content, dict) else None
    if not isinstance(name, str):
        raise ValueError(f"{config} names no class of diffusers")
    return name


def _check_class(kind: Any, config: Path, expected: type) -> None:
    """Raise ValueError unless the file is of a class that is as expected."""
    named = _class_of(config)
    if kind is None:
        raise ValueError(f"{config} is of {named}, which this version of diffusers does not have")
    if getattr(kind, "_backends", None):  # what diffusers puts in the place of a class whose library is missing
        raise ValueError(f"{config} is of {named}, which needs {', '.join(kind._backends)}: not installed")
    right = isinstance(kind, type) and issubclass(kind, expected) and named == kind.__name__
    if not right:
        raise ValueError(f"{config} is of {named}; expected {expected.__name__.removesuffix('Mixin')}")


def _diffusers() -> Any:
    try:
        return importlib.import_module("diffusers")
    except ImportError as error:
        raise ValueError(
            f"diffusion models need diffusers: pip install 'memrecon-fast[diffusion]' ({error})"
        ) from error
