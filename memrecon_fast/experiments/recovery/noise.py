"""How much noise on the degraded images is too much: the rate of recovery against its standard deviation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Row, Scale, Table
from memrecon_fast.experiments.figures import new_figure
from memrecon_fast.experiments.recovery.audits import OURS, Task, audits_of, rates_of
from memrecon_fast.experiments.recovery.nets import Net, check_shape, fit
from memrecon_fast.experiments.recovery.published import OURS_BESIDE, OWN_MASKS, percent
from memrecon_fast.experiments.recovery.rates import METHODS
from memrecon_fast.experiments.recovery.small import MASKS, NOT_IN_PAPER, PICTURES, SMALL, small_net

SIGMAS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.07, 0.1, 0.2, 0.3)
LEVEL = 1e-7
_METHODS = (OURS, "paper", "iterate")
_GAMMA = 0.1  # as published for noisy images


def _measure(given: Given, net: Net, sigmas: Sequence[float], masks: Sequence[str]) -> Outcome:
    members, controls = (net.images(pictures) for pictures in given.images())
    trained = fit(given, net, members, (LEVEL,))[-1]
    rows: list[Row] = []
    for sigma in sigmas:
        apart = dataclasses.replace(given, kept=given.kept / f"noise-{sigma:g}")
        task = Task((LEVEL,), masks, _METHODS, noise_std=sigma, controls=(OURS,))
        about = {"loss": trained.loss, "sigma": sigma}
        for audit in audits_of(apart, net, trained, members, controls, task):
            rows += [about | row for row in rates_of(audit)]
    return Outcome(rows)


def largest_tolerable(sigmas: Sequence[float], rates: Sequence[float]) -> float | None:
    """The noise at which the rate first falls to half of that without noise, interpolated between the two that were
    measured; infinite where it never does, None where nothing comes back without noise.

    sigmas: ascending, the first 0. rates: of each.
    """
    half = rates[0] / 2
    if half == 0:
        return None
    for before, after in zip(range(len(rates)), range(1, len(rates)), strict=False):
        if rates[after] <= half:
            share = (rates[before] - half) / (rates[before] - rates[after])
            return sigmas[before] + share * (sigmas[after] - sigmas[before])
    return float("inf")


def _curves(outcomes: Mapping[str, Outcome], what: str) -> dict[tuple[str, str, str], tuple[list[float], list[float]]]:
    """Noise and rates, by split, mask and method."""
    found: dict[tuple[str, str, str], tuple[list[float], list[float]]] = {}
    for outcome in outcomes.values():
        for row in outcome.rows:
            sigmas, rates = found.setdefault((row["split"], row["mask"], row["method"]), ([], []))
            sigmas.append(row["sigma"])
            rates.append(row[what])
    return found


def _tables(outcomes: Mapping[str, Outcome]) -> dict[str, Table]:
    lines: list[list[str | float | None]] = []
    curves = _curves(outcomes, "approximate")
    sigmas = next(iter(curves.values()))[0]
    for (split, mask, method), (_, rates) in curves.items():
        most = largest_tolerable(sigmas, rates) if split == "members" else None
        told = "–" if most is None else f"> {sigmas[-1]:g}" if np.isinf(most) else f"{most:.3f}"
        lines.append([split, mask, method, *map(percent, rates), told])
    caption = (
        "Approximate recovery (MSE < 5e-4), in %, by the standard deviation σ of the noise on the degraded images. "
        "Largest: where the rate is half of that without noise, interpolated."
    )
    return {
        "noise": Table(caption, ["split", "mask", "method", *(f"σ={sigma:g}" for sigma in sigmas), "largest σ"], lines)
    }


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    curves = _curves(outcomes, "approximate")
    masks = list(dict.fromkeys(mask for _, mask, _ in curves))
    figure = new_figure(1 + 3.2 * len(masks), 3.4)
    panels = figure.subplots(1, len(masks), sharey=True, squeeze=False)[0]
    for mask, axes in zip(masks, panels, strict=True):
        for (split, ours, method), (sigmas, rates) in curves.items():
            if ours == mask:
                colour, label = METHODS[method]
                seen = {} if split == "members" else {"linestyle": ":", "marker": "", "label": "images never seen"}
                look: Any = {"color": colour, "marker": "o", "markersize": 3.5, "label": label, **seen}
                axes.plot(sigmas, [100 * rate for rate in rates], **look)
        axes.set_xscale("symlog", linthresh=SIGMAS[1])
        axes.set_xticks(sigmas, [f"{sigma:g}" for sigma in sigmas], rotation=60)
        axes.minorticks_off()
        axes.set_xlabel("σ of the noise")
        axes.set_title(mask)
        axes.set_ylim(-4, 104)
        axes.grid(True)
    panels[0].set_ylabel("% approximately recovered")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=4, fontsize=9)
    return {"noise": figure}


EXPERIMENT = Experiment(
    name="noise",
    what="how much comes back of degraded images that carry noise, by its standard deviation",
    reproduces="nothing of the paper, which has one noise in Figure G.1; a question to it",
    differs=(
        NOT_IN_PAPER,
        SMALL,
        OWN_MASKS,
        OURS_BESIDE,
        "The paper's method has γ = 0.1, as published for noisy images. Without noise, the accelerated one puts the "
        "kept pixels back, as it does by default; with noise it does not.",
    ),
    scales={"small": Scale({"fc-10": {"net": small_net(gamma=_GAMMA), "sigmas": SIGMAS, "masks": MASKS}}, minutes=2)},
    measure=_measure,
    columns=("sigma", "split", "mask", "method", "accurate", "approximate", "psnr", "evaluations"),
    draw=_draw,
    tables=_tables,
    pictures=PICTURES,
    on_device=True,
    check_shape=check_shape,
)
