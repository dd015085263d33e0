from __future__ import annotations

import base64
import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from memrecon_fast.showing.pixels import NOT_FINITE, is_picture, to_address, to_pixels


def test_which_shapes_are_pictures() -> None:
    assert all(map(is_picture, [(1, 4, 5), (3, 4, 5), (4, 5)]))
    assert not any(map(is_picture, [(4, 4, 5), (2, 4, 5), (12,), (3, 0, 5), (3, 1, 4, 5)]))


def test_pixels_are_clipped_and_what_is_not_finite_stands_out() -> None:
    image = torch.tensor([[[0.0, 0.5, 1.0], [-3.0, 7.0, float("nan")]]])
    expected = np.array([[[0] * 3, [128] * 3, [255] * 3], [[0] * 3, [255] * 3, NOT_FINITE]], np.uint8)
    for same in (image, image[0], image.expand(3, -1, -1), image.double()):
        np.testing.assert_array_equal(to_pixels(same), expected)
    colour = torch.zeros(3, 1, 2)
    colour[1, 0, 1] = torch.inf
    np.testing.assert_array_equal(to_pixels(colour), np.array([[[0] * 3, NOT_FINITE]], np.uint8))


def test_masks_are_black_and_white() -> None:
    np.testing.assert_array_equal(to_pixels(torch.tensor([[True, False]])), np.array([[[255] * 3, [0] * 3]], np.uint8))


def test_large_images_are_reduced_by_averaging() -> None:
    stripes = torch.zeros(1, 8, 64)
    stripes[..., ::2] = 1
    pixels = to_pixels(stripes, largest_side=32)
    assert pixels.shape == (4, 32, 3)
    assert (pixels == 128).all()
    stripes[0, 5, 5] = torch.nan
    bad = (to_pixels(stripes, largest_side=32) == NOT_FINITE).all(axis=2)
    assert np.argwhere(bad).tolist() == [[2, 2]]
    assert to_pixels(torch.zeros(1, 1, 1000), largest_side=8).shape == (1, 8, 3)


def test_an_address_holds_the_pixels() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (4, 5, 3), np.uint8)
    kind, _, data = to_address(pixels).partition(",")
    assert kind == "data:image/png;base64"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), pixels)


def test_without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pictures need Pillow: pip install 'memrecon-fast\[audit\]'"):
        to_address(np.zeros((1, 1, 3), np.uint8))
