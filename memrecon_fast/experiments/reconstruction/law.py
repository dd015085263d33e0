"""Figure 3: from how many parameters on do inputs from the sphere come back?"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Row, Scale
from memrecon_fast.experiments.reconstruction.panels import law_figure
from memrecon_fast.experiments.reconstruction.problems import (
    BESIDE,
    fit,
    from_beside,
    noisy_linear,
    on_sphere,
    row_of,
    solve,
    training_error,
)

SEEDS = 5
_FITS = (0.25, 0.5, 1.0, 2.0)
"""p/n: there, only the labels' error is looked at."""
_RATIOS = (0.5, 1.0, 1.25, 1.5, 2.0, 2.5, 4.0, 10.0)
"""p/(d·n)."""
_SMALL = (("relu", 5, 50), ("relu", 20, 100), ("relu", 30, 20), ("relu+tanh", 5, 50))
_COLUMNS = (
    "activation", "n", "d", "p", "p_over_dn", "seeds", "training_error", "whole", "recovered", "rho", "rho_std",
    "rho_beside", "left_beside", "passes", "seconds",
)  # fmt: skip


def _measure(given: Given, activation: str, n: int, d: int, p: int, seeds: int, reconstruct: bool) -> Outcome:
    chosen = range(given.seed, given.seed + seeds)
    problems, solved, beside = [], [], []
    for seed in chosen:
        inputs = on_sphere(n, d, seed)
        problem = fit(inputs, noisy_linear(inputs, seed), p, seed, activation)
        problems.append(problem)
        solved.append(solve(problem, seed) if reconstruct else None)
        if reconstruct:
            beside.append(from_beside(problem, seed))
    row = {
        "activation": activation,
        "n": n,
        "d": d,
        "p": p,
        "p_over_dn": p / (d * n),
        "seeds": seeds,
        **row_of([training_error(problem) for problem in problems], solved),
        "rho_beside": statistics.fmean(error for error, _ in beside) if beside else None,
        "left_beside": max(left for _, left in beside) if beside else None,
    }
    return Outcome([row])


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    panels: dict[str, list[Row]] = {}
    for outcome in outcomes.values():
        for row in outcome.rows:
            panels.setdefault(f"{row['activation']}, n = {row['n']}, d = {row['d']}", []).append(row)
    return {"law": law_figure(panels)}


def _cells(groups: tuple[tuple[str, int, int], ...], seeds: int) -> dict[str, dict[str, Any]]:
    cells: dict[str, dict[str, Any]] = {}
    for activation, n, d in groups:
        sizes = [(round(fit * n), False) for fit in _FITS] + [(round(ratio * d * n), True) for ratio in _RATIOS]
        for p, reconstruct in sorted(sizes):
            cells[f"{activation.replace('+', '-')}-{n}-{d}-{p}"] = {
                "activation": activation,
                "n": n,
                "d": d,
                "p": p,
                "seeds": seeds,
                "reconstruct": reconstruct,
            }
    return cells


EXPERIMENT = Experiment(
    name="reconstruction-law",
    what="from how many parameters on do inputs from the sphere come back",
    reproduces="Figure 3",
    differs=(
        "The solver is this project's, not gradient descent; it refuses to look for inputs with p below 1.2 (n + 1) d, "
        "where others would explain the parameters as well.",
        f"Dashed: started {BESIDE} √d beside the true inputs: whether these can be identified at all.",
        f"{SEEDS} seeds, not 10; which n and d the paper shows is not known, nor the noise of its labels (here 0.1 of "
        "their deviation).",
        "With n > d the signs cannot be told for ReLU: errors are up to a sign.",
    ),
    scales={
        "small": Scale(_cells(_SMALL, SEEDS), minutes=6),
        "paper": Scale(_cells((*_SMALL, ("relu", 50, 100), ("relu+tanh", 20, 100)), SEEDS), minutes=45),
    },
    measure=_measure,
    columns=_COLUMNS,
    draw=_draw,
)
