"""What becomes of the training images that do not come back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import nnls
from torch import Tensor

from memrecon_fast.degradation import MASKS, erase, make_mask
from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Row, Scale, Table
from memrecon_fast.experiments.figures import COLOURS, CONTROL_COLOUR, new_figure, show_tiles
from memrecon_fast.experiments.recovery.audits import OURS
from memrecon_fast.experiments.recovery.nets import Net, check_shape, fit
from memrecon_fast.experiments.recovery.published import OURS_BESIDE, OWN_MASKS
from memrecon_fast.experiments.recovery.small import ITERATED, NOT_IN_PAPER, PICTURES, SMALL, small_net
from memrecon_fast.metrics import ACCURATE_MSE, APPROXIMATE_MSE, mse
from memrecon_fast.recovery import iterate, recover
from memrecon_fast.results import Recovery, Status

LEVELS = (1e-4, 1e-6)
METHODS = (OURS, "paper")
STANDS_STILL = 1e-5
"""An estimate x with ‖f(x) − x‖²/d below this is a fixed point of the autoencoder."""
ENDS = {
    "accurate": COLOURS[0],
    "approximate": COLOURS[4],
    "another member": COLOURS[5],
    "a mixture of members": COLOURS[1],
    "a fixed point that is no member": COLOURS[3],
    "converged, no fixed point": CONTROL_COLOUR,
    "not converged": "#d9d9d9",
}
"""What may become of a member, the first that holds, with the colour of each."""
BACK = ("accurate", "approximate")
_LABELS = ("original", "degraded", "estimate", "estimate, then f", "nearest member")
_SHOWN = 6
_SUM_WEIGHT = 100.0


def _measure(given: Given, net: Net, levels: Sequence[float], masks: Sequence[str]) -> Outcome:
    members, _ = (net.images(pictures) for pictures in given.images())
    rows: list[Row] = []
    shown: dict[str, list[Tensor]] = {}
    for trained in fit(given, net, members, levels):
        model = trained.load(given.device)
        for name in masks:
            degraded = erase(members, make_mask(name, members.shape[1:], given.seed))
            for method in METHODS:
                settings = dataclasses.replace(net.settings(given.seed, method), restore_known_pixels=False)
                found = recover(model, degraded.to(given.device), settings=settings)
                after = iterate(model, found.images.nan_to_num().clip(0, 1))
                about = {"loss": trained.loss, "mask": name}
                solved = _rows(method, found, members)
                rows += [about | row for row in [*solved, *_rows(f"{method}{ITERATED}", after, members)]]
                for row in solved:
                    i, end = row["image"], row["end"]
                    if row["nearest"] is not None and end not in BACK and len(shown.setdefault(end, [])) < _SHOWN:
                        made = [found.images[i].cpu(), after.images[i].cpu(), members[row["nearest"]]]
                        shown[end].append(torch.stack([members[i], degraded[i], *made]))
    return Outcome(rows, {end: torch.stack(pictures).numpy() for end, pictures in shown.items()})


def _rows(method: str, found: Recovery, members: Tensor) -> list[Row]:
    """One for each member."""
    rows: list[Row] = []
    for i, end in enumerate(ends_of(found, members)):
        errors = mse(found.images[i].cpu().expand_as(members), members)
        nearest = int(errors.argmin()) if errors.isfinite().all() else None  # None: it diverged
        rows.append({"method": method, "image": i, "end": end, "mse": float(errors[i]), "nearest": nearest})
    return rows


def ends_of(found: Recovery, members: Tensor) -> list[str]:
    """What became of each member (n, C, H, W), one of `ENDS`; found: its recovery from a degraded copy."""
    return [_end_of(found, i, members) for i in range(len(members))]


def _end_of(found: Recovery, i: int, members: Tensor) -> str:
    estimate = found.images[i : i + 1].cpu()
    errors = mse(estimate.expand_as(members), members)
    if errors[i] < ACCURATE_MSE:
        return "accurate"
    if errors[i] < APPROXIMATE_MSE:
        return "approximate"
    if errors.min() < APPROXIMATE_MSE:
        return "another member"
    if estimate.isfinite().all() and _from_mixtures(estimate[0], members) < APPROXIMATE_MSE:
        return "a mixture of members"
    if found.fixed_point_mse[i] < STANDS_STILL:
        return "a fixed point that is no member"
    return "converged, no fixed point" if int(found.status[i]) == Status.CONVERGED else "not converged"


def _from_mixtures(estimate: Tensor, members: Tensor) -> float:
    """The mean squared error of the nearest weighted mean of members: weights of at least 0 that add up to 1."""
    columns = members.flatten(1).double().numpy().T
    target = estimate.flatten().double().numpy()
    heavy = np.full((1, columns.shape[1]), _SUM_WEIGHT)  # a row that holds the sum to 1
    weights, _ = nnls(np.concatenate([columns, heavy]), np.append(target, _SUM_WEIGHT))
    return float(np.square(columns @ weights - target).mean())


def _counts(outcomes: Mapping[str, Outcome]) -> dict[tuple[float, str, str], dict[str, int]]:
    """How many members came to each end, by loss, method and mask."""
    found: dict[tuple[float, str, str], dict[str, int]] = {}
    for outcome in outcomes.values():
        for row in outcome.rows:
            counts = found.setdefault((row["loss"], row["method"], row["mask"]), dict.fromkeys(ENDS, 0))
            counts[row["end"]] += 1
    return found


def _tables(outcomes: Mapping[str, Outcome]) -> dict[str, Table]:
    astray: dict[tuple[float, str, str], int] = {}
    for row in (row for outcome in outcomes.values() for row in outcome.rows):
        key = (row["loss"], row["method"], row["mask"])
        astray[key] = astray.get(key, 0) + (row["end"] not in BACK and row["nearest"] not in (row["image"], None))
    lines: list[list[str | float | None]] = [
        [f"{loss:.1e}", method, mask, *counts.values(), astray[loss, method, mask]]
        for (loss, method, mask), counts in _counts(outcomes).items()
    ]
    caption = (
        "What becomes of the members, in numbers of them: accurately or approximately recovered; another member (MSE < "
        "5e-4); a weighted mean of members (MSE < 5e-4); another fixed point of the autoencoder (moved by less than "
        f"{STANDS_STILL:g} in MSE); converged, but no fixed point; not converged. Astray: that did not come back, and "
        "are nearer to another member than to themselves."
    )
    return {"failures": Table(caption, ["train loss", "method", "mask", *ENDS, "astray"], lines)}


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    counts = _counts(outcomes)
    losses = list(dict.fromkeys(loss for loss, *_ in counts))
    masks = list(dict.fromkeys(mask for *_, mask in counts))
    columns = [(loss, method) for loss in losses for method in METHODS]
    (outcome,) = outcomes.values()
    figure = new_figure(3 * len(columns) + 0.8, 8.6)
    halves: Any = figure.subfigures(2, 1, height_ratios=[1.35, 1])
    above, below = halves
    panels = above.subplots(2, len(columns), sharey=True, sharex=True, squeeze=False)
    for suffix, line in zip(("", ITERATED), panels, strict=True):
        for (loss, method), axes in zip(columns, line, strict=True):
            _bars(axes, [counts[loss, f"{method}{suffix}", mask] for mask in masks])
            name = "the paper’s method" if method == "paper" else method
            axes.set_title(f"{name}{suffix}, loss {loss:.0e}", fontsize=10)
    panels[0][0].set_yticks(range(len(masks)), masks)
    panels[0][0].invert_yaxis()  # of all, as they share it
    panels[1][0].set_xlabel("members")
    above.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower left", ncols=4, fontsize=8.5)
    names = [end for end in ENDS if end in outcome.arrays]
    shown = below.subplots(1, max(1, len(names)), squeeze=False)[0]
    for axes, end in zip(shown, names, strict=False):
        pictures = outcome.arrays[end].swapaxes(0, 1)
        show_tiles(axes, pictures, _LABELS if axes is shown[0] else ())
        axes.set_title(end, fontsize=9)
    if not names:
        shown[0].set_axis_off()
        shown[0].set_title("all came back")
    return {"failures": figure}


def _bars(axes: Axes, counts: Sequence[Mapping[str, int]]) -> None:
    """One for each mask."""
    before = np.zeros(len(counts))
    for end, colour in ENDS.items():
        many = np.array([one[end] for one in counts])
        axes.barh(range(len(counts)), many, left=before, color=colour, label=end)
        before += many


def _cells(net: Net) -> dict[str, dict[str, Any]]:
    return {"fc-10": {"net": net, "levels": LEVELS, "masks": MASKS}}


EXPERIMENT = Experiment(
    name="failures",
    what="what becomes of the training images that do not come back",
    reproduces="nothing of the paper; a question to it",
    differs=(
        NOT_IN_PAPER,
        SMALL,
        OWN_MASKS,
        OURS_BESIDE,
        "The paper's method makes at most 200 outer iterations. The kept pixels are not put back into the estimates, "
        "so that they are what the solvers came to.",
    ),
    scales={"small": Scale(_cells(small_net(max_outer_iterations=200)), minutes=2)},
    measure=_measure,
    columns=("loss", "mask", "method", "image", "end", "mse", "nearest"),
    draw=_draw,
    tables=_tables,
    pictures=PICTURES,
    on_device=True,
    check_shape=check_shape,
)
