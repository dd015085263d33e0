"""Figure 9: deep convolutional nets with one filter a layer and leaky ReLUs memorise one image."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch import nn

from memrecon_fast.attractors.theory import linear
from memrecon_fast.experiments.attractors.nets import Chain, descend, from_span
from memrecon_fast.experiments.attractors.table2 import LONGEST_DEEP, TARGET
from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Scale
from memrecon_fast.experiments.figures import tile_panels

SIZE = 4
SLOPE = 0.2
"""Of the leaky ReLU below 0."""
_STARTS = 200
_SHOWN = 6


def leaky_chain(layers: int, spread: float, seed: int) -> nn.Sequential:
    """A `Chain` of one filter with a leaky ReLU after every layer."""
    chain = Chain(layers, 1, spread, seed)
    return nn.Sequential(*(module for layer in chain.layers for module in (layer, nn.LeakyReLU(SLOPE))))


def _measure(given: Given, layers: int, spread: float, nets: int = 3, max_steps: int = 4000) -> Outcome:
    generator = torch.Generator().manual_seed(given.seed)
    image, starts = (
        torch.rand(count, 1, SIZE, SIZE, dtype=torch.float64, generator=generator) for count in (1, _STARTS)
    )
    rows, pictures = [], []
    for number in range(nets):
        net = leaky_chain(layers, spread, given.seed + number)
        loss, steps = descend(net, image, LONGEST_DEEP, max_steps, TARGET)
        with torch.no_grad():
            outputs = net(starts)
        away = from_span(image, outputs)
        rows.append(
            {
                "layers": layers,
                "heuristic_layers": linear.heuristic_layers(SIZE),
                "loss": loss,
                "steps": steps,
                "starts_from_image": from_span(image, starts).median().item(),
                "from_image": away.median().item(),
                "from_image_most": away.max().item(),
            }
        )
        pictures.append(outputs[:_SHOWN])
    shown = torch.stack([starts[:_SHOWN], *pictures, image.expand(_SHOWN, -1, -1, -1)])
    brightest = shown.abs().amax(dim=(-3, -2, -1), keepdim=True)
    return Outcome(rows, {"pictures": (shown / brightest).numpy()})


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    nets = max(len(outcome.rows) for outcome in outcomes.values())
    titles = [
        f"{outcome.rows[0]['layers']} layers, losses {', '.join(format(row['loss'], '.0e') for row in outcome.rows)}\n"
        f"not along the image: {', '.join(format(row['from_image'], '.0%') for row in outcome.rows)}\n"
        f"of the start: {outcome.rows[0]['starts_from_image']:.0%}"
        for outcome in outcomes.values()
    ]
    labels = ["start", *(f"net {number + 1}" for number in range(nets)), "trained on"]
    return {"one-filter": tile_panels([outcome.arrays["pictures"] for outcome in outcomes.values()], titles, labels)}


EXPERIMENT = Experiment(
    name="attractors-one-filter",
    what="convolutions with one filter each, and leaky ReLUs: how much of a start is left with 3, 9 and 29 layers",
    reproduces="Figure 9 (Appendix H)",
    differs=(
        f"A random image of {SIZE}×{SIZE} pixels, and uniformly random starts; the figure's are lost in the text that "
        f"we have, as is the slope below 0: {SLOPE} here.",
        "Gradient descent with Polyak's step length until 1e-8; three nets of each depth, that begin differently: all "
        "are in the table and the figure.",
        "Memorisation is judged by the share of the output that is not along the image, median of 200 starts: these "
        "nets have no biases, so f(c x) = c f(x), and the image cannot be the only fixed point. In the figure each "
        "picture is scaled to its largest pixel.",
    ),
    scales={
        "small": Scale(
            {
                "3 layers": {"layers": 3, "spread": 0.05},
                "9 layers": {"layers": 9, "spread": 0.1},
                "29 layers": {"layers": 29, "spread": 0.2},
            },
            minutes=0.3,
        )
    },
    measure=_measure,
    columns=("layers", "loss", "steps", "starts_from_image", "from_image", "from_image_most"),
    draw=_draw,
)
