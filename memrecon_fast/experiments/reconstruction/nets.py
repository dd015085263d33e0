"""The law of nets: from how many features on do training inputs come back from what the layers learned?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Pictures, Row, Scale
from memrecon_fast.experiments.reconstruction.panels import law_figure
from memrecon_fast.experiments.reconstruction.problems import (
    Solved,
    noisy_linear,
    on_sphere,
    reduced,
    row_of,
    solved,
    two_classes,
)
from memrecon_fast.reconstruction import ResidualNet, Scaling, TwoLayer, fit, from_states

TWO_LAYERS, RESIDUAL = "two layers", "residual"
HEAD, ALL = "head", "all"
IMAGES, LARGE, CHANNELS = 5, 8, 3
_MOST_STEPS = 20_000
_COLUMNS = (
    "net", "trained", "n", "d", "p", "p_over_dn", "seeds", "training_error", "refused", "certain", "whole", "recovered",
    "rho", "rho_std", "rho_worst", "residual", "moved", "passes", "seconds",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A net, and what it is trained on."""

    net: nn.Module
    """Of float64, as it is before training."""
    head: str
    """The name of its last layer."""
    inputs: Tensor
    """float64 (n, …), each of length √d."""
    labels: Tensor
    rate: float
    """Of the first step of gradient descent."""


def task_of(given: Given, net: str, n: int, size: int, width: int, blocks: int, seed: int) -> Task:
    """net: of two layers, of inputs from the sphere of `size` dimensions; or residual, of pictures of so many pixels
    a side. blocks: of residual nets."""
    torch.manual_seed(seed)
    if net == TWO_LAYERS:
        inputs = on_sphere(n, size, seed)
        return Task(TwoLayer(size, width).double(), "2", inputs, noisy_linear(inputs, seed), 0.1)
    assert given.members is not None
    pictures = reduced(given.members[:n], size)
    inputs = Scaling().inputs_of(pictures).double().reshape(pictures.shape)
    module = ResidualNet(pictures.shape[1], size, width, blocks).double()
    return Task(module, str(len(module) - 1), inputs, two_classes(n, seed), 1e-3)


def train_and_solve(task: Task, trained: str, seed: int) -> tuple[float, Solved | None]:
    """The mean squared error on the labels, and what came back: None where the labels were not fitted in so many steps,
    or it is refused to look, as there are too few parameters."""
    shape = tuple(task.inputs.shape[1:])
    try:
        states = fit(task.net, task.inputs, task.labels, task.head if trained == HEAD else None, rate=task.rate,
                     most_steps=_MOST_STEPS)  # fmt: skip
    except ValueError:  # the net is as far as it came
        with torch.no_grad():
            return float((task.net(task.inputs)[:, 0] - task.labels).square().mean()), None
    model, theta = from_states(task.net, states.trained, states.initial, shape)
    try:
        return states.loss, solved(model, theta, task.inputs.flatten(1), seed)
    except ValueError:
        return states.loss, None


def _measure(
    given: Given, net: str, trained: str, n: int, size: int, width: int, seeds: int, blocks: int = 0
) -> Outcome:
    """trained: "head", or "all" layers."""
    errors, answers = [], []
    for seed in range(given.seed, given.seed + seeds):
        task = task_of(given, net, n, size, width, blocks, seed)
        error, answer = train_and_solve(task, trained, seed)
        errors.append(error)
        answers.append(answer)
    d, p = math.prod(task.inputs.shape[1:]), task.net.get_parameter(f"{task.head}.weight").shape[1]
    done = [one for one in answers if one is not None]
    row: Row = {"net": net, "trained": trained, "n": n, "d": d, "p": p, "p_over_dn": p / (d * n), "seeds": seeds}
    row |= {
        "refused": seeds - len(done),
        "certain": sum(one.found.certain for one in done),
        "residual": max((one.found.residual for one in done), default=None),
        "moved": max((one.found.moved for one in done), default=None),
    }
    return Outcome([row | row_of(errors, answers)])


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    panels: dict[str, list[Row]] = {}
    for outcome in outcomes.values():
        for row in outcome.rows:
            title = f"{row['net']}, {row['trained']} trained, n = {row['n']}, d = {row['d']}"
            panels.setdefault(title, []).append(row)
    return {"law": law_figure(panels, columns=2)}


def _two_layers(n: int, d: int, trained: str, ratios: tuple[float, ...], seeds: int) -> dict[str, dict[str, Any]]:
    """ratios: p/(d·n); and of fewer parameters than labels those at which the labels' error alone is looked at."""
    widths = [max(1, round(ratio * n)) for ratio in (0.25, 0.5, 1, 2)] + [round(ratio * d * n) for ratio in ratios]
    return {
        f"two-layers-{trained}-{n}-{d}-{width}": {
            "net": TWO_LAYERS,
            "trained": trained,
            "n": n,
            "size": d,
            "width": width,
            "seeds": seeds,
        }
        for width in widths
    }


def _residual(
    n: int, side: int, blocks: int, trained: str, ratios: tuple[float, ...], seeds: int
) -> dict[str, dict[str, Any]]:
    widths = [round(ratio * n * CHANNELS) for ratio in ratios]
    return {
        f"residual-{trained}-{n}-{side}-{width}": {
            "net": RESIDUAL,
            "trained": trained,
            "n": n,
            "size": side,
            "width": width,
            "seeds": seeds,
            "blocks": blocks,
        }
        for width in widths
    }


_HEAD_RATIOS, _ALL_RATIOS = (1.5, 2.0, 2.5, 4.0, 10.0), (0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_SMALL = {
    **_two_layers(10, 50, HEAD, _HEAD_RATIOS, 3),
    **_two_layers(10, 50, ALL, _ALL_RATIOS, 3),
    **_residual(2, 4, 2, HEAD, (1.4, 2.0, 3.0, 4.0), 3),
    **_residual(2, 4, 2, ALL, (1.4, 2.0, 3.0, 4.0), 3),
}
_PAPER = {
    **_two_layers(10, 50, HEAD, _HEAD_RATIOS, 5),
    **_two_layers(10, 50, ALL, _ALL_RATIOS, 5),
    **_two_layers(20, 100, HEAD, (2.0, 4.0), 3),
    **_two_layers(20, 100, ALL, (0.1, 0.25, 0.5, 1.0), 5),
    **_residual(IMAGES, LARGE, 4, HEAD, (2.0, 4.0, 6.4, 10.0), 3),
    **_residual(IMAGES, LARGE, 4, ALL, (2.0, 4.0, 6.4, 10.0), 3),
}

EXPERIMENT = Experiment(
    name="reconstruction-nets",
    what="from how many features on do training inputs of two-layer and residual nets come back",
    reproduces="the law of Figure 3 for nets",
    differs=(
        "The solver is this project's, not gradient descent on the inputs. p: features that the head is given. "
        "`refused`: labels were not fitted, or p is too small to look; counted as if nothing came back.",
        "Where all layers of a two-layer net were trained, the change of the first is known, too: it spans the inputs, "
        "so that fewer than d·n parameters do. `certain`: found in what its units learned.",
        "Residual nets: 2 blocks, 2 photographs of 4×4 (at the scale paper 4 blocks, 5 of 8×8), not 32×32; even of "
        "width 1 they have more features than labels, so that these are always fitted.",
        f"Gradient descent in float64 to a loss of 1e-7, at most {_MOST_STEPS} steps; the paper's rates are not known.",
    ),
    scales={"small": Scale(_SMALL, minutes=4), "paper": Scale(_PAPER, minutes=90)},
    measure=_measure,
    columns=_COLUMNS,
    draw=_draw,
    pictures=Pictures(members=IMAGES, controls=0, size=LARGE),
)
