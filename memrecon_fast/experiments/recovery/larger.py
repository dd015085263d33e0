"""What Tables 1 and 2 share: one net that knows many images, at one moderate loss."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from memrecon_fast.experiments.experiment import Experiment, Outcome, Pictures, Row, Scale, Table
from memrecon_fast.experiments.recovery.audits import OURS, Task, measure
from memrecon_fast.experiments.recovery.nets import Net, check_shape
from memrecon_fast.experiments.recovery.published import OURS_BESIDE, OWN_MASKS, OWN_WIDTHS, Number, compare
from memrecon_fast.experiments.recovery.rates import rates_table, thresholds_figure

LEVEL = 1e-4
MASKS = ("center", "half", "random-80")
TASK = Task((LEVEL,), MASKS, (OURS, "paper", "known-mask", "iterate"), controls=(OURS,))
THREE_MASKS = "Three masks, as there, but other ones."
_LABELS = {
    "iterate": "autoencoder alone",
    "paper": "blind, the paper's method",
    "accelerated": "blind, accelerated",
    "known-mask": "mask known",
}


def larger_experiment(
    number: int, net: Net, of: str, there: str, published: Mapping[str, str], pictures: tuple[Pictures, Pictures]
) -> Experiment:
    """Table `number`. of: the net in words; there: what it knows in the paper; pictures: small, and as published."""
    name = f"table{number}"
    cells = {net.architecture: {"net": net, "task": TASK}}
    small, paper = pictures
    return Experiment(
        name=name,
        what=f"how much comes back approximately of {of} that knows many images",
        reproduces=f"Table {number}",
        differs=(
            OWN_MASKS,
            THREE_MASKS,
            OWN_WIDTHS,
            f"There the net knows {there}; small: {small.members:,}.",
            OURS_BESIDE,
        ),
        scales={"small": Scale(cells, minutes=180), "paper": Scale(cells, minutes=3000, pictures=paper)},
        measure=measure,
        columns=("loss", "split", "mask", "method", "accurate", "approximate", "psnr", "evaluations"),
        draw=lambda outcomes: {name: thresholds_figure(outcomes)},
        tables=lambda outcomes: _tables(name, outcomes, published),
        pictures=small,
        on_device=True,
        check_shape=check_shape,
    )


def _tables(name: str, outcomes: Mapping[str, Outcome], published: Mapping[str, str]) -> dict[str, Table]:
    """The rates of members and of controls, and beside them what is published."""
    caption = "Approximate recovery (MSE < 5e-4), in % of the members."
    numbers = [
        Number(label, published.get(method, "–"), partial(_is_of, method), "approximate")
        for method, label in _LABELS.items()
    ]
    return {
        name: rates_table(outcomes, "approximate", caption),
        f"{name}-controls": rates_table(outcomes, "approximate", "The same of controls.", "controls"),
        f"{name}-compared": compare(outcomes, numbers),
    }


def _is_of(method: str, row: Row) -> bool:
    return (row["split"], row["method"]) == ("members", method)
