"""Table 2: deep linear convolutional nets, one filter a layer, memorise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from memrecon_fast.attractors.theory import linear
from memrecon_fast.experiments.attractors.nets import Chain, descend, fit
from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Row, Scale
from memrecon_fast.experiments.figures import COLOURS, INK, new_figure

_SHOWN = 10
"""Of them in the figure."""
TARGET = 1e-8
LONGEST, LONGEST_DEEP = 0.02, 0.05
"""Steps of the descent are no longer than this; the second of nets with more than `DEEP` layers, whose weights begin
larger."""
DEEP = 20
ADAM_RATE = 3e-3
"""Of nets with skip connections."""


def measure_chain(
    given: Given, size: int, images: int, net: Mapping[str, Any], max_steps: int = 8000, starts: int = 5
) -> Outcome:
    """Train chains that begin differently on the same uniformly random images, and look at their eigenvalues.

    net: arguments of `Chain`, but for the seed. The row is that of the start with the median of the largest eigenvalue
    that is none of the 1s, and its range.
    """
    pixels = torch.rand(images, 1, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(given.seed))
    found = []
    for start in range(starts):
        chain = Chain(**net, seed=given.seed + start)
        if chain.skip:
            loss, steps = fit(chain, pixels, ADAM_RATE, max_steps, TARGET)
        else:
            longest = LONGEST_DEEP if len(chain.layers) > DEEP else LONGEST
            loss, steps = descend(chain, pixels, longest, max_steps, TARGET)
        values = linear.spectrum(linear.matrix_of(chain, (1, size, size)))
        ones = (values - 1).abs().argsort()[:images]
        others = torch.ones(len(values), dtype=torch.bool).index_fill(0, ones, False)
        row: Row = {
            "image_size": f"{size}×{size}",
            "images": images,
            "heuristic_layers": linear.heuristic_layers(size),
            "layers": net["layers"],
            "filters": net["filters"],
            "skip": chain.skip,
            "parameters": chain.parameter_count,
            "loss": loss,
            "steps": steps,
            "distance_of_ones": (values[ones] - 1).abs().max().item(),
            "largest_other": values[others].abs().max().item(),
            "spectrum": ", ".join(_number(one) for one in values[: images + 2].tolist()),
        }
        found.append((row, values))
    found.sort(key=lambda one: one[0]["largest_other"])
    row, values = found[(starts - 1) // 2]
    row["of_starts"] = [found[0][0]["largest_other"], found[-1][0]["largest_other"]]
    row["converged"] = f"{sum(one['loss'] < TARGET for one, _ in found)} of {starts}"
    return Outcome([row], {"eigenvalues": values.numpy()})


def draw_spectra(outcomes: Mapping[str, Outcome], label: str) -> Figure:
    """The moduli of all eigenvalues of each net, by their rank; `label` is filled in with the columns of its row, and
    {skips}."""
    figure = new_figure(8, 4.6)
    axes = figure.subplots()
    styles = ("-", "--", ":")
    for number, outcome in enumerate(outcomes.values()):
        row, moduli = outcome.rows[0], np.abs(outcome.arrays["eigenvalues"])
        axes.semilogy(
            np.arange(1, len(moduli) + 1),
            np.maximum(moduli, 1e-16),
            styles[number // len(COLOURS) % len(styles)],
            color=COLOURS[number % len(COLOURS)],
            marker="o",
            markersize=3,
            label=label.format(**row, skips=", skips" if row["skip"] else ""),
        )
    axes.axhline(1, color=INK, linewidth=0.8, zorder=0)
    axes.set_ylim(1e-8, 5)
    axes.set_xlim(0.7, _SHOWN + 0.3)
    axes.set_xlabel("eigenvalue, by falling modulus")
    axes.set_ylabel("modulus")
    axes.grid(True, axis="y")
    figure.legend(loc="outside right upper", fontsize=9)
    return figure


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    return {"spectra": draw_spectra(outcomes, "{image_size}, {images} im., {layers} layers{skips}")}


def _number(value: complex) -> str:
    if abs(value.imag) < 1e-9:
        return f"{value.real:.3g}"
    return f"{value.real:.3g}{value.imag:+.3g}i"


def _cell(size: int, images: int, layers: int, spread: float, skip: int = 0, **more: Any) -> dict[str, Any]:
    net = {"layers": layers, "filters": 1, "spread": spread, "skip": skip}
    return {"size": size, "images": images, "net": net, **more}


_SMALL = {
    "s2-n1-3": _cell(2, 1, 3, 0.01),
    "s3-n1-9": _cell(3, 1, 9, 0.03),
    "s4-n1-29": _cell(4, 1, 29, 0.2),
    "s5-n1-70": _cell(5, 1, 70, 0.25, starts=3),
    "s3-n3-10": _cell(3, 3, 10, 0.1, max_steps=12_000, starts=3),
}
_ABOVE_100 = {
    "s6-n1-144": _cell(6, 1, 144, 0.28, starts=1),
    "s6-n1-144-skip": _cell(6, 1, 144, 0.3, skip=10, max_steps=3000, starts=1),
    "s7-n1-267": _cell(7, 1, 267, 0.295, starts=1),
    "s7-n1-267-skip": _cell(7, 1, 267, 0.3, skip=10, max_steps=3000, starts=1),
    "s5-n5-200-skip": _cell(5, 5, 200, 0.2, skip=10, max_steps=4000, starts=1),
    "s6-n5-350-skip": _cell(6, 5, 350, 0.2, skip=10, max_steps=4000, starts=1),
}

EXPERIMENT = Experiment(
    name="attractors-table2",
    what="deep linear convolutional nets with one filter a layer memorise: the spectrum is 1, 1, …, and nearly 0",
    reproduces="Table 2 (Appendix F)",
    differs=(
        "The learning rates and the target loss are lost in the text that we have. Here it is gradient descent with "
        "Polyak's step length, until 1e-8; the paper takes Adam for nets of more than 10 layers.",
        "The weights begin normal, with a standard deviation of 0.01 to 0.3 that grows with the depth: as near to "
        "zero as trains in time. What is not near zero stays, so each net is begun several times (above 100 layers "
        "once): the row is the median by the largest eigenvalue that is none of the 1s, 'of starts' the range of that.",
        "The rows of more than 100 layers are at --scale paper, with skip connections of 10 layers ('skip'), by Adam "
        f"with a rate that falls from {ADAM_RATE:g} to 0. The text does not say where they begin: here after the first "
        "10 layers, for a net near zero that is skipped as a whole is the identity. 144 and 267 layers are there "
        "without them too.",
        "With skip connections the eigenvalues after the 1s do not come near zero here, and one may be above 1: what "
        "goes past the layers stays.",
        "In the paper's text the first row has the heuristic depth 2 and 3 layers (27 parameters), and the last one "
        "350 layers with 3105 parameters, which would be 345 layers.",
    ),
    scales={"small": Scale(_SMALL, minutes=1), "paper": Scale({**_SMALL, **_ABOVE_100}, minutes=6)},
    measure=measure_chain,
    columns=(
        "image_size", "images", "heuristic_layers", "layers", "skip", "parameters", "converged", "spectrum",
        "largest_other", "of_starts",
    ),
    draw=_draw,
)  # fmt: skip
