"""How much noise on the degraded images is too much: the rate of recovery against its standard deviation.

What the solvers come to carries a part of the noise. Applied to it over and over, the autoencoder takes that away where
the estimate is near enough to a training image: that is measured beside them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor, nn

from memrecon_fast.audit.store.records import MAX_PSNR
from memrecon_fast.degradation import erase, make_mask
from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Row, Scale, Table
from memrecon_fast.experiments.figures import CONTROL_COLOUR, new_figure
from memrecon_fast.experiments.recovery.audits import OURS, Task, audits_of, noisy_settings, rates_of
from memrecon_fast.experiments.recovery.nets import Net, check_shape, fit
from memrecon_fast.experiments.recovery.published import OURS_BESIDE, OWN_MASKS, percent
from memrecon_fast.experiments.recovery.rates import METHODS
from memrecon_fast.experiments.recovery.small import ITERATED, MASKS, NOT_IN_PAPER, PICTURES, SMALL, small_net
from memrecon_fast.metrics import ACCURATE_MSE, APPROXIMATE_MSE, mse, psnr, recovery_rate
from memrecon_fast.recovery import iterate, recover

SIGMAS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.07, 0.1, 0.2, 0.3)
LEVEL = 1e-7
_METHODS = (OURS, "paper", "iterate")
_GAMMA = 0.1  # as published for noisy images


def _measure(given: Given, net: Net, sigmas: Sequence[float], masks: Sequence[str]) -> Outcome:
    members, controls = (net.images(pictures) for pictures in given.images())
    trained = fit(given, net, members, (LEVEL,))[-1]
    model = trained.load(given.device)
    rows: list[Row] = []
    for sigma in sigmas:
        apart = dataclasses.replace(given, kept=given.kept / f"noise-{sigma:g}")
        task = Task((LEVEL,), masks, _METHODS, noise_std=sigma, controls=(OURS,))
        found = [row for audit in audits_of(apart, net, trained, members, controls, task) for row in rates_of(audit)]
        for method, split in ((OURS, "members"), (OURS, "controls"), ("paper", "members")):
            for mask in masks:
                images = members if split == "members" else controls
                rates = _iterated(given, net, model, images, (method, mask, sigma))
                found.append({"split": split, "mask": mask, "method": f"{method}{ITERATED}", **rates})
        rows += [{"loss": trained.loss, "sigma": sigma, **row} for row in found]
    return Outcome(rows)


def _iterated(given: Given, net: Net, model: nn.Module, images: Tensor, how: tuple[str, str, float]) -> Row:
    """The rates of the estimates after iterations of the autoencoder alone. how: method, mask and noise."""
    method, mask, sigma = how
    pixels = images[0].numel()
    settings = noisy_settings(net, given.seed, method, sigma, pixels)
    degraded = erase(images, make_mask(mask, images.shape[1:], given.seed), sigma, given.seed).to(given.device)
    blind = recover(model, degraded, settings=settings)
    ended = iterate(model, blind.images.nan_to_num().clip(0, 1))
    errors = mse(ended.images.cpu(), images)
    return {
        "images": len(images),
        "accurate": recovery_rate(errors, ACCURATE_MSE),
        "approximate": recovery_rate(errors, APPROXIMATE_MSE),
        "psnr": float(psnr(ended.images.cpu().nan_to_num().clip(0, 1), images).clip(max=MAX_PSNR).mean()),
        "evaluations": float((blind.evaluations + ended.evaluations).double().mean()),
    }


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
    return {"noise": _table(outcomes, "approximate", "5e-4"), "noise-accurate": _table(outcomes, "accurate", "1e-7")}


def _table(outcomes: Mapping[str, Outcome], what: str, threshold: str) -> Table:
    lines: list[list[str | float | None]] = []
    curves = _curves(outcomes, what)
    sigmas = next(iter(curves.values()))[0]
    for (split, mask, method), (_, rates) in curves.items():
        most = largest_tolerable(sigmas, rates) if split == "members" else None
        told = "–" if most is None else f"> {sigmas[-1]:g}" if np.isinf(most) else f"{most:.3f}"
        lines.append([split, mask, method, *map(percent, rates), told])
    caption = (
        f"{what.capitalize()} recovery (MSE < {threshold}), in %, by the standard deviation σ of the noise on the "
        "degraded images. Then f: after iterations of the autoencoder from the estimate. Largest σ: where the rate is "
        "half of that without noise, interpolated."
    )
    return Table(caption, ["split", "mask", "method", *(f"σ={sigma:g}" for sigma in sigmas), "largest σ"], lines)


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    figure = new_figure(10.6, 6)
    masks = list(dict.fromkeys(mask for _, mask, _ in _curves(outcomes, "approximate")))
    panels = figure.subplots(2, len(masks), sharey=True, sharex=True, squeeze=False)
    for what, line in zip(("approximate", "accurate"), panels, strict=True):
        curves = _curves(outcomes, what)
        for mask, axes in zip(masks, line, strict=True):
            for (split, ours, method), (sigmas, rates) in curves.items():
                if ours == mask:
                    axes.plot(sigmas, [100 * rate for rate in rates], **_look(split, method))
            axes.grid(True)
            if what == "approximate":
                axes.set_title(mask)
        line[0].set_ylabel(f"% {what}")
    for axes in panels[-1]:
        axes.set_xscale("symlog", linthresh=SIGMAS[1])
        axes.set_xticks(sigmas, [f"{sigma:g}" for sigma in sigmas], rotation=90, fontsize=9)
        axes.minorticks_off()
        axes.set_xlabel("σ of the noise")
    panels[0][0].set_ylim(-4, 104)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside upper left", ncols=3, fontsize=9)
    return {"noise": figure}


def _look(split: str, method: str) -> dict[str, Any]:
    first = method.removesuffix(ITERATED)
    colour, label = METHODS[first]
    if split == "controls":
        return {"color": CONTROL_COLOUR, "linestyle": ":", "label": "" if first == method else "images never seen"}
    line = "-" if first == method else "--"
    more = "" if first == method else ITERATED
    return {"color": colour, "linestyle": line, "marker": "o", "markersize": 3.5, "label": f"{label}{more}"}


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
    scales={"small": Scale({"fc-10": {"net": small_net(gamma=_GAMMA), "sigmas": SIGMAS, "masks": MASKS}}, minutes=3)},
    measure=_measure,
    columns=("sigma", "split", "mask", "method", "accurate", "approximate", "psnr", "evaluations"),
    draw=_draw,
    tables=_tables,
    pictures=PICTURES,
    on_device=True,
    check_shape=check_shape,
)
