from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

import memrecon_fast as mf
from memrecon_fast.attractors.starts import KINDS, Kind, check_kind, check_pictures, make_start
from memrecon_fast.common.seeding import keyed_random

SHAPE = (3, 8, 6)
SHAPES = [(1,), (7,), (5, 3), (16, 16), (1, 1, 1), (3, 2, 9), (3, 16, 12), (2, 3, 4, 5)]
PICTURES = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(1))


def many(kind: str, count: int = 300) -> Tensor:
    return torch.stack([make_start(kind, SHAPE, 42, index) for index in range(count)])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_any_shape(kind: str, shape: tuple[int, ...]) -> None:
    pictures = torch.rand(2, *shape) if KINDS[kind].takes_pictures else None
    start = make_start(kind, shape, 42, 3, pictures)
    assert (start.shape, start.dtype, start.is_contiguous()) == (shape, torch.float32, True)
    assert start.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_start_is_a_function_of_kind_seed_and_index(kind: str) -> None:
    pictures = PICTURES if KINDS[kind].takes_pictures else None
    start = make_start(kind, SHAPE, 42, 7, pictures)
    assert torch.equal(start, make_start(kind, SHAPE, 42, 7, pictures))
    assert not torch.equal(start, make_start(kind, SHAPE, 42, 8, pictures))
    assert not torch.equal(start, make_start(kind, SHAPE, 43, 7, pictures))


def test_smooth_noise_is_a_grid_of_four_cells_interpolated() -> None:
    grid = 0.5 + 1.2 * keyed_random("start: smooth", 5, 9).standard_normal((3, 4, 4))
    expected = interpolate(torch.from_numpy(grid)[None], size=SHAPE[1:], mode="bilinear")[0]
    torch.testing.assert_close(make_start("smooth", SHAPE, 5, 9), expected.float(), rtol=0, atol=1e-6)


def test_a_side_of_up_to_four_pixels_is_its_own_grid() -> None:
    expected = 0.5 + 1.2 * keyed_random("start: smooth", 5, 9).standard_normal((3, 4, 2))
    assert np.array_equal(make_start("smooth", (3, 4, 2), 5, 9).numpy(), expected.astype(np.float32))


def test_levels_of_noise() -> None:
    """Of 43,200 pixels: mean and standard deviation to within 5 standard errors, 5 σ/√n and 5 σ/√(2n)."""
    for kind, std in (("uniform", 12**-0.5), ("gaussian", 2.0)):
        pixels = many(kind)
        assert abs(pixels.mean() - 0.5) < 5 * std / 43200**0.5
        assert abs(pixels.std() - std) < 5 * std / 86400**0.5
    assert many("uniform").aminmax()[0] >= 0
    assert many("uniform").aminmax()[1] < 1
    smooth = many("smooth")
    assert abs(smooth.mean() - 0.5) < 0.05
    assert smooth.aminmax()[0] < -1
    assert smooth.aminmax()[1] > 2


def test_pictures_are_stretched_about_grey_shifted_and_mirrored() -> None:
    contrasts, chosen, mirrored = [], set(), set()
    for index in range(40):
        start = make_start("images", SHAPE, 42, index, PICTURES)
        fits = [
            (float((start - 0.5).norm() / (picture - 0.5).norm()), number, flip, shift)
            for number, picture in enumerate(PICTURES)
            for flip in (False, True)
            for shift in np.ndindex(SHAPE[1:])
            if torch.allclose(
                start,
                0.5
                + (start - 0.5).norm()
                / (picture - 0.5).norm()
                * ((picture.roll(shift, (1, 2)).flip(-1) if flip else picture.roll(shift, (1, 2))) - 0.5),
                atol=1e-5,
            )
        ]
        assert len(fits) == 1
        contrasts.append(fits[0][0])
        chosen.add(fits[0][1])
        mirrored.add(fits[0][2])
    assert 1 <= min(contrasts) < 1.5
    assert 2.5 < max(contrasts) <= 4
    assert chosen == {0, 1, 2, 3}
    assert mirrored == {False, True}


def test_pictures_that_are_read_one_at_a_time(tmp_path: Path) -> None:
    np.save(tmp_path / "pictures.npy", PICTURES.numpy())
    images = mf.images.open_images(str(tmp_path / "pictures.npy"))
    check_pictures("images", SHAPE, images)  # type: ignore[arg-type]
    read = make_start("images", SHAPE, 42, 0, images)  # type: ignore[arg-type]
    assert torch.equal(read, make_start("images", SHAPE, 42, 0, PICTURES))


@pytest.fixture
def stripes() -> Iterator[str]:
    def draw(
        generator: np.random.Generator, shape: tuple[int, ...], _: object
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return np.full(shape, generator.random(), np.float32)

    KINDS["flat"] = Kind("flat", draw)
    yield "flat"
    del KINDS["flat"]


def test_a_kind_from_outside(stripes: str) -> None:
    check_kind(stripes)
    assert len(make_start(stripes, SHAPE, 42, 0).unique()) == 1
    assert mf.attractors.harvest(lambda x: 0.5 * x, SHAPE, 3, stripes).kind == stripes


@pytest.mark.parametrize(
    ("kind", "pictures", "error", "message"),
    [
        ("images", None, ValueError, "kind 'images' starts from pictures: give at least one"),
        ("images", PICTURES[:0], ValueError, "kind 'images' starts from pictures: give at least one"),
        ("smooth", PICTURES, ValueError, "kind 'smooth' takes no pictures; they are for 'images'"),
        ("images", PICTURES[:, :, 1:], ValueError, r"pictures must be of image_shape \(3, 8, 6\).*of \(3, 7, 6\)"),
        ("images", [PICTURES[0, 0]], ValueError, r"pictures must be of image_shape \(3, 8, 6\).*of \(8, 6\)"),
        ("images", PICTURES.byte(), TypeError, "pictures must be float32"),
    ],
)
def test_wrong_pictures(kind: str, pictures: Tensor | None, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_pictures(kind, SHAPE, pictures)
