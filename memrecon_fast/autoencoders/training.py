"""Training an autoencoder down to a given loss."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from memrecon_fast.autoencoders import training_state
from memrecon_fast.autoencoders.architectures import ARCHITECTURES
from memrecon_fast.autoencoders.files import save
from memrecon_fast.autoencoders.polish import solve_last_layer
from memrecon_fast.autoencoders.progress import progress_bar
from memrecon_fast.common.checks import check_integer, check_number
from memrecon_fast.engine.precision import allow_tf32

CHECKPOINTS = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
_WARM_UP = 0.02  # of all steps
# A shorter memory of the squared gradients than Adam's usual 0.999, which near the minimum overshoots again and again:
# 20 layers reach 1e-9 with this and 2e-3 without.
_BETAS = (0.9, 0.99)
_EVALUATION_BATCH = 1024


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """How a training ended."""

    loss: float
    """Mean squared error over all entries of all training images, evaluated in eval mode after the last step."""
    reached_target: bool
    """Whether `loss` is at most the target."""
    steps: int
    """Optimiser steps in all, those before a resume included."""
    seconds: float
    """Wall time of this call."""
    checkpoints: dict[float, Path | None]
    """The levels that the loss reached, each with the file of the model at that time; None without a folder."""


@dataclasses.dataclass(frozen=True)
class Training:
    """How a training goes on.

    max_steps: at most this many steps, ≥ 1.
    batch_size: images per step, ≥ 1; None for all of them. Batches are drawn without replacement, anew in every
        epoch, by (seed, epoch).
    learning_rate: its peak, > 0.
    seed: of the batches, 0 ≤ seed < 2⁶⁴.
    checkpoints: losses; when one is first reached, the model is saved as `loss-<level>.safetensors`.
    save_every: steps between two writings of the state, ≥ 1; it is also written at each level and at the end.
    polish: after the steps, solve the last layer by least squares (of an architecture that has a `last_layer`): with
        fewer images than hidden units the loss drops to about 1e-14 in a fraction of a second, past all levels at once.

    Raises ValueError or TypeError for arguments outside these ranges.
    """

    max_steps: int = 4000
    batch_size: int | None = None
    learning_rate: float = 1e-3
    seed: int = 42
    checkpoints: Sequence[float] = CHECKPOINTS
    save_every: int = 500
    polish: bool = False

    def __post_init__(self) -> None:
        check_integer("max_steps", self.max_steps, low=1)
        check_number("learning_rate", self.learning_rate, low=0, low_is_allowed=False)
        check_integer("seed", self.seed, low=0, high=2**64 - 1)
        check_integer("save_every", self.save_every, low=1)
        for level in self.checkpoints:
            check_number("each checkpoint", level, low=0, low_is_allowed=False)
        if self.batch_size is not None:
            check_integer("batch_size", self.batch_size, low=1)


@allow_tf32(False)
def train(
    model: nn.Module,
    images: Tensor,
    target_loss: float,
    *,
    checkpoint_folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = False,
    **how: Any,
) -> TrainingResult:
    """Train `model` in place until its MSE on `images` is at most `target_loss`; leaves it in eval mode.

    Adam (β₂ = 0.99); the learning rate rises over the first 2 % of `max_steps` and falls to zero along a cosine. The
    result depends neither on the global random state nor on torch's switches for TF32, which is not used: on one CPU
    thread, the same arguments give the same weights bit for bit (of a model whose forward draws no random numbers).
    Nets of this size train fastest on one thread.

    images: float32 (B, *image_shape) in [0, 1], on any device; batches go to the model's.
    target_loss: mean squared error per entry, > 0. Not reaching it is no error: see the result.
    checkpoint_folder: where models at the levels of `checkpoints` go, together with `training.safetensors`, from which
        `resume` continues.
    resume: continue from `training.safetensors`: the same weights as without the interruption, bit for bit. The model,
        the images and the arguments that decide the steps must be the same; the target and the levels may differ.
    progress: show a bar (needs rich).
    how: max_steps=4000, batch_size=None, learning_rate=1e-3, seed=42, checkpoints=(1e-4, …, 1e-8), save_every=500,
        polish=False: see `Training`.

    Raises ValueError or TypeError for arguments outside these ranges or a training state that does not belong to
    them; FileNotFoundError where there is nothing to resume.
    """
    check_number("target_loss", target_loss, low=0, low_is_allowed=False)
    training = Training(**how)
    _check_images(model, images)
    last_layer = _split_last_layer(model) if training.polish else None
    max_steps, learning_rate, seed = training.max_steps, training.learning_rate, training.seed
    batch_size = min(training.batch_size or len(images), len(images))
    folder = None if checkpoint_folder is None else Path(checkpoint_folder)
    if resume and folder is None:
        raise ValueError("resume needs the checkpoint_folder to resume from")

    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, betas=_BETAS, fused=True)
    identity = training_state.Identity.of(model, images, max_steps, batch_size, float(learning_rate), seed)
    steps = epoch = 0
    pending = sorted({float(level) for level in training.checkpoints}, reverse=True)
    reached: dict[float, Path | None] = {}
    if resume:
        assert folder is not None
        steps, epoch, earlier = training_state.read(folder, model, optimizer, identity)
        reached = {level: _level_path(folder, level) for level in earlier}
        pending = [level for level in pending if level not in reached]
    elif folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        training_state.write(folder, model, optimizer, identity, 0, 0, ())
    started, saved_at = time.monotonic(), steps
    loss = evaluate(model, images)
    with progress_bar(max_steps, enabled=progress) as show:
        while True:
            crossed = _cross(model, loss, pending, folder)
            reached |= crossed
            finished = steps >= max_steps or loss <= target_loss or not math.isfinite(loss)
            if folder is not None and (crossed or finished or steps - saved_at >= training.save_every):
                training_state.write(folder, model, optimizer, identity, steps, epoch, reached)
                saved_at = steps
            if finished:
                break
            model.train()
            total = 0.0
            for batch in _batches(len(images), batch_size, seed, epoch):
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate * _schedule(steps, max_steps)
                total += _step(model, optimizer, images[batch]) * len(batch)
                steps += 1
            epoch += 1
            # The mean over the epoch, each batch before its step: free, and close enough to say when to look.
            loss = total / len(images)
            if loss <= max([target_loss, *pending[:1]]) or steps >= max_steps:
                loss = evaluate(model, images)
            show(steps, loss)
    if last_layer is not None:
        solve_last_layer(*last_layer, images)
        loss = evaluate(model, images)
        reached |= _cross(model, loss, pending, folder)
    model.eval()
    return TrainingResult(loss, loss <= target_loss, steps, time.monotonic() - started, reached)


def _split_last_layer(model: nn.Module) -> tuple[Callable[[Tensor], Tensor], nn.Linear]:
    """See `Architecture.last_layer`. Raises TypeError for a model whose last layer cannot be solved."""
    solvable = {name: one for name, one in ARCHITECTURES.items() if one.last_layer is not None}
    for one in solvable.values():
        if one.last_layer is not None and isinstance(model, one.model):
            return one.last_layer(model)
    raise TypeError(f"polish solves the last layer of a {' or a '.join(solvable)}, which {type(model).__name__} is not")


def _cross(model: nn.Module, loss: float, pending: list[float], folder: Path | None) -> dict[float, Path | None]:
    """Save the model at each pending level that `loss` reached; those levels are pending no more."""
    reached: dict[float, Path | None] = {}
    while pending and loss <= pending[0]:
        level = pending.pop(0)
        reached[level] = None if folder is None else _level_path(folder, level)
        if folder is not None:
            save(model, _level_path(folder, level))
    return reached


def _level_path(folder: Path, level: float) -> Path:
    return folder / f"loss-{np.format_float_scientific(level, trim='-', exp_digits=2)}.safetensors"


@allow_tf32(False)
@torch.inference_mode()
def evaluate(model: nn.Module, images: Tensor) -> float:
    """Mean squared error over all entries of `images`, (B, *image_shape), in eval mode; summed in float64."""
    model.eval()
    device = next(model.parameters()).device
    total = 0.0
    for first in range(0, len(images), _EVALUATION_BATCH):
        batch = images[first : first + _EVALUATION_BATCH].to(device)
        total += (model(batch) - batch).double().square().sum().item()
    return total / images.numel()


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Tensor) -> float:
    batch = batch.to(next(model.parameters()).device)
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(batch), batch)
    loss.backward()
    optimizer.step()
    return loss.item()


def _schedule(step: int, steps: int) -> float:
    """The learning rate relative to its peak: a linear rise, then a cosine down to zero."""
    warm_up = max(1, round(_WARM_UP * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 + 0.5 * math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up))


def _batches(count: int, size: int, seed: int, epoch: int) -> Sequence[Tensor]:
    """The indices of each batch of an epoch, a function of (seed, epoch) alone."""
    if size == count:
        return [torch.arange(count)]
    random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return torch.from_numpy(random.permutation(count)).split(size)  # type: ignore[no-any-return]


def _check_images(model: nn.Module, images: Tensor) -> None:
    if not isinstance(images, Tensor) or images.dtype != torch.float32:
        found = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"images must be a float32 tensor, not {found}")
    shape = getattr(model, "image_shape", tuple(images.shape[1:]))
    if images.ndim < 2 or len(images) == 0 or tuple(images.shape[1:]) != tuple(shape):
        raise ValueError(f"images must have the shape (B, {', '.join(map(str, shape))}), not {tuple(images.shape)}")
    low, high = images.aminmax()
    if not (low >= 0 and high <= 1):  # NaN fails too
        raise ValueError(f"images must be finite and in [0, 1]; they span {low.item()} to {high.item()}")
