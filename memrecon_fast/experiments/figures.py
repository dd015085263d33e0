"""What figures of experiments share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from memrecon_fast.audit.report.charts import COLOURS, CONTROL_COLOUR, INK

__all__ = ["COLOURS", "CONTROL_COLOUR", "INK", "new_figure", "show_tiles", "tile", "tile_panels"]
_GAP = 1


def new_figure(width: float, height: float, pad: float = 0.04) -> Figure:
    """Of this size in inches; pad: at the sides of each panel, in inches."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=pad))


def tile(images: NDArray[Any]) -> NDArray[Any]:
    """Images (rows, columns, C, H, W) side by side, white lines between them: (height, width, 3)."""
    rows, columns, channels, height, width = images.shape
    pixels = np.clip(np.nan_to_num(images), 0, 1)
    if channels != 3:
        pixels = pixels.mean(axis=2, keepdims=True).repeat(3, axis=2)
    page = np.ones((rows, height + _GAP, columns, width + _GAP, 3))
    page[:, :height, :, :width] = pixels.transpose(0, 3, 1, 4, 2)
    return page.reshape(rows * (height + _GAP), columns * (width + _GAP), 3)[:-_GAP, :-_GAP]


def tile_panels(pictures: Sequence[NDArray[Any]], titles: Sequence[str], labels: Sequence[str]) -> Figure:
    """Images (rows, columns, C, H, W) of each panel, side by side, under its title; all have the same rows."""
    figure = new_figure(3.9 * len(pictures) + 1.2, 3.3, pad=0.12)
    panels = figure.subplots(1, len(pictures), squeeze=False)[0]
    for number, (axes, images, title) in enumerate(zip(panels, pictures, titles, strict=True)):
        show_tiles(axes, images, labels if number == 0 else [])
        axes.set_title(title, fontsize=9.5)
    return figure


def show_tiles(axes: Axes, images: NDArray[Any], labels: Sequence[str] = ()) -> None:
    """Show images (rows, columns, C, H, W), each row with its label."""
    page = tile(images)
    axes.imshow(page, interpolation="nearest")
    axes.set_anchor("N")
    step = images.shape[3] + _GAP
    axes.set_xticks([])
    axes.set_yticks([step * row + images.shape[3] / 2 for row in range(len(labels))], labels)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
