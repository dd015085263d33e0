"""A `Recovery` as a person sees it."""

from __future__ import annotations

import base64
import dataclasses
import io
import math
import re
import sys
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import memrecon_fast as mf
from memrecon_fast.results import MAX_SHOWN, Recovery, Status
from memrecon_fast.showing.pixels import to_pixels

SHAPE = (3, 4, 4)
NUMBERS = [
    "score", "residual", "fixed_point_mse", "misfit", "explained", "gamma", "attempts", "outer_iterations",
    "evaluations", "accepted", "rejected", "mask_changes",
]  # fmt: skip


def make_recovery(count: int = 4, shape: tuple[int, ...] = SHAPE, **changes: Any) -> tuple[Recovery, Tensor]:
    """Image 0 is recovered accurately, 1 approximately, 2 is not, and is not explained, 3 diverged; further ones as 2.
    With the originals."""
    truth = torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))
    offset = torch.tensor([1e-5, 1e-2, 0.3, math.nan, *[0.3] * count])[:count]
    error = torch.tensor([1e-9, 5e-5, 0.2, math.nan, *[0.2] * count])[:count]
    status = [Status.CONVERGED, Status.STALLED, Status.STALLED, Status.DIVERGED, *[Status.STALLED] * count][:count]
    whole = torch.arange(count, dtype=torch.int32)
    columns: dict[str, Any] = {
        "images": truth + offset.reshape(-1, *[1] * len(shape)),
        "masks": truth > 0.5,
        "outer_iterations": whole,
        "evaluations": 10 * whole + 10,
        "status": torch.tensor(status, dtype=torch.int8),
        "residual": error / 2,
        "fixed_point_mse": error,
        "misfit": 0 * error,
        "explained": torch.tensor([1.0, 0.99, 0.5, math.nan, *[0.95] * count])[:count],
        "gamma": torch.full((count,), 0.5, dtype=torch.float64),
        **dict.fromkeys(("attempts", "accepted", "rejected", "mask_changes"), whole + 1),
        "backend": "cpp",
        "first_degraded": (truth * (truth > 0.5))[:MAX_SHOWN],
    }
    return Recovery(**{**columns, **changes}), truth


def addresses(html: str) -> list[np.ndarray[Any, Any]]:
    found = re.findall(r'src="data:image/png;base64,([^"]*)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in found]


def test_a_recovery_in_five_lines() -> None:
    recovery, _ = make_recovery()
    assert repr(recovery).splitlines() == [
        "Recovery of 4 images of shape (3, 4, 4)",
        "  status: 2 STALLED, 1 CONVERGED, 1 DIVERGED",
        "  recognized: 2 of 4 score below 1e-4 (fixed points that explain what was given); 2 without a finite score",
        "  evaluations: 100 in all, 25 per image (median)",
        "  backend: cpp, eager",
    ]
    assert recovery.status_names == ["CONVERGED", "STALLED", "STALLED", "DIVERGED"]
    none, _ = make_recovery(2, fixed_point_mse=torch.ones(2))
    assert "0 of 2 score below 1e-4" in repr(none)
    assert "; does the model reconstruct the images it was trained on, with pixels in [0, 1]?" in repr(none)


def test_what_is_in_doubt_is_said() -> None:
    recovery, _ = make_recovery(doubt="it is <random>")
    assert repr(recovery).splitlines()[-1] == "  IN DOUBT: it is <random>"
    html = recovery._repr_html_()
    assert "it is &lt;random&gt;" in html
    assert "<random>" not in html


def test_iteration_recognises_nothing() -> None:
    recovery, _ = make_recovery(gamma=torch.full((4,), math.nan, dtype=torch.float64))
    assert "  recognized: unknown; iteration gives no score that tells" in repr(recovery).splitlines()
    assert recovery.to_pandas()["recognized"].isna().all()
    assert "score" not in recovery._repr_html_().partition("<img")[2]


def test_no_image_at_all() -> None:
    recovery, truth = make_recovery(0)
    assert repr(recovery) == "Recovery of 0 images of shape (3, 4, 4)\n  status: no image\n  backend: cpp, eager"
    assert "<img" not in recovery._repr_html_()
    assert len(recovery.to_pandas(truth)) == 0
    with pytest.raises(ValueError, match="there is no image to show"):
        recovery.plot()


def test_a_table() -> None:
    recovery, truth = make_recovery()
    table = recovery.to_pandas()
    assert table.columns.tolist() == ["status", "recognized", *NUMBERS]
    assert table.index.tolist() == [0, 1, 2, 3]
    assert table.index.name == "image"
    assert table["status"].tolist() == recovery.status_names
    assert table["recognized"].tolist() == [True, True, False, False]
    for name in NUMBERS:
        np.testing.assert_array_equal(table[name], getattr(recovery, name).numpy())
    assert table["score"].tolist()[2:] == [math.inf, math.inf]

    table = recovery.to_pandas(truth)
    assert table.columns.tolist() == ["status", "mse", "psnr", "accurate", "approximate", "recognized", *NUMBERS]
    np.testing.assert_array_equal(table["mse"], mf.metrics.mse(recovery.images, truth))
    np.testing.assert_allclose(table["psnr"], mf.metrics.psnr(recovery.images, truth), rtol=1e-12)
    assert table["accurate"].tolist() == [True, False, False, False]
    assert table["approximate"].tolist() == [True, True, False, False]
    assert math.isnan(table["mse"][3])
    assert math.isnan(table["psnr"][3])


@pytest.mark.parametrize(
    ("truth", "error", "message"),
    [
        (torch.zeros(4, *SHAPE, dtype=torch.uint8), TypeError, r"truth must be float .* not torch.uint8"),
        (np.zeros((4, *SHAPE)), TypeError, "truth must be a torch tensor, not ndarray"),
        (torch.zeros(3, *SHAPE), ValueError, r"truth must be of the shape .*\(4, 3, 4, 4\), not \(3, 3, 4, 4\)"),
    ],
)
def test_other_originals_are_refused(truth: Any, error: type[Exception], message: str) -> None:
    recovery, _ = make_recovery()
    with pytest.raises(error, match=message):
        recovery.to_pandas(truth)
    with pytest.raises(error, match=message):
        recovery.plot(truth=truth)


def test_a_figure() -> None:
    recovery, truth = make_recovery(10)
    figure = recovery.plot(truth=truth)
    grid = np.array(figure.axes).reshape(4, MAX_SHOWN)
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["original", "degraded", "recovered", "mask"]
    assert grid[0, 0].get_title() == "0 CONVERGED\n100.0 dB"
    assert grid[0, 3].get_title() == "3 DIVERGED\nnan dB"
    assert recovery.first_degraded is not None
    for row, images in zip(grid, (truth, recovery.first_degraded, recovery.images, recovery.masks), strict=True):
        for axes, image in zip(row, images, strict=False):
            np.testing.assert_array_equal(axes.get_images()[0].get_array(), to_pixels(image))
    assert " ".join(figure.get_supxlabel().split()) == (
        "mask: white is kept, black is erased; a colour where only some channels are kept: red for the first, "
        "yellow for the first and second, …"
    )
    # a notebook asks for this, and so does nobody who has imported pyplot
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


def test_a_figure_of_other_images() -> None:
    recovery, truth = make_recovery(10)
    figure = recovery.plot(which=[9, 1])
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == ["recovered", "mask"]  # what 9 came from is unknown
    assert [axes.get_title() for axes in figure.axes[:2]] == ["9 STALLED\nscore 2e-01", "1 STALLED\nscore 5e-05"]
    figure = recovery.plot(degraded=truth / 2, which=[9])
    assert [axes.get_ylabel() for axes in figure.axes] == ["degraded", "recovered", "mask"]
    np.testing.assert_array_equal(figure.axes[0].get_images()[0].get_array(), to_pixels(truth[9] / 2))
    with pytest.raises(ValueError, match="which must name images from 0 to 9, not 10"):
        recovery.plot(which=[10])
    with pytest.raises(ValueError, match="degraded must be of the shape"):
        recovery.plot(degraded=truth[:2])


def test_what_the_mask_means_is_said_as_far_as_it_is_shown() -> None:
    recovery, truth = make_recovery(1)
    whole = (truth > 0.5)[:, :1].expand(-1, 3, -1, -1)
    recovery = dataclasses.replace(recovery, masks=whole)
    figure = recovery.plot()
    figure.canvas.draw()
    words = figure._supxlabel  # type: ignore[attr-defined]
    assert " ".join(words.get_text().split()) == "mask: white is kept, black is erased"
    extent = words.get_window_extent()
    assert 0 <= extent.x0 < extent.x1 <= figure.bbox.x1
    assert extent.y1 <= min(axes.get_window_extent().y0 for axes in figure.axes)
    assert "<p" in (html := recovery._repr_html_())
    assert "Mask: white is kept, black is erased." in html


def test_pictures_in_a_notebook() -> None:
    recovery, _ = make_recovery(10)
    html = recovery._repr_html_()
    pictures = addresses(html)
    assert len(pictures) == 3 * MAX_SHOWN
    assert recovery.first_degraded is not None
    for row, images in enumerate((recovery.first_degraded, recovery.images, recovery.masks)):
        for column in range(MAX_SHOWN):
            np.testing.assert_array_equal(pictures[MAX_SHOWN * row + column], to_pixels(images[column]))
    assert (pictures[MAX_SHOWN + 3] == (255, 0, 255)).all()  # it diverged to NaN
    assert "2 of 10 score below 1e-4" in html
    assert "And 2 more" in html
    alone, _ = make_recovery(first_degraded=None)
    assert len(addresses(alone._repr_html_())) == 2 * 4
    assert "more:" not in alone._repr_html_()


def test_what_is_no_picture() -> None:
    recovery, _ = make_recovery(shape=(4, 2, 2))
    html = recovery._repr_html_()
    assert "neither grey nor RGB" in html
    assert "2 of 4 score" in html
    with pytest.raises(ValueError, match=r"images of shape \(4, 2, 2\) are neither grey nor RGB"):
        recovery.plot()


def test_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    recovery, _ = make_recovery()
    monkeypatch.setitem(sys.modules, "PIL", None)
    html = recovery._repr_html_()  # no error, of which a notebook would show nothing but a traceback
    assert "pictures need Pillow" in html
    assert "2 of 4 score" in html
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"a table needs pandas: pip install 'memrecon-fast\[notebook\]'"):
        recovery.to_pandas()
    monkeypatch.delitem(sys.modules, "memrecon_fast.showing.figure", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"a figure needs matplotlib: pip install 'memrecon-fast\[audit\]'"):
        recovery.plot()
