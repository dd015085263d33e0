from __future__ import annotations

import errno
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from memrecon_fast import metrics
from memrecon_fast.images import nearest
from memrecon_fast.images.nearest import NONE, Nearest
from memrecon_fast.images.scan import Images, scan
from memrecon_fast.images.source import Source
from memrecon_fast.images.sources import from_array

SHAPES = [(1,), (2,), (5,), (700,), (3, 1, 1), (1, 28, 28), (3, 16, 16), (3, 33, 20), (2, 3, 4, 5)]


def by_brute_force(images: np.ndarray, queries: np.ndarray) -> tuple[list[int], list[float]]:
    rows = images.reshape(len(images), -1)
    errors = [metrics.mse_of_rows(np.broadcast_to(query.reshape(1, -1), rows.shape), rows) for query in queries]
    return [int(error.argmin()) for error in errors], [float(error.min()) for error in errors]


def check(images: np.ndarray, queries: np.ndarray, of: Any = None) -> None:
    """To the last bit: it is the least of the same numbers."""
    index, mse = Nearest(torch.from_numpy(images) if of is None else of).of(torch.from_numpy(queries))
    assert (index.dtype, mse.dtype) == (torch.int64, torch.float64)
    assert (index.tolist(), mse.tolist()) == by_brute_force(images, queries)


def awkward(shape: tuple[int, ...], count: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Images around grey, some of them equal and one without contrast; and queries near, far and very far."""
    rng = np.random.default_rng(count)
    images = (0.5 + spread * rng.standard_normal((count, *shape))).astype(np.float32)
    if count > 2:
        images[1] = images[count // 2] = images[0]
        images[2] = 0.5
    noise = rng.standard_normal((17, *shape)).astype(np.float32)
    near = np.concatenate([images[:3], images[-3:]])
    queries = [near, near + 1e-4 * noise[: len(near)], near + spread * noise[: len(near)], noise, 1e3 * noise[:3]]
    return images, np.concatenate([*queries, np.full((1, *shape), 1e5, np.float32)]).astype(np.float32)


@pytest.mark.parametrize("spread", [1, 1e-3, 1e-8])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_what_comparing_with_all_finds(shape: tuple[int, ...], spread: float) -> None:
    for count in (1, 2, 50, 300):
        check(*awkward(shape, count, spread))


@pytest.mark.parametrize("spread", [1, 1e-3])
@pytest.mark.parametrize("shape", SHAPES)
def test_only_near_ones_are_found_where_no_others_are_asked_for(shape: tuple[int, ...], spread: float) -> None:
    for count in (1, 50, 300):
        images, queries = awkward(shape, count, spread)
        index, mse = by_brute_force(images, queries)
        for within in (0.0, 1e-7, spread**2, 2.5 * spread**2, *mse[5:7]):
            expected = [
                (at, error) if error <= within else (NONE, math.inf) for at, error in zip(index, mse, strict=True)
            ]
            found = Nearest(images, within).of(torch.from_numpy(queries))
            assert list(zip(*(part.tolist() for part in found), strict=True)) == expected


def test_blocks_may_be_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    images, queries = awkward((3, 16, 16), 100, 0.2)
    for bounds, pixels, at_once, few in ((1, 1, 1, 1), (250, 5000, 3, 0), (2**22, 2**21, 16, 1000)):
        for name, value in (("_BOUNDS", bounds), ("_PIXELS", pixels), ("_AT_ONCE", at_once), ("_FEW", few)):
            monkeypatch.setattr(nearest, name, value)
        check(images, queries)


def test_images_on_one_line_are_told_apart_by_what_is_not_in_the_lowest_frequencies() -> None:
    """All of them have the same lowest frequencies: what tells them apart is the norm of the rest."""
    pattern = np.indices((32, 32)).sum(axis=0) % 2 - 0.5
    images = (0.5 + np.linspace(0, 1, 200)[:, None, None, None] * pattern).astype(np.float32)
    check(images, images[::7] + np.float32(1e-3))


def test_noise_is_compared_with_all_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bounds leave nearly all images, and so must be replaced by the distances."""
    rng = np.random.default_rng(0)
    images = rng.random((300, 1, 40, 40)).astype(np.float32)
    asked = []
    distances = Nearest._distances

    def counting(self: Nearest, queries: Any, left: Any) -> Any:
        asked.append(len(left))
        return distances(self, queries, left)

    monkeypatch.setattr(Nearest, "_distances", counting)
    check(images, rng.random((20, 1, 40, 40)).astype(np.float32))
    assert asked[0] > 150


def test_few_are_compared_pixel_by_pixel_where_images_are_smooth(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((300, 3, 5, 5)).astype(np.float32))
    images = torch.nn.functional.interpolate(coarse, (48, 48), mode="bilinear").numpy()
    compared = []
    take = nearest._Pixels.take
    of = Nearest(images)

    def counting(self: Any, rows: Any) -> Any:
        compared.append(len(rows))
        return take(self, rows)

    monkeypatch.setattr(nearest._Pixels, "take", counting)
    noise = rng.standard_normal((100, 3, 48, 48)).astype(np.float32)
    of.of(torch.from_numpy(images[:100] + 0.1 * noise))
    assert sum(compared) <= 110


def test_what_is_no_picture_has_no_nearest() -> None:
    images, _ = awkward((3, 5, 5), 20, 0.2)
    queries = np.stack([images[7]] * 6)
    for row, value in enumerate((np.nan, np.inf, -np.inf, 2e6, -3e38)):
        queries[row, 0, 0, 0] = value
    index, mse = Nearest(images).of(torch.from_numpy(queries))
    assert index.tolist() == [NONE] * 5 + [7]
    assert torch.isnan(mse[:5]).all()
    assert mse[5] == 0
    empty = Nearest(images).of(torch.empty(0, 3, 5, 5))
    assert [len(part) for part in empty] == [0, 0]
    large = 1e4 * images  # of images that are large themselves, larger queries are in proportion
    check(large, np.full((1, 3, 5, 5), 2e6, np.float32))


def test_a_query_has_the_same_nearest_whatever_it_is_asked_with() -> None:
    images, queries = awkward((3, 16, 16), 300, 0.3)
    of = Nearest(images)
    index, mse = of.of(torch.from_numpy(queries))
    for row in range(len(queries)):
        alone = of.of(torch.from_numpy(queries[row : row + 1]))
        assert (alone[0].item(), alone[1].item()) == (index[row].item(), mse[row].item())


def test_bytes_are_the_pixels_that_images_have() -> None:
    of_torch = torch.arange(256, dtype=torch.uint8).float() / 255
    assert np.array_equal(nearest._OF_BYTES, of_torch.numpy())
    array = np.random.default_rng(0).integers(0, 256, (30, 3, 8, 8), dtype=np.uint8)
    images = scan(from_array(array))
    queries = np.random.default_rng(1).random((10, 3, 8, 8)).astype(np.float32)
    check(images.stack().numpy(), queries, of=images)
    check(images.stack().numpy(), queries, of=torch.from_numpy(array))
    assert Nearest(images)._pixels._rows.dtype == np.uint8


@pytest.mark.parametrize("in_memory", [True, False])
def test_images_that_are_no_bytes_are_kept_as_they_are(in_memory: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not in_memory:
        monkeypatch.setattr(nearest, "_IN_MEMORY", 0)
    rng = np.random.default_rng(0)
    as_bytes: list[np.ndarray] = list(rng.integers(0, 256, (20, 6, 5, 3), dtype=np.uint8))
    mixed = [*as_bytes[:9], *rng.random((5, 6, 5, 3)).astype(np.float32), *as_bytes[9:]]
    images = scan(Source(tuple(map(str, range(25))), mixed.__getitem__))
    queries = rng.random((10, 3, 6, 5)).astype(np.float32)
    check(images.stack().numpy(), np.concatenate([queries, images.stack().numpy()]), of=images)
    assert isinstance(Nearest(images)._pixels._rows, np.memmap) is not in_memory


def test_images_that_cannot_be_used_are_no_nearest_but_keep_their_place(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((6, 4, 4, 1)).astype(np.float32)
    several: list[np.ndarray] = [np.zeros((2, 2, 1), np.float32), *array]
    several[4] = np.zeros((9, 9, 1), np.float32)
    images = scan(Source(tuple("abcdefg"), several.__getitem__), (1, 4, 4))
    index, mse = Nearest(images).of(torch.stack([images[at] for at in images.usable()]))
    assert index.tolist() == images.usable() == [1, 2, 3, 5, 6]
    assert not mse.any()


def test_an_image_that_has_changed_is_said() -> None:
    array = np.random.default_rng(0).random((6, 4, 4, 1)).astype(np.float32)
    images = scan(from_array(array))
    array[3] = 0
    with pytest.raises(ValueError, match="3 has changed"):
        Nearest(images)


def test_no_room_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(nearest, "_IN_MEMORY", 0)
    monkeypatch.setattr(os, "posix_fallocate", full)
    images: Images = scan(from_array(np.random.default_rng(0).random((6, 4, 4, 1)).astype(np.float32)))
    with pytest.raises(ValueError, match=r"no room in .* 6 images, 384 bytes: No space left"):
        Nearest(images)


@pytest.mark.parametrize(
    ("images", "error"),
    [
        (np.zeros((3, 4)), TypeError),
        (torch.zeros(3, 4, dtype=torch.float16), TypeError),
        ([[1.0]], TypeError),
        (np.zeros((0, 4), np.float32), ValueError),
        (np.zeros((4, 0), np.float32), ValueError),
        (np.zeros(4, np.float32), ValueError),
        (np.full((3, 4), np.nan, np.float32), ValueError),
        (np.full((3, 4), np.inf, np.float32), ValueError),
        (np.full((3, 4), 2e6, np.float32), ValueError),
    ],
)
def test_what_is_no_set_of_images_is_refused(images: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="the images must be"):
        Nearest(images)


def test_queries_must_be_like_the_images() -> None:
    of = Nearest(torch.zeros(2, 3, 4))
    for queries in (torch.zeros(2, 3, 4).double(), np.zeros((2, 3, 4), np.float32)):
        with pytest.raises(TypeError, match="float32 tensor"):
            of.of(queries)  # type: ignore[arg-type]
    for wrong in (torch.zeros(3, 4), torch.zeros(2, 12), torch.tensor(1.0)):
        with pytest.raises(ValueError, match=r"\(n, 3, 4\)"):
            of.of(wrong)
