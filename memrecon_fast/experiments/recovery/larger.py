"""What Tables 1 and 2 share: one net that knows many images, at one moderate loss."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from memrecon_fast.experiments.experiment import Outcome, Row, Table
from memrecon_fast.experiments.recovery.audits import OURS, Task
from memrecon_fast.experiments.recovery.published import Number, compare
from memrecon_fast.experiments.recovery.rates import rates_table

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


def tables_of(
    name: str, caption: str, outcomes: Mapping[str, Outcome], published: Mapping[str, str]
) -> dict[str, Table]:
    """The rates, how much more the blind methods recover than the autoencoder alone, and what is published."""
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
