"""Theorem 1: one layer with a nonlinearity, gradient descent against the closed form."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.figure import Figure

from memrecon_fast.attractors.theory import linear, single_layer
from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Scale
from memrecon_fast.experiments.figures import COLOURS, INK, new_figure

ENTRIES = 40
IMAGES = 4
_LOOK = 200
"""Steps between two points of a curve."""


def _measure(
    given: Given, activation: str, start: float, adaptive: bool, rate: float, max_steps: int = 20_000
) -> Outcome:
    generator = torch.Generator().manual_seed(given.seed)
    images = 0.1 + 0.8 * torch.rand(IMAGES, ENTRIES, dtype=torch.float64, generator=generator)
    begin = start * torch.randn(ENTRIES, ENTRIES, dtype=torch.float64, generator=generator)
    expected = single_layer.closed_form(images, activation, begin)
    weights, steps, curve = begin, 0, []
    while True:
        curve.append((steps, (weights - expected).norm().item() / expected.norm().item()))
        found = single_layer.descend(
            images, activation, weights, rate=rate, max_steps=_LOOK, adaptive=adaptive, tolerance=1e-26
        )
        weights, steps = found.weights, steps + found.steps
        if found.converged or steps >= max_steps:
            break
    curve.append((steps, (weights - expected).norm().item() / expected.norm().item()))
    values = torch.stack([torch.linalg.eigvals(single_layer.jacobian(weights, one, activation)) for one in images])
    noise = torch.randn(100, ENTRIES, dtype=torch.float64, generator=generator)
    away = single_layer.distance_from_span(images, single_layer.apply(weights, noise, activation), activation)
    row = {
        "activation": activation,
        "start": start,
        "rate": "adaptive" if adaptive else "constant",
        "loss": found.loss,
        "steps": steps,
        "from_closed_form": curve[-1][1],
        "rank": linear.rank(weights),
        "radius_least": values.abs().amax(dim=1).min().item(),
        "radius_most": values.abs().amax(dim=1).max().item(),
        "from_span": away.mean().item(),
    }
    return Outcome([row], {"curve": np.array(curve), "eigenvalues": values.numpy()})


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    figure = new_figure(9.5, 4)
    left, right = figure.subplots(1, 2)
    for number, (name, outcome) in enumerate(outcomes.items()):
        steps, distance = outcome.arrays["curve"].T
        left.semilogy(steps, np.maximum(distance, 1e-16), color=COLOURS[number], label=name)
        radii = np.abs(outcome.arrays["eigenvalues"]).max(axis=1)
        right.plot(np.full(len(radii), number), radii, "o", color=COLOURS[number])
    left.set_xlabel("steps of gradient descent")
    left.set_ylabel("distance of W to the closed form, relative")
    left.grid(True)
    left.legend(fontsize=9)
    right.axhline(1, color=INK, linewidth=0.8)
    right.set_xticks(range(len(outcomes)), list(outcomes), rotation=20, ha="right")
    right.set_ylabel("ρ of the Jacobian at each image")
    right.set_title("Fixed points all, attractors below 1", fontsize=11)
    return {"single-layer": figure}


EXPERIMENT = Experiment(
    name="attractors-single-layer",
    what="one layer with a nonlinearity: gradient descent comes to the closed form, outputs lie in the φ-span",
    reproduces="Theorem 1 and its corollary, Appendix B; the effect of the first weights, Section 5",
    differs=(
        f"{IMAGES} random images of {ENTRIES} pixels in [0.1, 0.9]: the theorem asks for values of φ, and no 0 or 1.",
        "Theorem 1 is proved for the adaptive rate; with the constant one it is what is seen.",
    ),
    scales={
        "small": Scale(
            {
                "sigmoid": {"activation": "sigmoid", "start": 0.0, "adaptive": False, "rate": 0.3},
                "sigmoid, adaptive": {"activation": "sigmoid", "start": 0.0, "adaptive": True, "rate": 0.03},
                "sigmoid, start 0.05": {"activation": "sigmoid", "start": 0.05, "adaptive": False, "rate": 0.3},
                "tanh": {"activation": "tanh", "start": 0.0, "adaptive": False, "rate": 0.05},
            },
            minutes=0.2,
        )
    },
    measure=_measure,
    columns=(
        "activation",
        "start",
        "rate",
        "steps",
        "from_closed_form",
        "rank",
        "radius_least",
        "radius_most",
        "from_span",
    ),
    draw=_draw,
)
