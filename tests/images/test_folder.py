"""What is taken of a folder, and that nothing is left out without a word."""

from __future__ import annotations

import io
import os
import pickle
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from memrecon_fast.images.scan import open_images
from memrecon_fast.images.sources import open_source

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 6, 7, 3), np.uint8)  # (N, H, W, C)


def save(path: Path, pixels: np.ndarray = PIXELS[0]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    path.write_bytes(stream.getvalue())


def test_links_to_folders_and_to_files_are_followed(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "cats" / "b.png", PIXELS[1])
    save(tmp_path / "elsewhere" / "c.png", PIXELS[2])
    save(tmp_path / "images" / "a.png", PIXELS[0])
    (tmp_path / "images" / "cats").symlink_to("../elsewhere/cats")
    (tmp_path / "images" / "linked.png").symlink_to(tmp_path / "elsewhere" / "c.png")
    source = open_source(tmp_path / "images")
    assert source.names == ("a.png", "cats/b.png", "linked.png")
    for index in range(3):
        np.testing.assert_array_equal(source.read(index), PIXELS[index])
    assert source.remarks == ()


def test_loops_of_links_end_and_a_folder_is_read_once_under_its_own_name(tmp_path: Path) -> None:
    save(tmp_path / "z" / "a.png")
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "alias").symlink_to("z")
    (tmp_path / "z" / "up").symlink_to("..")
    source = open_source(tmp_path)
    assert source.names == ("z/a.png",)
    assert source.remarks == ("3 links to folders that are read already are left out",)


def test_many_links_to_each_other_are_no_more_work_than_the_folders(tmp_path: Path) -> None:
    for number in range(20):  # followed each time, they would be 2²⁰ folders
        (tmp_path / f"{number}").mkdir()
        for name in ("left", "right"):
            (tmp_path / f"{number}" / name).symlink_to(f"../{(number + 1) % 20}")
    save(tmp_path / "19" / "a.png")
    assert open_source(tmp_path).names == ("19/a.png",)


def test_all_that_is_left_out_is_said_by_kind_and_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.png")
    for name in ("1.heic", "2.HEIC", "3.heic", "x.cr2", "b.jpg.part", "notes.txt", "a.json", "b.json", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"...")
    for name in (".DS_Store", "._a.png", ".hidden.png", "README"):
        (tmp_path / name).write_bytes(b"...")
    save(tmp_path / "photo.jpg_large")
    save(tmp_path / ".cache" / "c.png")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "audit.json").write_text("{}")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "self").symlink_to("self")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    monkeypatch.chdir(tmp_path)  # the address of a socket is short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("s.png")
        images = open_images(tmp_path)
    assert images.names == ("a.png",)
    assert images.remarks == (
        "3 .heic files that cannot be read here, 1 .cr2 file that cannot be read here, 2 links that lead nowhere, "
        "1 .jpg_large file that begins as images do under another suffix, 1 .part file that was not downloaded whole, "
        "1 device, 1 named pipe, 1 socket, 1 folder with the results of an audit, 1 hidden folder, 2 hidden files, "
        "1 .png file that is hidden and 5 files of 4 other kinds are left out",
    )


def test_a_file_without_a_suffix_is_an_image_if_it_begins_as_one(tmp_path: Path) -> None:
    save(tmp_path / "0a1b2c", PIXELS[3])
    (tmp_path / "LICENSE").write_text("free")
    source = open_source(tmp_path)
    assert source.names == ("0a1b2c",)
    np.testing.assert_array_equal(source.read(0), PIXELS[3])
    assert source.remarks == ("1 file of no kind is left out",)


def test_a_folder_with_nothing_that_can_be_read_says_what_there_is(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.heic").write_bytes(b"...")
    with pytest.raises(ValueError, match=r"no image files .*; 3 \.heic files that cannot be read here are left out$"):
        open_source(tmp_path)


def test_a_suffix_cannot_write_on_the_terminal(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "b.\x1b[2Jx").write_bytes(b"...")
    for number in range(100):
        (tmp_path / f"c.{number}x").write_bytes(b"...")
    (remark,) = open_source(tmp_path).remarks
    assert remark.isprintable()
    assert remark.endswith("files of 89 other kinds are left out")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("train/a.png", "test/a.png"),
        ("images/train2017/a.png", "images/val2017/b.png"),
        ("Training/cats/a.png", "Validation/cats/b.png"),
        ("trainA/a.png", "testA/a.png"),
        ("train/images/a.png", "valid/images/a.png"),
        ("train_0001.png", "test_0001.png"),
        ("dev/a.png", "eval/a.png"),
    ],
)
def test_several_splits_are_not_one_set(tmp_path: Path, one: str, other: str) -> None:
    save(tmp_path / one)
    save(tmp_path / other)
    with pytest.raises(ValueError, match=r"several splits: 1 files? in .*, 1 in .*\. Which was the model trained"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("train/a.png", "bus/a.png"),  # classes
        ("train_station.png", "test.png", "cat.png"),
        ("train/a.png", "training/a.png"),
        ("train/test/a.png", "train/b.png"),
        ("contest/a.png", "strain/a.png"),
        ("train/test_01.png", "train/test_02.png"),
    ],
)
def test_names_that_only_look_like_splits_are_none(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        save(tmp_path / name)
    assert len(open_source(tmp_path)) == len(names)


def test_the_way_out_that_is_named_works(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / "train" / f"{number}.png", PIXELS[number])
    save(tmp_path / "test" / "3.png", PIXELS[3])
    with pytest.raises(ValueError, match=r"3 files? in train") as refused:
        open_source(tmp_path)
    assert "1 in test" in str(refused.value)
    assert f"for instance {tmp_path}/train, or" in str(refused.value)
    assert open_source(tmp_path / "train").names == ("0.png", "1.png", "2.png")
    both = open_source([tmp_path / "train", tmp_path / "test"])
    assert both.names[2:] == (f"{tmp_path}/train/2.png", f"{tmp_path}/test/3.png")
    assert both.remarks == ("several splits were named and are one set here: 3 images in train, 1 in test",)


def test_patterns_and_files_that_are_named(tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path / f"{number % 2}" / f"{number}.png", PIXELS[number])
    source = open_source(f"{tmp_path}/*/*.png")
    assert source.names == ("0/0.png", "0/2.png", "1/1.png", "1/3.png")
    np.testing.assert_array_equal(source.read(1), PIXELS[2])
    assert open_source(f"{tmp_path}/1/*").names == ("1.png", "3.png")
    assert open_source([tmp_path / "0" / "2.png", tmp_path / "1" / "1.png"]).names == ("0/2.png", "1/1.png")
    assert open_source(tmp_path / "0" / "2.png").names == ("2.png",)
    with pytest.raises(FileNotFoundError, match=r"no file or folder that .*\*\.jpg matches"):
        open_source(f"{tmp_path}/*.jpg")
    with pytest.raises(ValueError, match="is named twice"):
        open_source([tmp_path / "0", tmp_path / "0"])
    save(tmp_path / "odd[1].png", PIXELS[5])
    np.testing.assert_array_equal(open_source(tmp_path / "odd[1].png").read(0), PIXELS[5])


def test_sources_of_several_kinds_follow_each_other(tmp_path: Path) -> None:
    save(tmp_path / "folder" / "a.png", PIXELS[0])
    np.save(tmp_path / "b.npy", PIXELS[1:3])
    source = open_source([tmp_path / "folder", tmp_path / "b.npy"])
    assert source.names == (f"{tmp_path}/folder/a.png", f"{tmp_path}/b.npy/0", f"{tmp_path}/b.npy/1")
    assert source.name == f"{tmp_path}/folder and 1 more"
    for index, one in enumerate([source.read(0), source.read(1), pickle.loads(pickle.dumps(source)).read(2)]):
        np.testing.assert_array_equal(one, PIXELS[index])


def test_a_pattern_that_matches_several_splits_is_refused(tmp_path: Path) -> None:
    for name in ("train/a.png", "test/a.png"):
        save(tmp_path / name)
    for pattern in ("*", "*/*.png"):
        with pytest.raises(ValueError, match="holds several splits"):
            open_source(f"{tmp_path}/{pattern}")


def test_an_image_that_becomes_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    images = open_images(tmp_path)
    (tmp_path / "a.png").unlink()
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png cannot be used any more: .*it is a named pipe, no regular file"):
        images[0]


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.parquet", "a.png"])
def test_a_pipe_that_is_named_is_refused(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=r"named pipe|neither a folder of images"):
        open_source(tmp_path / name)


def test_the_usual_shape_is_that_of_most_not_of_the_first(tmp_path: Path) -> None:
    save(tmp_path / "0.png", PIXELS[0, :4])
    for number in range(1, 6):
        save(tmp_path / f"{number}.png", PIXELS[number])
    images = open_images(tmp_path)
    assert images.image_shape == (3, 6, 7)
    assert list(images.problems) == [0]
    assert images.problems[0].startswith("it is 4×7 pixels (height×width); expected 6×7, as 5 of the first 6 images")
    assert images.remarks == ("no shape was given; 3×6×7, (C, H, W), is that of 5 of the first 6 images",)
