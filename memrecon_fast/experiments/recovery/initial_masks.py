"""The first estimate of the mask: how much rests on it?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from memrecon_fast.degradation import MASKS, erase, make_mask
from memrecon_fast.engine.inflight import InFlight
from memrecon_fast.engine.samples import Sample
from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Row, Scale, Table
from memrecon_fast.experiments.figures import COLOURS, CONTROL_COLOUR, new_figure
from memrecon_fast.experiments.recovery.audits import OURS
from memrecon_fast.experiments.recovery.nets import Net, check_shape, fit
from memrecon_fast.experiments.recovery.published import OURS_BESIDE, OWN_MASKS, percent
from memrecon_fast.experiments.recovery.small import NOT_IN_PAPER, PICTURES, SMALL, small_net
from memrecon_fast.metrics import ACCURATE_MSE, APPROXIMATE_MSE, mse, recovery_rate
from memrecon_fast.recovery import prepare_recover

LEVEL = 1e-6
METHODS = (OURS, "paper")
_GAMMA = 0.5
_SEEDS = (42, 43, 44)
FIRST: dict[str, dict[str, Any]] = {
    "zeros": {"initial_mask": "zeros"},
    **{f"random, seed {seed}": {"seed": seed} for seed in _SEEDS},
    "random, 4 starts": {"starts": 4},
    "ones": {},
    "the true mask": {},
}
"""The settings of each; of the last two the first mask is given."""
_COLOURS = (COLOURS[1], "#0072B2", "#56A0CE", "#A6CEE6", COLOURS[2], CONTROL_COLOUR, COLOURS[3])


def _measure(given: Given, net: Net, masks: Sequence[str]) -> Outcome:
    members, _ = (net.images(pictures) for pictures in given.images())
    trained = fit(given, net, members, (LEVEL,))[-1]
    model = trained.load(given.device)
    rows: list[Row] = []
    for name in masks:
        mask = make_mask(name, members.shape[1:], given.seed)
        degraded = erase(members, mask)
        given_masks = {"ones": torch.ones_like(mask), "the true mask": mask}
        for method in METHODS:
            for first, more in FIRST.items():
                settings = dataclasses.replace(net.settings(given.seed, method), gamma=_GAMMA, **more)
                prepared = prepare_recover(model, members.shape[1:], settings)
                samples = [Sample(i, one, initial_mask=given_masks.get(first)) for i, one in enumerate(degraded)]
                done = sorted(InFlight(prepared, len(samples)).stream(samples), key=lambda one: one.index)
                errors = mse(torch.stack([one.image for one in done]), members)
                rows.append({
                    "loss": trained.loss,
                    "mask": name,
                    "method": method,
                    "first": first,
                    "images": len(done),
                    "accurate": recovery_rate(errors, ACCURATE_MSE),
                    "approximate": recovery_rate(errors, APPROXIMATE_MSE),
                    "evaluations": float(np.mean([one.evaluations for one in done])),
                })  # fmt: skip
    return Outcome(rows)


def _rates(outcomes: Mapping[str, Outcome], method: str, first: str, what: str) -> list[float]:
    """By mask."""
    rows = [row for outcome in outcomes.values() for row in outcome.rows]
    return [row[what] for row in rows if (row["method"], row["first"]) == (method, first)]


def _masks(outcomes: Mapping[str, Outcome]) -> list[str]:
    return list(dict.fromkeys(row["mask"] for outcome in outcomes.values() for row in outcome.rows))


def _tables(outcomes: Mapping[str, Outcome]) -> dict[str, Table]:
    lines: list[list[str | float | None]] = []
    for method in METHODS:
        for first in FIRST:
            rates = _rates(outcomes, method, first, "approximate")
            accurate = float(np.mean(_rates(outcomes, method, first, "accurate")))
            cost = f"{np.mean(_rates(outcomes, method, first, 'evaluations')):.0f}"
            lines.append([method, first, *map(percent, (*rates, float(np.mean(rates)), accurate)), cost])
    loss = next(iter(outcomes.values())).rows[0]["loss"]
    caption = (
        f"Approximate recovery, in % of the members, by the first estimate of the mask, at a train loss of {loss:.1e}. "
        "Last: the means over the masks, that of accurate recovery, and applications of the autoencoder for an image."
    )
    header = ["method", "first mask", *_masks(outcomes), "mean", "accurate, mean", "applications"]
    return {"initial-masks": Table(caption, header, lines)}


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    masks = _masks(outcomes)
    figure = new_figure(11, 3.4)
    panels = figure.subplots(1, len(METHODS), sharey=True)
    wide = 0.85 / len(FIRST)
    for method, axes in zip(METHODS, panels, strict=True):
        for number, (first, colour) in enumerate(zip(FIRST, _COLOURS, strict=True)):
            places = np.arange(len(masks)) + (number - len(FIRST) / 2 + 0.5) * wide
            rates = [100 * rate for rate in _rates(outcomes, method, first, "approximate")]
            axes.bar(places, rates, wide * 0.9, color=colour, label=first)
        axes.set_xticks(range(len(masks)), masks, fontsize=9)
        axes.set_title("the paper's method" if method == "paper" else method)
        axes.set_ylim(0, 104)
        axes.grid(True, axis="y")
    panels[0].set_ylabel("% approximately recovered")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=len(FIRST), fontsize=8.5)
    return {"initial-masks": figure}


EXPERIMENT = Experiment(
    name="initial-masks",
    what="how much rests on the first estimate of the mask",
    reproduces="nothing of the paper; a question to it",
    differs=(
        NOT_IN_PAPER,
        SMALL,
        OWN_MASKS,
        OURS_BESIDE,
        f'Both solvers have γ = {_GAMMA} alone here, and one first mask, but for "random, 4 starts": there up to four '
        "are tried, until an estimate is recognised by its score.",
    ),
    scales={"small": Scale({"fc-10": {"net": small_net(), "masks": MASKS}}, minutes=2)},
    measure=_measure,
    columns=("mask", "method", "first", "accurate", "approximate", "evaluations"),
    draw=_draw,
    tables=_tables,
    pictures=PICTURES,
    on_device=True,
    check_shape=check_shape,
)
