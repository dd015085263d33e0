from __future__ import annotations

import dataclasses
import hashlib
import pickle
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from memrecon_fast.images.decode import printable
from memrecon_fast.images.scan import (
    Images,
    average_cells,
    open_images,
    read_images,
    scan,
    typical_problem,
    write_images,
)
from memrecon_fast.images.sources import Source, from_array

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), np.uint8)  # (N, H, W, C)
IMAGES = torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float() / 255


def source_of(*images: np.ndarray | str) -> Source:
    """Images in memory; a text is what is wrong with one."""

    def read(index: int) -> np.ndarray:
        image = images[index]
        if isinstance(image, str):
            raise ValueError(image)
        return image

    return Source(tuple(f"{letter}.png" for letter in "abcdefghij"[: len(images)]), read)


def save_folder(folder: Path) -> None:
    for name, pixels in zip("abcde", PIXELS, strict=True):
        Image.fromarray(pixels).save(folder / f"{name}.png")


def test_images_are_read_as_float32_with_their_channels_first(tmp_path: Path) -> None:
    save_folder(tmp_path)
    images = open_images(tmp_path)
    assert (len(images), images.image_shape, images.problems) == (5, (3, 6, 7), {})
    assert images.names == ("a.png", "b.png", "c.png", "d.png", "e.png")
    assert images.usable() == [0, 1, 2, 3, 4]
    assert images[2].dtype == torch.float32
    assert images[2].is_contiguous()
    torch.testing.assert_close(images.stack(), IMAGES, rtol=0, atol=0)


def test_float32_images_stay_as_they_are() -> None:
    array = IMAGES.numpy()
    array.setflags(write=False)
    images = scan(from_array(array))
    torch.testing.assert_close(images.stack(), IMAGES, rtol=0, atol=0)
    images[0].zero_()  # is the caller's own
    torch.testing.assert_close(images[0], IMAGES[0], rtol=0, atol=0)


def test_the_hash_is_of_the_pixels_however_they_are_stored(tmp_path: Path) -> None:
    save_folder(tmp_path)
    channels_first = np.ascontiguousarray(PIXELS.transpose(0, 3, 1, 2))
    of_files, of_array = open_images(tmp_path).sha256, scan(from_array(channels_first)).sha256
    assert of_files == of_array
    assert of_files[1] == hashlib.sha256(b"uint8 (3, 6, 7)" + channels_first[1].tobytes()).hexdigest()
    assert len(set(of_files)) == 5


def test_the_digest_tells_images_names_and_problems_apart() -> None:
    digests = {
        images.digest()
        for images in (
            scan(source_of(*PIXELS[:3])),
            scan(source_of(*PIXELS[:2])),
            scan(source_of(*PIXELS[[1, 0, 2]])),
            scan(source_of(*PIXELS[:2], "it is damaged")),
            scan(source_of(*PIXELS[:2], "it is gone")),
            scan(dataclasses.replace(source_of(*PIXELS[:3]), names=("a.png", "b.png", "other.png"))),
        )
    }
    assert len(digests) == 6
    assert scan(source_of(*PIXELS[:3])).digest() in digests


def test_an_image_that_cannot_be_used_keeps_its_place() -> None:
    images = scan(source_of("it is damaged", PIXELS[1], "it has several frames", PIXELS[3]))
    assert len(images) == 4
    assert images.usable() == [1, 3]
    assert dict(images.problems) == {0: "it is damaged", 2: "it has several frames"}
    assert (images.sha256[0], images.sha256[2]) == ("", "")
    assert not images.thumbnails[[0, 2]].any()
    torch.testing.assert_close(images[3], IMAGES[3], rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"^c\.png cannot be used: it has several frames$"):
        images[2]
    with pytest.raises(ValueError, match=r"^a\.png cannot be used: it is damaged$"):
        images.stack()


def test_an_index_that_is_none_is_refused() -> None:
    images = scan(source_of(*PIXELS))
    for index in (5, -1):
        with pytest.raises(IndexError, match=f"there are 5 images, and none with index {index}"):
            images[index]


@pytest.mark.parametrize(
    ("odd", "image_shape", "problem"),
    [
        (
            PIXELS[0, :5],
            None,
            "it is 5×7 pixels (height×width); expected 6×7, as the first image, a.png (--resize 6x7 would change that)",
        ),
        (
            PIXELS[0, :, :6],
            (3, 6, 7),
            "it is 6×6 pixels (height×width); expected 6×7, as the model (--resize 6x7 would change that)",
        ),
    ],
)
def test_an_image_of_another_size_says_what_was_expected(
    odd: np.ndarray, image_shape: tuple[int, int, int] | None, problem: str
) -> None:
    images = scan(source_of(PIXELS[0], odd, PIXELS[2]), image_shape)
    assert dict(images.problems) == {1: problem}


def test_a_greyscale_image_among_colour_ones_gets_three_channels() -> None:
    images = scan(source_of(PIXELS[0], PIXELS[1, :, :, :1]))
    torch.testing.assert_close(images[1], IMAGES[1, :1].expand(3, 6, 7), rtol=0, atol=0)
    assert scan(source_of(PIXELS[1, :, :, :1]), (3, 6, 7)).sha256[0] == images.sha256[1]


def test_a_colour_image_among_greyscale_ones_cannot_be_used() -> None:
    images = scan(source_of(PIXELS[0, :, :, :1], PIXELS[1]))
    assert images.image_shape == (1, 6, 7)
    assert dict(images.problems) == {1: "it is in colour; expected greyscale, as the first image, a.png"}
    images = scan(source_of(PIXELS[1], PIXELS[0, :, :, :1]), (1, 6, 7))
    assert dict(images.problems) == {0: "it is in colour; expected greyscale, as the model"}


@pytest.mark.parametrize("channels", [1, 3])
def test_uint8_images_are_resized_by_pillow(channels: int) -> None:
    large = np.random.default_rng(1).integers(0, 256, (20, 30, channels), np.uint8)
    images = scan(source_of(PIXELS[0, :, :, :channels], large), resize=(6, 7))
    mode = large[:, :, 0] if channels == 1 else large
    expected = np.asarray(Image.fromarray(mode).resize((7, 6), Image.Resampling.LANCZOS)).reshape(6, 7, channels)
    torch.testing.assert_close(images[1], torch.from_numpy(expected.copy()).permute(2, 0, 1).float() / 255)
    torch.testing.assert_close(images[0], IMAGES[0, :channels], rtol=0, atol=0)  # has the size already


def test_the_filter_that_resizes_is_chosen_and_said() -> None:
    large = np.random.default_rng(1).integers(0, 256, (20, 30, 1), np.uint8)
    images = scan(source_of(PIXELS[0, :, :, :1], large), resize=(6, 7, "bilinear"))
    expected = np.asarray(Image.fromarray(large[:, :, 0]).resize((7, 6), Image.Resampling.BILINEAR))
    torch.testing.assert_close(images[1][0], torch.from_numpy(expected.copy()).float() / 255)
    (remark,) = images.remarks
    assert remark.startswith("1 of 2 images were resized by bilinear: where the model was trained on images that")
    assert scan(source_of(*PIXELS), resize=(6, 7)).remarks == ()
    with pytest.raises(ValueError, match="there is no filter 'cubic'; expected one of lanczos, bicubic, bilinear"):
        scan(source_of(*PIXELS), resize=(6, 7, "cubic"))


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "all" / "some").mkdir(parents=True)
    for name in ("a.png", "some/b.png"):
        Image.fromarray(PIXELS[0]).save(tmp_path / "all" / name)
    with pytest.raises(ValueError, match=r"2 images are called .*/all/some/b\.png: one file was named twice"):
        open_images([tmp_path / "all", tmp_path / "all" / "some"])
    source = from_array(PIXELS[:2])
    with pytest.raises(ValueError, match=r"2 images are called \\xff\.png"):
        scan(dataclasses.replace(source, names=(printable("\udcff.png"), r"\xff.png")))


def test_names_that_look_alike_are_told() -> None:
    source = from_array(PIXELS[:4])
    names = ("caf\u00e9.png", "cafe\u0301.png", "CAFE.png", "cafe.png")
    assert scan(dataclasses.replace(source, names=names)).remarks == (
        "several images have names that look the same, caf\u00e9.png, in other characters of Unicode",
    )
    assert scan(dataclasses.replace(source, names=names[1:])).remarks == ()


def test_float32_images_are_resized_and_stay_in_range() -> None:
    edge = np.zeros((12, 12, 3), np.float32)
    edge[:, 6:] = 1  # Lanczos' filter overshoots there
    images = scan(source_of(edge), resize=(7, 9))
    assert images.image_shape == (3, 7, 9)
    assert images[0].min() == 0
    assert images[0].max() == 1
    unclipped = np.asarray(Image.fromarray(edge[:, :, 0]).resize((9, 7), Image.Resampling.LANCZOS))
    assert unclipped.max() > 1
    np.testing.assert_array_equal(images[0][1], unclipped.clip(0, 1))


def test_a_size_that_the_model_does_not_take_is_refused() -> None:
    with pytest.raises(ValueError, match="images of 8×8 do not fit; expected 6×7, as the model"):
        scan(source_of(*PIXELS), (3, 6, 7), resize=(8, 8))
    with pytest.raises(ValueError, match="the width to resize to must be at least 1"):
        scan(source_of(*PIXELS), resize=(8, 0))


def test_the_first_so_many() -> None:
    images = scan(source_of(PIXELS[0], "it is damaged", PIXELS[2]), limit=2)
    assert images.names == ("a.png", "b.png")
    assert images.usable() == [0]
    assert len(scan(source_of(*PIXELS), limit=9)) == 5
    with pytest.raises(ValueError, match="limit must be at least 1"):
        scan(source_of(*PIXELS), limit=0)


def test_where_no_image_can_be_used_the_first_says_why() -> None:
    with pytest.raises(ValueError, match=r"^none of the 2 images can be used; a\.png: it is damaged$"):
        scan(source_of("it is damaged", "it is gone"))
    with pytest.raises(ValueError, match=r"^the only image cannot be used; a\.png: it is 6×7 pixels"):
        scan(source_of(PIXELS[0]), (3, 8, 8))
    with pytest.raises(ValueError, match="there are no images"):
        scan(source_of())


@pytest.mark.parametrize("shape", [(6, 7, 3), (5, 7, 3), (6, 7, 1)])
def test_an_image_that_has_changed_since_is_refused_by_name(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    save_folder(tmp_path)
    images = open_images(tmp_path)
    Image.fromarray(PIXELS[0][: shape[0], :, : shape[2]].squeeze()).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"^b\.png has changed since the audit began$"):
        images[1]
    (tmp_path / "c.png").unlink()
    with pytest.raises(ValueError, match=r"^c\.png cannot be used any more: it cannot be read: No such file"):
        images[2]


def test_progress_counts_the_images_and_the_order_is_kept() -> None:
    """However long each takes."""
    delays = np.random.default_rng(0).random(5) / 50

    def read(index: int) -> np.ndarray:
        time.sleep(delays[index])
        pixels: np.ndarray = PIXELS[index]
        return pixels

    counted: list[int] = []
    images = scan(Source(tuple("abcde"), read), progress=counted.append)
    assert counted == [1, 2, 3, 4, 5]
    assert images.sha256 == scan(source_of(*PIXELS)).sha256


def test_threads_stay_a_few_images_ahead() -> None:
    begun: list[int] = []

    def read(index: int) -> np.ndarray:
        begun.append(index)
        return np.zeros((6, 7, 3), np.uint8)

    ahead: list[int] = []
    scan(Source(tuple(map(str, range(1000))), read), progress=lambda count: ahead.append(len(begun) - count))
    assert max(ahead) <= (2 * 8 + 1) * 8


def test_what_ends_a_scan_ends_its_threads() -> None:
    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(source_of(*PIXELS), progress=stop)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("memrecon-scan")]


def test_images_can_be_sent_to_other_processes(tmp_path: Path) -> None:
    save_folder(tmp_path)
    sent: Images = pickle.loads(pickle.dumps(open_images(tmp_path)))
    torch.testing.assert_close(sent.stack(), IMAGES, rtol=0, atol=0)


def test_averages_over_cells() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 16, 24), np.uint8)
    expected = image.reshape(3, 8, 2, 8, 3).mean(axis=(2, 4)) / 255
    np.testing.assert_allclose(average_cells(image), expected, rtol=1e-12)
    np.testing.assert_allclose(average_cells((image / 255).astype(np.float32)), expected, rtol=1e-6)
    small = average_cells(image[:, :3, :8])
    np.testing.assert_allclose(small[:, [2, 5, 7]], image[:, :3, :8] / 255)
    assert not small[:, [0, 1, 3, 4, 6]].any()  # no pixel lies in these cells


def test_a_large_image_is_averaged_strip_by_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 37, 24), np.uint8)
    whole = average_cells(image)
    monkeypatch.setattr(sys.modules["memrecon_fast.images.scan"], "_STRIP", 24 * 5)
    np.testing.assert_allclose(average_cells(image), whole, rtol=1e-12)


def test_the_images_of_an_audit_are_written_and_read(tmp_path: Path) -> None:
    members = scan(source_of("it is damaged", *PIXELS[:2]))
    controls = scan(source_of(*PIXELS[2:4]))
    write_images(tmp_path / "images.parquet", {"members": members, "controls": controls}, {1: 2})
    columns = read_images(tmp_path / "images.parquet")
    assert {name: column.tolist() for name, column in columns.items()} == {
        "split": ["members"] * 3 + ["controls"] * 2,
        "index": [0, 1, 2, 0, 1],
        "name": ["a.png", "b.png", "c.png", "a.png", "b.png"],
        "sha256": [*members.sha256, *controls.sha256],
        "problem": ["it is damaged", None, None, None, None],
        "near_duplicate_of": [None, None, None, None, "c.png"],
    }
    first = (tmp_path / "images.parquet").read_bytes()
    write_images(tmp_path / "images.parquet", {"members": members, "controls": controls}, {1: 2})
    assert (tmp_path / "images.parquet").read_bytes() == first


def test_the_file_of_images_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(table: Any, path: Path) -> None:
        path.write_text("half of it")
        raise OSError("no space left")

    images = scan(source_of(*PIXELS))
    write_images(tmp_path / "images.parquet", {"members": images}, {})
    before = (tmp_path / "images.parquet").read_bytes()
    monkeypatch.setattr("pyarrow.parquet.write_table", fail)
    with pytest.raises(OSError, match="no space left"):
        write_images(tmp_path / "images.parquet", {"members": images}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["images.parquet"]
    assert (tmp_path / "images.parquet").read_bytes() == before


def test_other_files_are_no_images_of_an_audit(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "text.parquet").write_text("no table")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match=r"text\.parquet cannot be read as the images of an audit"):
        read_images(tmp_path / "text.parquet")
    with pytest.raises(ValueError, match=r"absent\.parquet cannot be read .* No such file"):
        read_images(tmp_path / "absent.parquet")
    with pytest.raises(ValueError, match=r"other\.parquet holds no images of an audit: its columns are a"):
        read_images(tmp_path / "other.parquet")


def test_the_typical_problem_is_that_of_most_whatever_its_numbers() -> None:
    odd = [np.zeros((height, 7, 3), np.uint8) for height in (5, 9)]
    images = scan(source_of("it is damaged", *odd, PIXELS[0]), (3, 6, 7), expecting="as the members")
    assert typical_problem(images) == 1
    with pytest.raises(ValueError, match=r"b\.png cannot be used: it is 5×7 .*expected 6×7, as the members"):
        images[1]
