"""Beyond the paper: the training images of an ordinary two-layer classifier, from its weights before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import memrecon_fast as mf
from memrecon_fast import metrics
from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Pictures, Scale
from memrecon_fast.experiments.figures import new_figure, show_tiles
from memrecon_fast.reconstruction import Scaling, compare, from_states

IMAGES, EPOCHS, BATCH, RATE = 20, 200, 5, 0.1
SCALING = Scaling("pixels", (0.5,), (0.25,))
_SHOWN = 10
_COLUMNS = ("optimiser", "width", "images", "loss", "certain", "found", "recovered", "accurate", "rho", "refused")


def _measure(given: Given, width: int, optimiser: str = "sgd", epochs: int = EPOCHS) -> Outcome:
    assert given.members is not None
    pictures = given.members
    seen = SCALING.inputs_of(pictures).float().reshape(pictures.shape)
    module, labels = classifier(pictures[0].numel(), width), torch.arange(len(pictures)) % 2
    initial = {name: value.clone() for name, value in module.state_dict().items()}
    loss = train(module, seen, labels, optimiser, epochs)
    row: dict[str, Any] = {"optimiser": optimiser, "width": width, "images": len(pictures), "loss": loss}
    model, theta = from_states(module, module.state_dict(), initial, tuple(pictures.shape[1:]))
    try:
        found = mf.reconstruct(model, theta, seed=given.seed)
    except ValueError as error:
        return Outcome([{**row, "refused": True, "reason": str(error)}], {"true": pictures[:_SHOWN].numpy()})
    compared = compare(seen.flatten(1), found.inputs)
    back = SCALING.pictures_like(found.inputs[compared.index.clamp_min(0)], pictures)
    mse = metrics.mse(back, pictures.double())
    row |= {
        "certain": found.certain,
        "found": len(found.inputs),
        "recovered": compared.recovered,
        "accurate": int((mse < metrics.ACCURATE_MSE).sum()),
        "rho": compared.error,
        "refused": False,
    }
    return Outcome([row], {"true": pictures[:_SHOWN].numpy(), "found": back[:_SHOWN].numpy()})


def classifier(d: int, width: int) -> nn.Module:
    """Of two classes, as anyone would write it."""
    return nn.Sequential(nn.Flatten(), nn.Linear(d, width), nn.ReLU(), nn.Linear(width, 2))


def train(module: nn.Module, pictures: Tensor, labels: Tensor, optimiser: str, epochs: int) -> float:
    """The loss in the end."""
    cross_entropy = nn.functional.cross_entropy
    steps: torch.optim.Optimizer = torch.optim.SGD(module.parameters(), lr=RATE)
    if optimiser == "adam":
        steps = torch.optim.Adam(module.parameters())
    for _ in range(epochs):
        for part in torch.randperm(len(pictures)).split(BATCH):
            steps.zero_grad()
            cross_entropy(module(pictures[part]), labels[part]).backward()
            steps.step()
    with torch.no_grad():
        return float(cross_entropy(module(pictures), labels))


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    done = [outcome for outcome in outcomes.values() if "found" in outcome.arrays]
    rows = [next(iter(outcomes.values())).arrays["true"], *(one.arrays["found"] for one in done)]
    names = ["training images", *(f"{one.rows[0]['width']} units" for one in done)]
    figure = new_figure(8.5, 0.74 * len(rows) + 0.1)
    show_tiles(figure.subplots(), np.stack(rows), names)
    return {"pictures": figure}


def _cells(widths: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    by_width: dict[str, dict[str, Any]] = {f"{width} units": {"width": width} for width in widths}
    return {**by_width, "Adam": {"width": max(widths), "optimiser": "adam"}}


EXPERIMENT = Experiment(
    name="reconstruction-classifier",
    what="training images of an ordinary two-layer classifier, from its weights before and after training",
    reproduces="nothing published: what the change of the first layer tells, beyond the paper",
    differs=(
        "The paper reconstructs from the second layer alone, of which it takes p ≫ d·n. Here the change of the first "
        "layer is known, too: a unit learns nothing of an image that leaves it inactive, which tells the images.",
        "Pixels less 0.5, over 0.25; biases as nn.Linear has them; cross-entropy; gradient descent at a rate of "
        f"{RATE}, {EPOCHS} epochs in batches of {BATCH}; classes alternate. n is not told.",
        "Adam scales each weight's gradient by itself: the change says nothing of the span of the images, and the "
        "search is refused. Photographs of 16×16 did not come back from 1000 units.",
    ),
    scales={"small": Scale(_cells((100, 300, 1000)), minutes=1)},
    measure=_measure,
    columns=_COLUMNS,
    draw=_draw,
    pictures=Pictures(members=IMAGES, controls=0, size=8),
)
