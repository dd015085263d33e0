"""Training an autoencoder down to a given loss."""

from __future__ import annotations

import copy
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
from memrecon_fast.autoencoders.architectures import ARCHITECTURES, name_of
from memrecon_fast.autoencoders.files import save
from memrecon_fast.autoencoders.polish import solve_last_layer
from memrecon_fast.autoencoders.progress import progress_bar
from memrecon_fast.autoencoders.recipes import RECIPES, Recipe
from memrecon_fast.common.checks import check_choice, check_integer, check_number
from memrecon_fast.engine.precision import allow_tf32

CHECKPOINTS = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
_LOOK_EVERY = 20
"""Steps between two looks at the loss of averaged weights, which costs a forward pass of all images."""
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

    optimizer: "adam" (β₂ = 0.99; the learning rate rises over the first 2 % of the steps and falls to zero along a
        cosine), or "soap" (Adam in the eigenvectors of Shampoo's statistics, needs pytorch-optimizer; the learning rate
        falls slowly at first; the model is an average of the weights; fine detail counts for more, see
        `recipes.Recipe.edges`), which takes U-Nets a thousand times further.
        None for what suits the architecture: "soap" for a `UNet`, else "adam".
    max_steps: at most this many steps, ≥ 1; None for 4,000, or 3,000 with SOAP.
    batch_size: images per step, ≥ 1; None for all of them. Batches are drawn without replacement, anew in every
        epoch, by (seed, epoch).
    learning_rate: its peak, > 0; None for 1e-3, or 3e-3 with SOAP.
    seed: of the batches, 0 ≤ seed < 2⁶⁴.
    checkpoints: losses; when one is first reached, the model is saved as `loss-<level>.safetensors`.
    save_every: steps between two writings of the state, ≥ 1; it is also written at each level and at the end.
    polish: after the steps, solve the last layer by least squares (of an architecture that has a `last_layer`): with
        fewer images than hidden units the loss drops to about 1e-14 in a fraction of a second, past all levels at once.

    Raises ValueError or TypeError for arguments outside these ranges.
    """

    optimizer: str | None = None
    max_steps: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    seed: int = 42
    checkpoints: Sequence[float] = CHECKPOINTS
    save_every: int = 500
    polish: bool = False

    def __post_init__(self) -> None:
        if self.optimizer is not None:
            check_choice("optimizer", self.optimizer, tuple(RECIPES))
        if self.max_steps is not None:
            check_integer("max_steps", self.max_steps, low=1)
        if self.learning_rate is not None:
            check_number("learning_rate", self.learning_rate, low=0, low_is_allowed=False)
        check_integer("seed", self.seed, low=0, high=2**64 - 1)
        check_integer("save_every", self.save_every, low=1)
        for level in self.checkpoints:
            check_number("each checkpoint", level, low=0, low_is_allowed=False)
        if self.batch_size is not None:
            check_integer("batch_size", self.batch_size, low=1)

    def optimizer_for(self, model: nn.Module) -> str:
        """Its name in `RECIPES`."""
        architecture = name_of(model)
        return self.optimizer or (ARCHITECTURES[architecture].optimizer if architecture else "adam")


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

    The result depends neither on the global random state nor on torch's switches for TF32, which is not used: on one
    CPU thread, the same arguments give the same weights bit for bit (of a model whose forward draws no random numbers).
    Nets of this size train fastest on one thread.

    images: float32 (B, *image_shape) in [0, 1], on any device; batches go to the model's.
    target_loss: mean squared error per entry, > 0. Not reaching it is no error: see the result.
    checkpoint_folder: where models at the levels of `checkpoints` go, together with `training.safetensors`, from which
        `resume` continues.
    resume: continue from `training.safetensors`: the same weights as without the interruption, bit for bit. The model,
        the images and the arguments that decide the steps must be the same; the target and the levels may differ.
    progress: show a bar (needs rich).
    how: optimizer=None, max_steps=None, batch_size=None, learning_rate=None, seed=42, checkpoints=(1e-4, …, 1e-8),
        save_every=500, polish=False: see `Training`.

    Raises ValueError or TypeError for arguments outside these ranges or a training state that does not belong to
    them; FileNotFoundError where there is nothing to resume; ImportError where SOAP is not installed.
    """
    check_number("target_loss", target_loss, low=0, low_is_allowed=False)
    training = Training(**how)
    _check_images(model, images)
    last_layer = _split_last_layer(model) if training.polish else None
    name, seed = training.optimizer_for(model), training.seed
    recipe = RECIPES[name]
    max_steps = training.max_steps or recipe.max_steps
    learning_rate = float(training.learning_rate or recipe.learning_rate)
    batch_size = min(training.batch_size or len(images), len(images))
    folder = None if checkpoint_folder is None else Path(checkpoint_folder)
    if resume and folder is None:
        raise ValueError("resume needs the checkpoint_folder to resume from")

    weights = copy.deepcopy(model) if recipe.average else model  # that are moved; the model is their average
    optimizer = recipe.optimizer(weights.parameters(), learning_rate)
    identity = training_state.Identity.of(
        model,
        images,
        optimizer=name,
        max_steps=max_steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        recipe=recipe.identity,
    )
    state = training_state.State(model, weights, optimizer, identity)
    steps = epoch = 0
    pending = sorted({float(level) for level in training.checkpoints}, reverse=True)
    reached: dict[float, Path | None] = {}
    if resume:
        assert folder is not None
        steps, epoch, earlier = state.read(folder)
        reached = {level: _level_path(folder, level) for level in earlier}
        pending = [level for level in pending if level not in reached]
    elif folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        state.write(folder, 0, 0, ())
    started, saved_at = time.monotonic(), steps
    loss = evaluate(model, images)
    with progress_bar(max_steps, enabled=progress) as show:
        while True:
            crossed = _cross(model, loss, pending, folder)
            reached |= crossed
            finished = steps >= max_steps or loss <= target_loss or not math.isfinite(loss)
            if folder is not None and (crossed or finished or steps - saved_at >= training.save_every):
                state.write(folder, steps, epoch, reached)
                saved_at = steps
            if finished:
                break
            until = min(max_steps, steps + _LOOK_EVERY) if recipe.average else steps + 1
            while steps < until:
                weights.train()
                total, seen = 0.0, 0
                for batch in _batches(len(images), batch_size, seed, epoch):
                    for group in optimizer.param_groups:
                        group["lr"] = learning_rate * recipe.schedule(steps, max_steps)
                    total += _step(weights, optimizer, recipe, images[batch]) * len(batch)
                    if recipe.average:
                        _average(model, weights, recipe)
                    seen += len(batch)
                    steps += 1
                    if steps >= max_steps:
                        break
                epoch += 1
            # The mean over the epoch, each batch before its step: free, and close enough to say when to look.
            loss = total / seen
            if recipe.average or loss <= max([target_loss, *pending[:1]]) or steps >= max_steps:
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


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe, batch: Tensor) -> float:
    batch = batch.to(next(model.parameters()).device)
    optimizer.zero_grad()
    objective = recipe.objective(model(batch) - batch)
    objective.backward()
    optimizer.step()
    return objective.item()


@torch.no_grad()
def _average(model: nn.Module, weights: nn.Module, recipe: Recipe) -> None:
    """The model's parameters follow the weights, its buffers are theirs."""
    torch._foreach_lerp_(list(model.parameters()), list(weights.parameters()), 1 - recipe.average)
    for buffer, newest in zip(model.buffers(), weights.buffers(), strict=True):
        buffer.copy_(newest)


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
