"""Figure G.1: recovery from degraded images that also carry noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from matplotlib.figure import Figure

from memrecon_fast.degradation import erase, make_mask
from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Pictures, Scale, Table
from memrecon_fast.experiments.figures import tile_panels
from memrecon_fast.experiments.recovery.audits import OURS, Task, measure, noisy_settings
from memrecon_fast.experiments.recovery.nets import Net, check_shape, fit
from memrecon_fast.experiments.recovery.published import OURS_BESIDE, OWN_MASKS, OWN_WIDTHS
from memrecon_fast.experiments.recovery.rates import rates_table
from memrecon_fast.methods import ITERATE_MAX_ITERATIONS, ITERATE_TOLERANCE
from memrecon_fast.recovery import iterate, recover

NOISE = 0.02
_MASK = "center"
_TASK = Task((1e-8,), (_MASK,), (OURS, "paper", "iterate"), noise_std=NOISE, controls=(OURS,))
_LABELS = ("original", "degraded", "autoencoder alone", "the paper's method", "accelerated")
_SHOWN = 4


def _measure(given: Given, net: Net, task: Task) -> Outcome:
    outcome = measure(given, net, task)
    members = net.images(given.images()[0])[:_SHOWN]
    last = fit(given, net, net.images(given.images()[0]), task.levels)[-1]  # it was trained: this reads the file
    model = last.load(given.device)
    degraded = erase(members, make_mask(_MASK, members.shape[1:], given.seed), NOISE, given.seed).to(given.device)
    pixels = members[0].numel()
    blind = [
        recover(model, degraded, settings=noisy_settings(net, given.seed, solver, NOISE, pixels))
        for solver in ("paper", OURS)
    ]
    alone = iterate(model, degraded, max_iterations=ITERATE_MAX_ITERATIONS, tolerance=ITERATE_TOLERANCE)
    made = [one.images.cpu() for one in (alone, *blind)]
    pictures = torch.stack([members, degraded.cpu(), *made])
    return Outcome(outcome.rows, {**outcome.arrays, "pictures": pictures.numpy()})


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    titles = [f"{outcome.rows[0]['net']}, loss {outcome.rows[0]['loss']:.0e}" for outcome in outcomes.values()]
    pictures = [outcome.arrays["pictures"] for outcome in outcomes.values()]
    return {"figG1": tile_panels(pictures, titles, _LABELS)}


def _tables(outcomes: Mapping[str, Outcome]) -> dict[str, Table]:
    said = f"noise of standard deviation {NOISE}, the mask {_MASK}"
    return {
        "figG1": rates_table(outcomes, "approximate", f"Approximate recovery, in % of the members; {said}."),
        "figG1-psnr": rates_table(outcomes, "psnr", f"Mean PSNR in dB of the members; {said}."),
    }


def _net(depth: int, **training: Any) -> Net:
    return Net(f"FC {depth}, LeakyReLU", f"fc-{depth}", "leaky_relu", 0.1, training=training)


EXPERIMENT = Experiment(
    name="figG1",
    what="recovery from degraded images that also carry noise",
    reproduces="Figure G.1",
    differs=(
        f"The mask is {_MASK}, in place of its mask 1. γ = 0.1 and a noise of {NOISE}, as there.",
        OWN_MASKS,
        OWN_WIDTHS,
        "There the nets know 600 images of Tiny ImageNet.",
        OURS_BESIDE,
    ),
    scales={
        "small": Scale(
            {
                "fc-10": {"net": _net(10, max_steps=2000), "task": _TASK},
                "fc-20": {"net": _net(20, max_steps=3000), "task": _TASK},
            },
            minutes=10,
        ),
        "paper": Scale(
            {"fc-10": {"net": _net(10), "task": _TASK}, "fc-20": {"net": _net(20), "task": _TASK}},
            minutes=600,
            pictures=Pictures(members=600, controls=600, size=64),
        ),
    },
    measure=_measure,
    columns=("net", "loss", "split", "mask", "method", "accurate", "approximate", "psnr", "evaluations"),
    draw=_draw,
    tables=_tables,
    pictures=Pictures(members=50, controls=50, size=32),
    on_device=True,
    check_shape=check_shape,
)
