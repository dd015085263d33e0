"""The picture in the README, from a run of the demo: one photograph under each mask.

    memrecon demo
    python -m benchmarks demo-picture memrecon-demo/run

Of every mask the row shows the training image, its degraded copy, what was recovered, and the estimate of the mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

from benchmarks.registry import RESULTS, make_parser
from memrecon_fast.audit.store.pictures import GALLERY, Picture, read_pictures
from memrecon_fast.audit.store.records import Cell
from memrecon_fast.degradation import MASKS


def draw(run: Path, out: Path) -> None:
    """One column for each mask: of the members that the gallery shows, the one whose number is the mask's."""

    def picture(mask: str, method: str) -> Picture:
        file_stem = Cell("members", mask, method).file_stem
        return read_pictures(run / GALLERY / f"{file_stem}.npz")[MASKS.index(mask)]

    figure, axes = pyplot.subplots(5, len(MASKS), figsize=(1.35 * len(MASKS) + 1.6, 6.9))
    for column, mask in enumerate(MASKS):
        ours, iterated = picture(mask, "accelerated"), picture(mask, "iterate")
        rows = {
            "training image": ours.original,
            "degraded copy": ours.degraded,
            "recovered, blind": ours.recovered,
            "its estimate of the mask": ours.mask,
            "by iteration of the\nautoencoder alone": iterated.recovered,
        }
        axes[0, column].set_title(mask, fontsize=11)
        for row, (label, pixels) in enumerate(rows.items()):
            axis = axes[row, column]
            axis.imshow(pixels.transpose(1, 2, 0), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            if column == 0:
                axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=11)
    figure.tight_layout(pad=0.4)
    figure.savefig(out, dpi=110, bbox_inches="tight")


def main(arguments: Sequence[str]) -> None:
    """Draw it."""
    parser = make_parser("demo-picture", __doc__)
    parser.add_argument("run", type=Path, help="folder of the run: memrecon-demo/run")
    parser.add_argument("--out", type=Path, default=RESULTS / "demo.png", help="the picture; demo.png in the results")
    options = parser.parse_args(arguments)
    draw(options.run, options.out)
