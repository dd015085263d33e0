"""Figures 1 and 2: labels fitted, photographs back, and their features spanned, against the number of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Pictures, Scale
from memrecon_fast.experiments.figures import COLOURS, INK, new_figure, show_tiles
from memrecon_fast.experiments.reconstruction.problems import (
    fit,
    reduced,
    row_of,
    solve,
    training_error,
    two_classes,
)
from memrecon_fast.reconstruction import Scaling

IMAGES, SIZE, LARGE, SEEDS = 20, 8, 16, 3
_FITS = (0.25, 0.5, 1.0, 2.0, 10.0)
_RATIOS = (1.3, 1.5, 2.0, 2.5, 4.0, 10.0)
_SHOWN = 10
_COLUMNS = ("p", "p_over_dn", "seeds", "training_error", "whole", "recovered", "rho", "rho_std", "outside", "seconds")


def _measure(given: Given, parameters: str, ratio: float, seeds: int, size: int = SIZE) -> Outcome:
    """parameters: whether `ratio` is p/n or p/(d·n)."""
    assert given.members is not None
    pictures = reduced(given.members, size)
    inputs = Scaling().inputs_of(pictures)
    n, d = inputs.shape
    p = max(1, round(ratio * n * (d if parameters == "dn" else 1)))
    chosen = range(given.seed, given.seed + seeds)
    problems = [fit(inputs, two_classes(n, seed), p, seed) for seed in chosen]
    solved = [solve(problem, seed) for problem, seed in zip(problems, chosen, strict=True)]
    errors = [training_error(problem) for problem in problems]
    row = {"n": n, "d": d, "p": p, "p_over_dn": p / (d * n), "seeds": seeds, **row_of(errors, solved)}
    arrays = {"true": pictures[:_SHOWN].numpy()}
    if solved[0] is not None:
        compared = solved[0].compared
        arrays["found"] = Scaling().pictures_like(solved[0].found.inputs[compared.index], pictures)[:_SHOWN].numpy()
    return Outcome([row], arrays)


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    done = sorted(outcomes.values(), key=lambda outcome: outcome.rows[0]["p"])
    found = [outcome for outcome in done if outcome.rows[0]["rho"] is not None]
    return {"law": _law([one.rows[0] for one in done], [one.rows[0] for one in found]), "pictures": _pictures(found)}


def _law(rows: list[dict[str, Any]], found: list[dict[str, Any]]) -> Figure:
    figure = new_figure(8.5, 3.8)
    axes = figure.subplots()
    axes.plot(
        [row["p"] for row in rows], [row["training_error"] for row in rows], color=INK, marker="s", label="labels, MSE"
    )
    p = [row["p"] for row in found]
    look: Any = {"marker": "o", "capsize": 2}
    axes.errorbar(
        p, [row["rho"] for row in found], [row["rho_std"] for row in found], color=COLOURS[0], label="inputs, ρ", **look
    )
    axes.plot(
        p,
        [row["outside"] for row in found],
        color=COLOURS[1],
        marker="D",
        label="features of the true inputs\noutside the span, ‖P⊥φ‖/‖φ‖",
    )
    n, d = rows[0]["n"], rows[0]["d"]
    for place, name in ((n, "p = n"), (d * n, "p = d·n")):
        axes.axvline(place, color=INK, linestyle=":", linewidth=1)
        axes.annotate(name, (place, 1.45), (4, 0), textcoords="offset points", va="top")
    axes.set_xscale("log")
    axes.set_ylim(-0.05, 1.5)
    axes.set_xlabel(f"parameters p (n = {n}, d = {d})")
    axes.set_ylabel("error")
    axes.grid(True)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
    return figure


def _pictures(found: list[Outcome]) -> Figure:
    """Training images, and below what came back at each number of parameters, with the signs that it came with."""
    rows = [found[0].arrays["true"], *(one.arrays["found"] for one in found)]
    names = ["training images", *(f"p = {one.rows[0]['p_over_dn']:g} d·n" for one in found)]
    figure = new_figure(8.5, 0.74 * len(rows) + 0.1)
    show_tiles(figure.subplots(), np.stack(rows), names)
    return figure


def _cells(fits: tuple[float, ...], ratios: tuple[float, ...], seeds: int, size: int) -> dict[str, dict[str, Any]]:
    both = [("n", ratio) for ratio in fits] + [("dn", ratio) for ratio in ratios]
    return {
        f"{ratio:g}{parameters}": {"parameters": parameters, "ratio": ratio, "seeds": seeds, "size": size}
        for parameters, ratio in both
    }


EXPERIMENT = Experiment(
    name="reconstruction-photographs",
    what="labels fitted and photographs got back, against the number of parameters",
    reproduces="Figures 1, 2 and 5",
    differs=(
        f"{IMAGES} pictures of {SIZE}×{SIZE} pixels, at the scale paper of {LARGE}×{LARGE}, not 100 of CIFAR-10 "
        "with 32×32: at that size V has 38 GB.",
        "Each picture is less its own mean and over its own standard deviation; labels are ±1 at random.",
        "The solver is this project's, not gradient descent; it refuses p below 1.2 (n + 1) d.",
        f"{SEEDS} seeds, not 4.",
    ),
    scales={
        "small": Scale(_cells(_FITS, _RATIOS, SEEDS, SIZE), minutes=12),
        "paper": Scale(_cells(_FITS, _RATIOS, 1, LARGE), minutes=60),
    },
    measure=_measure,
    columns=_COLUMNS,
    draw=_draw,
    pictures=Pictures(members=IMAGES, controls=0, size=LARGE),
)
