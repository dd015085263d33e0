"""Figure 1: the iterations of a recovery, beside those of the autoencoder alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from memrecon_fast.degradation import MASKS, erase, make_mask
from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Pictures, Row, Scale, Table
from memrecon_fast.experiments.figures import new_figure, show_tiles
from memrecon_fast.experiments.recovery.nets import Net, check_shape, fit
from memrecon_fast.experiments.recovery.published import OWN_MASKS, OWN_WIDTHS
from memrecon_fast.metrics import APPROXIMATE_MSE, mse, psnr
from memrecon_fast.tracing import Trace, trace, trace_iterate

LEVEL = 1e-8
_STEPS = (0, 1, 2, 3, 5, 8, 13, 21, 34)
"""Of these iterations pictures are kept, and of the last one."""
_TOLD = (1, 3, 10)
_LOOKED_AT = 16
_ONE = "Of each mask the first member is shown that the paper's method recovers, of 16; or the first, if none."


def _measure(given: Given, net: Net) -> Outcome:
    assert given.members is not None
    members = net.images(given.members)
    model = fit(given, net, members, (LEVEL,))[-1].load(given.device)
    looked_at, settings = members[:_LOOKED_AT].to(given.device), net.settings(given.seed, "paper")
    rows: list[Row] = []
    arrays: dict[str, NDArray[Any]] = {}
    for name in MASKS:
        mask = make_mask(name, members.shape[1:], given.seed)
        degraded = erase(looked_at, mask.to(given.device))
        blind, alone = trace(model, degraded, settings=settings), trace_iterate(model, degraded)
        back = mse(blind.images[-1], looked_at.cpu()) < APPROXIMATE_MSE
        shown = int(back.int().argmax()) if back.any() else 0
        original = looked_at[shown].cpu()
        for method, found in (("paper", blind), ("iterate", alone)):
            about = {"mask": name, "image": shown, "method": method}
            rows += [about | row for row in _rows(found, shown, original, mask)]
            arrays[f"{name} {method}"] = _at_steps(found.images, found, shown, degraded[shown].cpu()).numpy()
        first = settings.draw_initial_mask(shown, original.shape)
        arrays[f"{name} masks"] = _at_steps(blind.masks.float(), blind, shown, first.float()).numpy()
        arrays[f"{name} mask"] = mask.float().numpy()
        arrays[f"{name} original"] = original.numpy()
    return Outcome(rows, arrays)


def _rows(found: Trace, image: int, original: Tensor, mask: Tensor) -> list[Row]:
    """One for each iteration of an image: what it is like, and how much of the mask is wrong."""
    entries = int(found.iterations[image])
    estimates = found.images[:entries, image]
    errors = mse(estimates, original.expand_as(estimates))
    wrong = (found.masks[:entries, image] != mask).flatten(1).float().mean(dim=1)
    return [
        {
            "iteration": int(found.outer_iterations[t, image]),
            "mse": float(errors[t]),
            "psnr": float(psnr(estimates[t : t + 1], original[None])),
            "wrong_mask_share": float(wrong[t]),
            "residual": float(found.residual[t, image]),
            "score": float(found.score[t, image]),
        }
        for t in range(entries)
    ]


def _at_steps(values: Tensor, found: Trace, image: int, first: Tensor) -> Tensor:
    """(len(_STEPS) + 1, C, H, W): at the start, after the iterations of `_STEPS` or the last one before them, and the
    last one."""
    entries = int(found.iterations[image])
    numbers = found.outer_iterations[:entries, image]
    chosen = [int((numbers <= step).sum()) - 1 for step in _STEPS[1:]] + [entries - 1]
    return torch.stack([first, *(values[max(0, t), image] for t in chosen)])


def iterations_figure(outcome: Outcome, names: Mapping[str, str], last: str) -> Figure:
    """A row for each mask and array; names: the label of each array. last: the array that is shown at the right."""
    figure = new_figure(1.6 + 0.95 * (len(_STEPS) + 2), 0.4 + 1.05 * len(names) * len(MASKS))
    panels = figure.subplots(len(MASKS), 1, squeeze=False)[:, 0]
    for name, axes in zip(MASKS, panels, strict=True):
        end = outcome.arrays[f"{name} {last}"][None]
        pictures = np.stack([np.concatenate([outcome.arrays[f"{name} {array}"], end]) for array in names])
        show_tiles(axes, pictures, [f"{name}: {label}" for label in names.values()])
    side = outcome.arrays[f"{MASKS[0]} original"].shape[-1] + 1
    labels = [*map(str, _STEPS), "last", last]
    panels[0].set_xticks([side * column + side / 2 for column in range(len(labels))], labels)
    panels[0].xaxis.set_ticks_position("top")
    return figure


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    labels = {"paper": "blind", "iterate": "autoencoder alone"}
    return {f"fig1-{cell}": iterations_figure(one, labels, "original") for cell, one in outcomes.items()}


def _tables(outcomes: Mapping[str, Outcome]) -> dict[str, Table]:
    lines: list[list[str | float | None]] = []
    every = [row for outcome in outcomes.values() for row in outcome.rows]
    for mask, method in dict.fromkeys((row["mask"], row["method"]) for row in every):
        rows = [row for row in every if (row["mask"], row["method"]) == (mask, method)]
        psnrs = [f"{_after(rows, step)['psnr']:.1f}" for step in _TOLD]
        back = next((str(row["iteration"]) for row in rows if row["mse"] < APPROXIMATE_MSE), "never")
        wrong = f"{100 * rows[-1]['wrong_mask_share']:.1f}" if method == "paper" else None
        last = rows[-1]
        lines.append([mask, method, str(last["iteration"]), back, *psnrs, f"{last['psnr']:.1f}", wrong])
    header = [
        "mask",
        "method",
        "iterations",
        "back after",
        *(f"dB at {step}" for step in _TOLD),
        "at end",
        "mask wrong, %",
    ]
    caption = "One image for each mask. Iterations: outer ones of the paper's method, or applications of f."
    return {"fig1": Table(caption, header, lines)}


def _after(rows: Sequence[Row], iteration: int) -> Row:
    """The last one that is not after this iteration, or the first."""
    before = [row for row in rows if row["iteration"] <= iteration]
    return before[-1] if before else rows[0]


def _cells(training: Mapping[str, Any]) -> dict[str, dict[str, Net]]:
    return {"fc-10": {"net": Net("FC 10, LeakyReLU", "fc-10", "leaky_relu", 0.5, training=training)}}


EXPERIMENT = Experiment(
    name="fig1",
    what="the iterations of a recovery, beside those of the autoencoder alone",
    reproduces="Figure 1",
    differs=(
        _ONE,
        "Which net the figure shows is not said: here it is a fully connected one of 10 layers.",
        OWN_MASKS,
        OWN_WIDTHS,
    ),
    scales={
        "small": Scale(_cells({"max_steps": 2000}), minutes=3),
        "paper": Scale(_cells({}), minutes=300, pictures=Pictures(members=600, controls=0, size=64)),
    },
    measure=_measure,
    columns=("mask", "method", "iteration", "mse", "psnr", "wrong_mask_share", "residual", "score"),
    draw=_draw,
    tables=_tables,
    pictures=Pictures(members=50, controls=0, size=32),
    on_device=True,
    check_shape=check_shape,
)
