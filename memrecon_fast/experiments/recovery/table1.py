"""Table 1: approximate recovery from a fully connected net of 20 layers that knows many images."""

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
    "FC 20 × 1024, LeakyReLU",
    "fc-20",
    "leaky_relu",
    0.1,
    width=1024,
    training={"batch_size": 100, "max_steps": 3000},
)
_PUBLISHED = {"iterate": "7.64, 0.78, 1.92", "paper": "54.2, 45.2, 56.9", "known-mask": "80.6, 75.9, 84.2"}


def _tables(outcomes: Mapping[str, Outcome]) -> dict[str, Table]:
    caption = f"Approximate recovery (MSE < 5e-4) at a train loss of {LEVEL:.0e}, in % of the members."
    return tables_of("table1", caption, outcomes, _PUBLISHED)


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    return {"table1": thresholds_figure(outcomes)}


EXPERIMENT = Experiment(
    name="table1",
    what="how much comes back approximately of a fully connected net of 20 layers that knows many images",
    reproduces="Table 1",
    differs=(
        OWN_MASKS,
        THREE_MASKS,
        OWN_WIDTHS,
        "There the net knows 25,000 images of Tiny ImageNet; small: 1,000.",
        OURS_BESIDE,
    ),
    scales={
        "small": Scale({"fc-20": {"net": _NET, "task": TASK}}, minutes=60),
        "paper": Scale(
            {"fc-20": {"net": _NET, "task": TASK}},
            minutes=3000,
            pictures=Pictures(members=25000, controls=600, size=64),
        ),
    },
    measure=measure,
    columns=("loss", "split", "mask", "method", "accurate", "approximate", "psnr", "evaluations"),
    draw=_draw,
    tables=_tables,
    pictures=Pictures(members=1000, controls=100, size=64),
    on_device=True,
    check_shape=check_shape,
)
