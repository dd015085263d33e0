"""Pictures of images side by side, as a figure of matplotlib."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from torch import Tensor

from memrecon_fast.showing.pixels import to_pixels

INCHES = 1.25
"""Side of a picture."""
_LETTERS_OF_INCH = 19
"""Of a caption."""


class Shown(Figure):
    """A figure that a notebook shows where it is the value of a cell, also where nothing has imported pyplot, which
    would keep it in memory and show it twice."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png")
        return stream.getvalue()


def draw_images(rows: Mapping[str, Tensor], titles: Sequence[str], caption: str = "") -> Figure:
    """A row for each name, a column for each image.

    rows: name → float or bool (n, *image_shape) of shapes that `is_picture`, at least one image; shown as `to_pixels`
    says. titles: above each column, and caption: below all; shown as they are.
    """
    count = len(titles)
    figure = Shown(
        figsize=(INCHES * count + 0.9, INCHES * len(rows) + (0.9 if caption else 0.6)), layout="compressed", dpi=100
    )
    grid = figure.subplots(len(rows), count, squeeze=False)
    for axes_of_row, (name, images) in zip(grid, rows.items(), strict=True):
        for axes, image in zip(axes_of_row, images, strict=True):
            axes.imshow(to_pixels(image), interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set(color="#aaaaaa", linewidth=0.5)
        label = {"rotation": 0, "ha": "right", "va": "center", "fontsize": 9}
        axes_of_row[0].set_ylabel(name, **label)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=8, parse_math=False)
    if caption:
        words = textwrap.fill(caption, int(_LETTERS_OF_INCH * figure.get_figwidth()))
        figure.supxlabel(words, fontsize=7, parse_math=False)
    return figure
