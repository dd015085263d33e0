"""A picture of what came out of random starts, beside the nearest member and the nearest control.

    memrecon attractors MODEL IMAGES --controls OTHERS --harvest 1000 --out RUN
    python -m benchmarks harvest-picture RUN --out harvest.png

Above each column: the share of the starts that came to it. --others draws those that no member is within a mean squared
error of 5·10⁻⁴ of; below each then that error, and the correlation r of its pixels with those of the nearest member: a
member in another brightness or contrast has r near 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

from benchmarks.registry import make_parser
from memrecon_fast.attractors.report.summary import is_near
from memrecon_fast.attractors.survey.harvested import FOUND
from memrecon_fast.attractors.survey.results import read_results
from memrecon_fast.audit.store.parts import unpack


def chosen(run: Path, others: bool) -> tuple[list[dict[str, Any]], int]:
    """The fixed points that are members, each member once, or those that are none, by falling share of the starts; and
    the number of starts. Raises ValueError where the run harvested nothing, or has no members and controls."""
    results = read_results(run)
    if results.gathering is None or FOUND not in results.tables or "controls" not in results.splits:
        raise ValueError(f"{run} has no harvest that was compared with members and controls")
    table = results.tables[FOUND]
    rows, member = table.to_pylist(), is_near(table, "member").tolist()
    if others:
        return [row for row, near in zip(rows, member, strict=True) if not near], results.gathering.starts
    firsts = {row["member"]: row for row, near in reversed([*zip(rows, member, strict=True)]) if near}
    return sorted(firsts.values(), key=lambda row: -row["starts"]), results.gathering.starts


def draw(rows: list[dict[str, Any]], starts: int, out: Path, others: bool) -> None:
    """One column for each fixed point."""
    shown = {"picture": "came out of noise", "member_picture": "nearest member", "control_picture": "nearest control"}
    size = 0.85 * len(rows) + 1.3, 3.5 if others else 3.1
    figure, axes = pyplot.subplots(3, len(rows), figsize=size, squeeze=False)
    for column, row in enumerate(rows):
        axes[0, column].set_title(f"{row['starts'] / starts:.1%}", fontsize=8)
        for line, (name, label) in enumerate(shown.items()):
            axis, pixels = axes[line, column], unpack(row[name]).transpose(1, 2, 0)
            grey = pixels.shape[2] == 1
            axis.imshow(pixels[:, :, 0] if grey else pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            if column == 0:
                axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
        if others:
            axes[1, column].set_xlabel(f"{row['member_mse']:.0e}\nr = {row['member_correlation']:.2f}", fontsize=8)
    figure.tight_layout(pad=0.3)
    figure.savefig(out, dpi=100, bbox_inches="tight")


def main(arguments: Sequence[str]) -> None:
    """Draw it."""
    parser = make_parser("harvest-picture", __doc__)
    parser.add_argument("run", type=Path, help="folder of a run of `memrecon attractors`")
    parser.add_argument("--out", type=Path, required=True, help="the picture")
    parser.add_argument("--columns", type=int, default=12, help="at most so many; 12 without it")
    parser.add_argument("--others", action="store_true", help="those that are no member")
    options = parser.parse_args(arguments)
    rows, starts = chosen(options.run, options.others)
    if not rows:
        raise SystemExit(f"{options.run} has none of these")
    draw(rows[: options.columns], starts, options.out, options.others)
