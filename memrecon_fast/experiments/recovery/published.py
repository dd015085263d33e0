"""The numbers of the paper's text, and tables that compare them with what was measured here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from memrecon_fast.experiments.experiment import Outcome, Row, Table

OWN_MASKS = (
    "The six masks are this project's: the paper shows its own in figures alone. They are told apart by name here, and "
    "by number there; no mask here is meant to be one of those."
)
OWN_WIDTHS = (
    "The widths of the nets, their first weights, the optimiser and its rates are this project's; the paper's are not "
    "known."
)
NO_DDNM = (
    "In place of DDNM, which needs a diffusion model, biharmonic inpainting is beside; both are given the true mask, "
    "and know nothing of the autoencoder."
)
OURS_BESIDE = (
    "`accelerated` is this project's solver, beside the paper's method (`paper`), which has its γ as published."
)


@dataclasses.dataclass(frozen=True)
class Number:
    """A number of the paper, in percent, with what was measured here in its place."""

    what: str
    published: str
    rows: Callable[[Row], bool]
    """Of all rows, those that it is compared with: of each net, one for each mask."""
    measure: str = "accurate"


def compare(outcomes: Mapping[str, Outcome], numbers: Sequence[Number]) -> Table:
    """What is published, and what was measured here, of each net: the mean of the masks, and each of them."""
    every = [row for outcome in outcomes.values() for row in outcome.rows]
    lines: list[list[str | float | None]] = []
    for number in numbers:
        found = [row for row in every if number.rows(row)]
        for net in dict.fromkeys(row["net"] for row in found):
            ours = [row for row in found if row["net"] == net]
            rates = [row[number.measure] for row in ours]
            by_mask = ", ".join(f"{row['mask']} {percent(row[number.measure])}" for row in ours)
            losses = " ".join(f"{loss:.1e}" for loss in sorted({row["loss"] for row in ours}))
            lines.append([number.what, number.published, net, losses, percent(sum(rates) / len(rates)), by_mask])
        if not found:
            lines.append([number.what, number.published, "–", "–", "not measured", ""])
    header = ["what, in %", "published", "net", "train loss", "here, mean", "by mask"]
    return Table("Published, and measured here.", header, lines)


def percent(share: float | None) -> str:
    """As it is read in tables."""
    return "–" if share is None else f"{100 * share:.3g}"


def lowest(outcomes: Mapping[str, Outcome]) -> dict[str, float]:
    """Of each net the lowest loss that it reached."""
    found: dict[str, float] = {}
    for outcome in outcomes.values():
        for row in outcome.rows:
            found[row["net"]] = min(found.get(row["net"], float("inf")), row["loss"])
    return found
