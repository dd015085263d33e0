"""Near-copies of training images: do they come back as what they are, or as the training image?

An image that was not trained on and comes back as itself would be taken for one that was. So the net is given degraded
near-copies of its training images. They are judged by the erased entries alone: what is kept was shown, and tells
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from memrecon_fast.degradation import erase, make_mask
from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Row, Scale, Table
from memrecon_fast.experiments.figures import COLOURS, CONTROL_COLOUR, new_figure, show_tiles
from memrecon_fast.experiments.recovery.audits import OURS
from memrecon_fast.experiments.recovery.near_copies import NEAR_COPIES
from memrecon_fast.experiments.recovery.nets import Net, check_shape, fit
from memrecon_fast.experiments.recovery.published import OURS_BESIDE, OWN_MASKS
from memrecon_fast.experiments.recovery.small import MASKS, NOT_IN_PAPER, PICTURES, SMALL, small_net
from memrecon_fast.metrics import ACCURATE_MSE, APPROXIMATE_MSE, mse
from memrecon_fast.recovery import recover

LEVEL = 1e-7
METHODS = (OURS, "paper")
OTHERS = "images never seen"
ENDS = {"itself": COLOURS[1], "the member": COLOURS[0], "another member": COLOURS[4], "neither": CONTROL_COLOUR}
"""What a near-copy may come back as, with the colour of each. "the member": of a mean of two, the nearer of them."""
_PASSES = ("passes", "accurately")
_SHOWN = 3


def _measure(given: Given, net: Net, copies: Sequence[str], masks: Sequence[str]) -> Outcome:
    members, controls = (net.images(pictures) for pictures in given.images())
    trained = fit(given, net, members, (LEVEL,))[-1]
    model = trained.load(given.device)
    shown_to_it = {name: NEAR_COPIES[name](members, given.seed) for name in copies} | {OTHERS: controls}
    rows: list[Row] = []
    arrays = {}
    for name, images in shown_to_it.items():
        for mask_name in masks:
            mask = make_mask(mask_name, members.shape[1:], given.seed)
            degraded = erase(images, mask)
            for method in METHODS:
                estimates = _recovered(given, net, model, degraded, method)
                about = {"loss": trained.loss, "copy": name, "mask": mask_name, "method": method}
                rows.append(about | _counted(estimates, images, members, mask, name))
                if (mask_name, method) == (masks[0], OURS):
                    shown = [images, degraded, estimates, members]
                    arrays[name] = torch.stack([one[:_SHOWN] for one in shown]).numpy()
    return Outcome(rows, arrays)


def _recovered(given: Given, net: Net, model: nn.Module, degraded: Tensor, method: str) -> Tensor:
    settings = net.settings(given.seed, method)
    return recover(model, degraded.to(given.device), settings=settings).images.cpu()


def _counted(estimates: Tensor, images: Tensor, members: Tensor, mask: Tensor, name: str) -> Row:
    """How many come back as what, by the erased entries; "passes", "accurately": how many an audit of these images
    would count as approximately and as accurately recovered."""
    erased = ~mask
    found, own, known = (one[:, erased] for one in (estimates, images, members))
    from_own = mse(found, own)
    from_members = torch.stack([mse(found, known[i : i + 1].expand_as(found)) for i in range(len(known))], dim=1)
    made_of = torch.zeros(len(images), len(members), dtype=torch.bool)
    if name != OTHERS:
        made_of |= torch.eye(len(members), dtype=torch.bool)
    if name == "mean of two":
        made_of |= torch.eye(len(members), dtype=torch.bool).roll(1, 1)
    nearest = from_members.masked_fill(~made_of, torch.inf).amin(dim=1)
    other = from_members.masked_fill(made_of, torch.inf).amin(dim=1)
    is_itself = (from_own < APPROXIMATE_MSE) & (from_own < nearest)
    is_member = (nearest < APPROXIMATE_MSE) & ~is_itself
    is_other = (other < APPROXIMATE_MSE) & ~is_itself & ~is_member
    counts = [int(one.sum()) for one in (is_itself, is_member, is_other)]
    apart = float(mse(images, members).median()) if name != OTHERS else None
    ends = dict(zip(ENDS, [*counts, len(images) - sum(counts)], strict=True))
    whole = mse(estimates, images)
    passes = {"passes": int((whole < APPROXIMATE_MSE).sum()), "accurately": int((whole < ACCURATE_MSE).sum())}
    return {"images": len(images), "apart": apart, **ends, **passes}


def _summed(outcomes: Mapping[str, Outcome]) -> list[Row]:
    """One for each kind of copy and method: the counts under all masks."""
    found: dict[tuple[str, str], Row] = {}
    for outcome in outcomes.values():
        for row in outcome.rows:
            total = found.setdefault((row["copy"], row["method"]), {"apart": row["apart"]})
            for name in ("images", *ENDS, *_PASSES):
                total[name] = total.get(name, 0) + row[name]
    return [{"copy": copy, "method": method, **total} for (copy, method), total in found.items()]


def _tables(outcomes: Mapping[str, Outcome]) -> dict[str, Table]:
    lines: list[list[str | float | None]] = [
        [
            row["copy"],
            None if row["apart"] is None else f"{row['apart']:.1e}",
            row["method"],
            *(f"{100 * row[name] / row['images']:.3g}" for name in (*ENDS, *_PASSES)),
        ]
        for row in _summed(outcomes)
    ]
    caption = (
        "What degraded near-copies of training images come back as, in %, over all masks: by the erased entries (MSE < "
        f"{APPROXIMATE_MSE:g}, the nearer of copy and member). MSE: median, of a copy from its member. Passes: those "
        "that an audit of the copies would count as recovered, approximately and accurately."
    )
    return {"near-duplicates": Table(caption, ["copy", "MSE", "method", *ENDS, *_PASSES], lines)}


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    rows = _summed(outcomes)
    figure = new_figure(11, 4.2)
    *panels, shown = figure.subplots(1, len(METHODS) + 1, width_ratios=[1] * len(METHODS) + [1.5])
    copies = list(dict.fromkeys(row["copy"] for row in rows))
    for method, axes in zip(METHODS, panels, strict=True):
        ours = [row for row in rows if row["method"] == method]
        before = np.zeros(len(ours))
        for end, colour in ENDS.items():
            shares = np.array([100 * row[end] / row["images"] for row in ours])
            axes.barh(range(len(ours)), shares, left=before, color=colour, label=end)
            before += shares
        axes.set_yticks(range(len(copies)), copies if method == METHODS[0] else [])
        axes.invert_yaxis()
        axes.set_title("the paper's method" if method == "paper" else method)
        axes.set_xlabel("% of degraded copies")
    (outcome,) = outcomes.values()
    pictures = np.stack([np.concatenate(outcome.arrays[name].swapaxes(0, 1)) for name in copies])
    show_tiles(shown, pictures)
    shown.set_title(f"{_SHOWN} of each: copy, degraded, estimate, member", fontsize=9)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=4, fontsize=9)
    return {"near-duplicates": figure}


def _cells(net: Net) -> dict[str, dict[str, Any]]:
    return {"fc-10": {"net": net, "copies": tuple(NEAR_COPIES), "masks": MASKS}}


EXPERIMENT = Experiment(
    name="near-duplicates",
    what="whether degraded near-copies of training images come back as themselves, or as the training images",
    reproduces="nothing of the paper; a question to it",
    differs=(
        NOT_IN_PAPER,
        SMALL,
        OWN_MASKS,
        OURS_BESIDE,
        "Where a copy differs from its member by less than the threshold, it is taken for the nearer of the two.",
    ),
    scales={"small": Scale(_cells(small_net()), minutes=2)},
    measure=_measure,
    columns=("copy", "apart", "mask", "method", "images", *ENDS, *_PASSES),
    draw=_draw,
    tables=_tables,
    pictures=PICTURES,
    on_device=True,
    check_shape=check_shape,
)
