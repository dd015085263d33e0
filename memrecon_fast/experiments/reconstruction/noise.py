"""How much noise, or rounding, on the parameters do reconstructions bear?"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

import memrecon_fast as mf
from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Scale
from memrecon_fast.experiments.figures import COLOURS, INK, new_figure
from memrecon_fast.experiments.reconstruction.problems import fit, noisy_linear, on_sphere
from memrecon_fast.reconstruction import ReconstructionSettings, compare

N, D, RATIO, SEEDS = 10, 100, 10, 5
_LEVELS = (0.0, 1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3)
_KINDS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_LEAST_TOLERANCE = 1e-5
_COLUMNS = ("what", "noise", "recovered", "rho", "rho_worst", "residual", "explained", "passes")


def _measure(given: Given, what: str, level: float, n: int = N, d: int = D, seeds: int = SEEDS) -> Outcome:
    """what: "noise" of this level, or the kind of number that θ was rounded to."""
    found, noises = [], []
    for seed in range(given.seed, given.seed + seeds):
        inputs = on_sphere(n, d, seed)
        problem = fit(inputs, noisy_linear(inputs, seed), RATIO * n * d, seed)
        theta = _disturbed(problem.theta, what, level, seed)
        noise = float((theta - problem.theta).norm() / problem.theta.norm())
        settings = ReconstructionSettings(tolerance=max(_LEAST_TOLERANCE, 1.5 * noise), rows_per_unknown=RATIO)
        one = mf.reconstruct(problem.model, theta, n, settings, seed)
        found.append((one, compare(inputs, one.inputs)))
        noises.append(noise)
    row = {
        "what": what if what != "noise" else f"noise {level:g}",
        "noise": statistics.fmean(noises),
        "recovered": statistics.fmean(compared.recovered / n for _, compared in found),
        "rho": statistics.fmean(compared.error for _, compared in found),
        "rho_worst": max(compared.error for _, compared in found),
        "residual": statistics.fmean(one.residual for one, _ in found),
        "explained": sum(one.status == mf.results.Status.CONVERGED for one, _ in found),
        "passes": statistics.median(one.passes for one, _ in found),
    }
    return Outcome([row])


def _disturbed(theta: Tensor, what: str, level: float, seed: int) -> Tensor:
    if what != "noise":
        return theta.to(_KINDS[what]).double()
    generator = torch.Generator().manual_seed(5_000_015 + seed)
    noise = torch.randn(theta.shape, generator=generator, dtype=torch.float64)
    disturbed: Tensor = theta + level * theta.norm() / noise.norm() * noise
    return disturbed


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    rows = [row for outcome in outcomes.values() for row in outcome.rows if row["noise"]]
    figure = new_figure(6.5, 4)
    axes = figure.subplots()
    for kind, marker, colour in (("noise", "o", COLOURS[0]), ("float", "D", COLOURS[1])):
        chosen = sorted((row for row in rows if kind in row["what"]), key=lambda row: row["noise"])
        look: Any = {"marker": marker, "color": colour, "linestyle": "-" if kind == "noise" else ""}
        name = "noise" if kind == "noise" else "rounded"
        axes.plot([row["noise"] for row in chosen], [row["rho"] for row in chosen], label=name, **look)
        if kind == "float":
            for row in chosen:
                axes.annotate(row["what"], (row["noise"], row["rho"]), (6, -10), textcoords="offset points", fontsize=9)
    axes.axhline(0.01, color=INK, linestyle=":", linewidth=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("‖noise on θ‖/‖θ‖")
    axes.set_ylabel("ρ (dotted: counts as back below)")
    axes.grid(True)
    axes.legend()
    return {"noise": figure}


EXPERIMENT = Experiment(
    name="reconstruction-noise",
    what="how much noise or rounding on the parameters reconstructions bear",
    reproduces="nothing published: what an auditor with rounded weights must know",
    differs=(
        f"n = {N}, d = {D}, p = {RATIO} d·n, ReLU; the tolerance is 1.5 times the noise, which is taken as known.",
    ),
    scales={
        "small": Scale(
            {
                **{f"noise-{level:g}": {"what": "noise", "level": level} for level in _LEVELS},
                **{kind: {"what": kind, "level": 0.0} for kind in _KINDS},
            },
            minutes=5,
        )
    },
    measure=_measure,
    columns=_COLUMNS,
    draw=_draw,
)
