"""Figure 3: rates of accurate recovery by mask, net and train loss."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from matplotlib.figure import Figure

from memrecon_fast.experiments.experiment import Experiment, Outcome, Pictures, Row, Scale, Table
from memrecon_fast.experiments.recovery.audits import Task, measure
from memrecon_fast.experiments.recovery.nets import LEVELS, Net, check_shape
from memrecon_fast.experiments.recovery.published import (
    NO_DDNM,
    OURS_BESIDE,
    OWN_MASKS,
    OWN_WIDTHS,
    Number,
    compare,
    lowest,
)
from memrecon_fast.experiments.recovery.rates import rates_figure, rates_table

UNET = "U-Net"
_TASK = Task(LEVELS, borderline=True)
_FC = {
    "fc-10-leaky_relu": Net("FC 10, LeakyReLU", "fc-10", "leaky_relu", 0.5, training={"max_steps": 2000}),
    "fc-10-prelu": Net("FC 10, PReLU", "fc-10", "prelu", 0.1, training={"max_steps": 3000}),
}
_SMALL = {
    **_FC,
    "unet-prelu": Net(
        f"{UNET}, PReLU",
        "unet",
        "prelu",
        1.0,
        side=16,
        zeros=True,
        max_outer_iterations=20,
        training={"max_steps": 3000},
    ),
}
_PAPER = {
    **{name: Net(net.title, net.architecture, net.activation, net.gamma, width=1024) for name, net in _FC.items()},
    **{
        f"unet-{activation}": Net(f"{UNET}, {name}", "unet", activation, 1.0, zeros=True)
        for activation, name in (("leaky_relu", "LeakyReLU"), ("prelu", "PReLU"), ("softplus", "Softplus"))
    },
}
_METHODS = {"paper": "blind, the paper's method", "iterate": "autoencoder alone", "inpaint": "inpainting (DDNM there)"}
_PUBLISHED = {"paper": "78", "iterate": "4", "inpaint": "0"}


def compared(outcomes: Mapping[str, Outcome]) -> Table:
    """With what the paper's text says of U-Nets at a loss of 1e-8, and of controls."""
    least = lowest(outcomes)

    def row_of(method: str, split: str, row: Row) -> bool:
        is_last = row["loss"] == least[row["net"]]
        return (
            is_last and (row["method"], row["split"]) == (method, split) and (split == "controls" or UNET in row["net"])
        )

    numbers = [
        Number(label, f"U-Net: {_PUBLISHED[method]} (its mask 6)", partial(row_of, method, "members"))
        for method, label in _METHODS.items()
    ]
    numbers += [
        Number(f"controls, {label}", published, partial(row_of, "paper", "controls"), what)
        for what, label, published in (
            ("accurate", "accurately", "0"),
            ("approximate", "approximately", "0; FC, mask 3: 2 of 600"),
        )
    ]
    return compare(outcomes, numbers)


def _tables(outcomes: Mapping[str, Outcome]) -> dict[str, Table]:
    caption = "Accurate recovery (MSE < 1e-7), in % of the members."
    return {"fig3": rates_table(outcomes, "accurate", caption), "fig3-compared": compared(outcomes)}


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    return {"fig3": rates_figure(outcomes, "accurate")}


EXPERIMENT = Experiment(
    name="fig3",
    what="how many training images come back accurately, by mask, net and train loss",
    reproduces="Figure 3",
    differs=(
        OWN_MASKS,
        OWN_WIDTHS,
        "There the fully connected nets know 600 images of Tiny ImageNet, and the U-Nets 50 of SVHN; here all nets "
        "know those that are given. Small: U-Nets know them reduced to 16×16 pixels.",
        NO_DDNM,
        OURS_BESIDE,
    ),
    scales={
        "small": Scale({name: {"net": net, "task": _TASK} for name, net in _SMALL.items()}, minutes=90),
        "paper": Scale(
            {name: {"net": net, "task": _TASK} for name, net in _PAPER.items()},
            minutes=3000,
            pictures=Pictures(members=600, controls=600, size=32),
        ),
    },
    measure=measure,
    columns=("net", "loss", "split", "mask", "method", "accurate", "approximate", "psnr", "evaluations"),
    draw=_draw,
    tables=_tables,
    pictures=Pictures(members=50, controls=50, size=32),
    on_device=True,
    check_shape=check_shape,
)
