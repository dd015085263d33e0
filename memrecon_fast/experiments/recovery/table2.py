"""Table 2: approximate recovery from a U-Net that knows many images."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from memrecon_fast.experiments.experiment import Experiment, Outcome, Pictures, Scale, Table
from memrecon_fast.experiments.recovery.audits import measure
from memrecon_fast.experiments.recovery.larger import LEVEL, TASK, THREE_MASKS, tables_of
from memrecon_fast.experiments.recovery.nets import Net, check_shape
from memrecon_fast.experiments.recovery.published import OURS_BESIDE, OWN_MASKS, OWN_WIDTHS
from memrecon_fast.experiments.recovery.rates import thresholds_figure

_NET = Net(
    "U-Net, Softplus",
    "unet",
    "softplus",
    1.0,
    zeros=True,
    max_outer_iterations=20,
    training={"max_steps": 1000},
)
_PUBLISHED = {"iterate": "0.6, 10.2, 1.2", "paper": "50.3, 75.9, 22.9", "known-mask": "59.3, 86.2, 28.8"}


def _tables(outcomes: Mapping[str, Outcome]) -> dict[str, Table]:
    caption = f"Approximate recovery (MSE < 5e-4) at a train loss of {LEVEL:.0e}, in % of the members."
    return tables_of("table2", caption, outcomes, _PUBLISHED)


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    return {"table2": thresholds_figure(outcomes)}


EXPERIMENT = Experiment(
    name="table2",
    what="how much comes back approximately of a U-Net that knows many images",
    reproduces="Table 2",
    differs=(
        OWN_MASKS,
        THREE_MASKS,
        OWN_WIDTHS,
        "There the net knows 1,000 images of CIFAR-10; small: 200.",
        OURS_BESIDE,
    ),
    scales={
        "small": Scale({"unet": {"net": _NET, "task": TASK}}, minutes=60),
        "paper": Scale(
            {"unet": {"net": _NET, "task": TASK}},
            minutes=3000,
            pictures=Pictures(members=1000, controls=600, size=32),
        ),
    },
    measure=measure,
    columns=("loss", "split", "mask", "method", "accurate", "approximate", "psnr", "evaluations"),
    draw=_draw,
    tables=_tables,
    pictures=Pictures(members=200, controls=100, size=32),
    on_device=True,
    check_shape=check_shape,
)
