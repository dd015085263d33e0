"""Nets with activations, fully connected and convolutional: begun as asked, trained, and looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memrecon_fast.attractors import Verdict, recovery_curve, stability
from memrecon_fast.autoencoders import FullyConnected, train
from memrecon_fast.experiments.attractors.nets import iterates
from memrecon_fast.experiments.experiment import Row
from memrecon_fast.images.nearest import Nearest

ONE_EACH = "One net of each kind was trained; --seed N makes another, and other numbers."
TIMES = (1, 10, 100)
"""Applications of f after which recoveries are counted."""
STEPS = ("start", *(f"f, {time}×" for time in TIMES), "nearest")
"""The rows of `steps_shown`."""

STARTS: dict[str, Callable[[nn.Module], object]] = {
    "near zero": lambda layer: _normal(layer, 0.4),
    "pytorch": lambda layer: layer.reset_parameters(),  # type: ignore[operator]
    "xavier uniform": lambda layer: _begun(layer, nn.init.xavier_uniform_),
    "xavier normal": lambda layer: _begun(layer, nn.init.xavier_normal_),
    "kaiming uniform": lambda layer: _begun(layer, nn.init.kaiming_uniform_),
    "kaiming normal": lambda layer: _begun(layer, nn.init.kaiming_normal_),
}
"""The first weights of a layer, by the name of the scheme."""


def make_net(
    image_shape: Sequence[int],
    width: int,
    depth: int,
    seed: int,
    start: str | None = None,
    activation: str = "leaky_relu",
) -> FullyConnected:
    """A net; its first weights are this project's (a gain of 0.004 in all layers together), or those of
    `STARTS`, which are drawn from torch's global randomness."""
    net = FullyConnected(tuple(image_shape), width, depth, activation, seed=seed)
    if start is not None:
        begin(net, start)
    return net


def begin(net: nn.Module, start: str) -> None:
    """Give all layers the first weights of this scheme."""
    for layer in net.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            STARTS[start](layer)


def fit_net(net: nn.Module, members: Tensor, max_steps: int, *, seed: int, target: float = 1e-9, **how: Any) -> Row:
    """Train by Adam on all members in each step; how: more of `autoencoders.train`'s arguments."""
    how = {"optimizer": "adam", "max_steps": max_steps, "seed": seed, "checkpoints": (), **how}
    result = train(net, members, target, **how)
    return {"loss": result.loss, "steps": result.steps}


def fit_net_with_levels(
    net: FullyConnected, members: Tensor, levels: Sequence[float], max_steps: int, folder: Path, seed: int = 42
) -> dict[float, Path | None]:
    """The same, from where an interruption left it; the files of the net at each level of the loss that it reached."""
    result = train(
        net,
        members,
        min(levels),
        max_steps=max_steps,
        seed=seed,
        checkpoints=levels,
        checkpoint_folder=folder,
        resume=(folder / "training.safetensors").exists(),
    )
    return result.checkpoints


def recovery_row(net: nn.Module, members: Tensor, starts: Tensor, prefix: str = "pi") -> Row:
    """π(t), the share of the starts that f takes to a member (within 5e-4) in t steps; and how many different members
    that are in the end."""
    curve = recovery_curve(net, members, starts, TIMES)
    row: Row = {f"{prefix}_{time}": share for time, share in zip(TIMES, curve.share.tolist(), strict=True)}
    row[f"{prefix}_members"] = int(curve.different[-1])
    return row


def stability_row(net: nn.Module, members: Tensor) -> Row:
    """What the members are to the iteration: medians of ρ and of the residual, and how many are attractors."""
    found = stability(net, members)
    radius = found.spectra.radius
    return {
        "attractors": int((found.verdict == int(Verdict.ATTRACTOR)).sum()),
        "members": len(members),
        "radius": radius.nanmedian().item(),
        "radii": [round(one, 6) for one in radius.tolist()],
        "residual": found.residual_mse.median().item(),
    }


def steps_shown(net: nn.Module, members: Tensor, starts: Tensor) -> Tensor:
    """(5, B, *image_shape), rows as in `STEPS`: starts, what f makes of them, and the member nearest to the last."""
    after = iterates(net, starts, (0, *TIMES))
    nearest, _ = Nearest(members).of(after[-1])
    near = members[nearest.clamp_min(0)] * (nearest >= 0).view(-1, *[1] * (members.dim() - 1))  # black: it diverged
    return torch.cat([after, near[None]])


def noise_like(images: Tensor, count: int, seed: int) -> Tensor:
    """(count, *image_shape): uniformly random pixels."""
    return torch.rand(count, *images.shape[1:], generator=torch.Generator().manual_seed(seed))


def _normal(layer: nn.Module, gain: float) -> None:
    """A standard deviation of gain / √(fan in): the net as a whole is far below 1, and yet trains."""
    weight, bias = layer.parameters()
    nn.init.normal_(weight, std=gain / weight[0].numel() ** 0.5)
    nn.init.zeros_(bias)


def _begun(layer: nn.Module, begin: Callable[[Tensor], Tensor]) -> None:
    weight, bias = layer.parameters()
    begin(weight)
    nn.init.zeros_(bias)
