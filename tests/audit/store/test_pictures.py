from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from memrecon_fast.audit.store.pictures import (
    LARGEST_SIDE,
    Picture,
    make_picture,
    read_pictures,
    write_pictures,
)
from memrecon_fast.images.scan import read_images

RNG = np.random.default_rng(0)


def test_a_picture_holds_five_images_in_bytes() -> None:
    images = torch.rand(4, 3, 5, 7)
    mask = torch.rand(3, 5, 7) < 0.5
    picture = make_picture(images[0], images[1], images[2], mask, images[3])
    assert picture.shape == (5, 3, 5, 7)
    np.testing.assert_array_equal(picture[4], (images[3] * 255).round().byte().numpy())
    assert not make_picture(images[0], images[1], images[2], mask)[4].any()
    images = images[:3]
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[:3], (images * 255).round().byte().numpy())
    np.testing.assert_array_equal(picture[3], np.where(mask, 255, 0))


def test_a_picture_of_a_diverged_estimate_is_black_or_white() -> None:
    lost = torch.tensor([float("nan"), float("inf"), -float("inf"), 2.0, -0.1, 1.0]).view(1, 2, 3)
    for shown in make_picture(lost, lost, lost, lost, lost):
        assert shown.tolist() == [[[0, 255, 0], [255, 0, 255]]]


@pytest.mark.parametrize(
    ("size", "reduced"),
    [
        ((LARGEST_SIDE, LARGEST_SIDE), (LARGEST_SIDE, LARGEST_SIDE)),
        ((4 * LARGEST_SIDE, 2 * LARGEST_SIDE), (LARGEST_SIDE, LARGEST_SIDE // 2)),
        ((1, LARGEST_SIDE + 1), (1, LARGEST_SIDE)),
        ((10 * LARGEST_SIDE, 3), (LARGEST_SIDE, 1)),
    ],
)
def test_large_images_are_reduced_by_averaging(size: tuple[int, int], reduced: tuple[int, int]) -> None:
    image = torch.rand(3, *size)
    picture = make_picture(image, image, image, image > 0.5)
    assert picture.shape == (5, 3, *reduced)
    assert abs(picture[0].mean() / 255 - image.mean().item()) < 0.02
    block = image[:, : size[0] // reduced[0], : size[1] // reduced[1]]
    if size[0] % reduced[0] == 0 == size[1] % reduced[1]:
        np.testing.assert_allclose(picture[0][:, 0, 0], 255 * block.mean(dim=(1, 2)), atol=0.51)


def pictures_of(*indices: int) -> list[Picture]:
    return [Picture(index, *RNG.integers(0, 256, (4, 1, 5, 9), np.uint8)) for index in indices]


def test_pictures_survive_their_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.npz"
    written = pictures_of(3, 1, 2)
    write_pictures(path, written)
    read = read_pictures(path)
    assert [picture.index for picture in read] == [1, 2, 3]
    by_index = {picture.index: picture for picture in written}
    for picture in read:
        for name in ("original", "degraded", "recovered", "mask"):
            np.testing.assert_array_equal(getattr(picture, name), getattr(by_index[picture.index], name))
    content = path.read_bytes()
    write_pictures(path, written[::-1])
    assert path.read_bytes() == content
    assert [file.name for file in path.parent.iterdir()] == ["a.npz"]


def test_a_file_of_pictures_is_read_whole_or_refused(tmp_path: Path) -> None:
    assert read_pictures(tmp_path / "absent.npz") == []
    write_pictures(tmp_path / "a.npz", pictures_of(1, 2))
    whole = (tmp_path / "a.npz").read_bytes()
    path = tmp_path / "bad.npz"
    for bad in (b"", b"nothing", whole[: len(whole) // 2], whole[:60] + bytes(60) + whole[120:]):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=r"bad\.npz cannot be read as pictures of an audit"):
            read_pictures(path)
    np.savez(path, index=np.array([1]))
    with pytest.raises(ValueError, match=r"bad\.npz cannot be read as pictures of an audit: .*original"):
        read_pictures(path)


def test_a_file_that_holds_far_more_than_pictures_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pictures.npz"
    np.savez_compressed(path, index=np.zeros(1_000_000))
    monkeypatch.setattr("memrecon_fast.audit.store.pictures.MAX_BYTES", 10_000)
    with pytest.raises(ValueError, match="it holds far more than pictures"):
        read_pictures(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    for name, read in (("pictures.npz", read_pictures), ("images.parquet", read_images)):
        os.mkfifo(tmp_path / name)
        with pytest.raises(ValueError, match="named pipe"):
            read(tmp_path / name)
