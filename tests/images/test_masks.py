from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from memrecon_fast.degradation import MASKS, make_mask
from memrecon_fast.images.masks import open_masks

SHAPE = (3, 5, 6)
KEPT = np.random.default_rng(0).random(SHAPE[1:]) < 0.5


def test_named_masks_are_those_of_degradation() -> None:
    masks = open_masks(MASKS, SHAPE, seed=7)
    assert tuple(masks) == MASKS
    for name, mask in masks.items():
        assert torch.equal(mask, make_mask(name, SHAPE, 7))


def test_in_an_image_the_brighter_half_is_kept(tmp_path: Path) -> None:
    Image.fromarray(np.where(KEPT, 128, 127).astype(np.uint8)).save(tmp_path / "mine.png")
    mask = open_masks([str(tmp_path / "mine.png")], SHAPE)["mine.png"]
    assert mask.dtype == torch.bool
    assert torch.equal(mask, torch.from_numpy(KEPT).expand(SHAPE))


@pytest.mark.parametrize("array", [KEPT, KEPT.astype(np.uint8), KEPT.astype(np.float64)])
def test_an_array_of_one_plane_holds_for_every_channel(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "mine.npy", array)
    mask = open_masks([str(tmp_path / "mine.npy")], SHAPE)["mine.npy"]
    assert torch.equal(mask, torch.from_numpy(KEPT).expand(SHAPE))


def test_an_array_may_differ_between_channels(tmp_path: Path) -> None:
    array = np.stack([KEPT, ~KEPT, KEPT])
    np.save(tmp_path / "mine.npy", array)
    assert torch.equal(open_masks([str(tmp_path / "mine.npy")], SHAPE)["mine.npy"], torch.from_numpy(array))


@pytest.mark.parametrize("shape", [(5, 6), (1, 5, 6), (5, 6, 1), (3, 5, 6), (5, 6, 3), (1, 1, 5, 6), (1, 3, 5, 6)])
def test_shapes_in_which_programs_save_masks(tmp_path: Path, shape: tuple[int, ...]) -> None:
    plane = KEPT[..., None] if shape[-1] in (1, 3) else KEPT
    np.save(tmp_path / "mine.npy", np.broadcast_to(plane, shape))
    mask = open_masks([str(tmp_path / "mine.npy")], SHAPE)["mine.npy"]
    assert torch.equal(mask, torch.from_numpy(KEPT).expand(SHAPE))


def palette(values: np.ndarray) -> Image.Image:
    image = Image.fromarray(values.astype(np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 128, 0, 0])
    return image


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(KEPT.astype(np.uint8)),
        Image.fromarray(KEPT),
        Image.fromarray(KEPT.astype(np.uint16) * 65535),
        Image.fromarray(KEPT.astype(np.uint16)),
        Image.fromarray(np.where(KEPT, 40_000, 20_000).astype(np.uint16)),
        palette(KEPT),
        Image.merge("RGBA", [Image.fromarray(KEPT.astype(np.uint8) * 255)] * 3 + [Image.new("L", (6, 5), 255)]),
    ],
    ids=["0 and 1", "one bit", "16 bits", "16 bits, 0 and 1", "16 bits, others", "palette", "opaque"],
)
def test_images_in_which_programs_save_masks(tmp_path: Path, image: Image.Image) -> None:
    image.save(tmp_path / "mine.png")
    mask = open_masks([str(tmp_path / "mine.png")], SHAPE)["mine.png"]
    assert torch.equal(mask, torch.from_numpy(KEPT).expand(SHAPE))


def test_images_that_are_no_masks_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    Image.new("RGBA", (6, 5), (255, 255, 255, 9)).save(tmp_path / "clear.png")
    os.mkfifo(tmp_path / "pipe.png")
    for name, message in {
        "empty.png": "it is empty",
        "clear.png": "it has transparency",
        "pipe.png": "it is a named pipe, no regular file",
    }.items():
        with pytest.raises(ValueError, match=rf"the mask .*{name} cannot be read as an image: {message}"):
            open_masks([str(tmp_path / name)], SHAPE)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (KEPT * 255, "True and False, or 1 and 0"),
        (np.where(KEPT, 0.5, 0.0), "True and False, or 1 and 0"),
        (np.where(KEPT, np.nan, 0.0), "True and False, or 1 and 0"),
        (KEPT.astype("U1"), "True and False, or 1 and 0"),
        (KEPT[:4], r"shape \(4, 6\); the images' is \(3, 5, 6\)"),
        (np.zeros_like(KEPT), "erases everything"),
    ],
)
def test_arrays_that_are_no_masks_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "mine.npy", array)
    with pytest.raises(ValueError, match=message):
        open_masks([str(tmp_path / "mine.npy")], SHAPE)


def test_masks_that_are_none_are_refused(tmp_path: Path) -> None:
    Image.fromarray(KEPT.T).save(tmp_path / "turned.png")
    with pytest.raises(ValueError, match=r"turned\.png has the shape \(6, 5\)"):
        open_masks([str(tmp_path / "turned.png")], SHAPE)
    with pytest.raises(FileNotFoundError, match=r"absent\.png"):
        open_masks([str(tmp_path / "absent.png")], SHAPE)
    with pytest.raises(ValueError, match=r"center, half.* not 'centre'"):
        open_masks(["centre"], SHAPE)
    with pytest.raises(ValueError, match="two masks are called 'half'"):
        open_masks(["half", "center", "half"], SHAPE)


def test_a_file_may_have_a_name_of_its_own(tmp_path: Path) -> None:
    for folder, kept in (("a", KEPT), ("b", ~KEPT)):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "mask.npy", kept)
    np.save(tmp_path / "x=1.npy", KEPT)
    first, second, third = (str(tmp_path / name) for name in ("a/mask.npy", "b/mask.npy", "x=1.npy"))
    masks = open_masks([first, f"other one={second}", third, f"again={third}"], SHAPE)
    assert list(masks) == ["mask.npy", "other one", "x=1.npy", "again"]
    assert torch.equal(masks["mask.npy"], ~masks["other one"])
    for names, message in (
        ([first, second], r"^two masks are called 'mask.npy'; a file takes another name as NAME=FILE$"),
        ([f"x={first}", f"x={second}"], "^two masks are called 'x'; "),
        ([f"center={first}"], "^a mask file must have a name of its own, .* gives the name of another mask, 'center'$"),
        ([f"a/b={first}"], "^the name of a mask has no '/' in it, NAME=FILE; .* gives the name 'a/b'$"),
        ([f"={first}"], "^a mask file must have a name of its own, .* gives no name$"),
    ):
        with pytest.raises(ValueError, match=message):
            open_masks(names, SHAPE)
    with pytest.raises(FileNotFoundError, match=r"there is no mask file absent\.png"):
        open_masks(["mine=absent.png"], SHAPE)
