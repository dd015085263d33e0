"""NumPy's files say how large they are: it is compared with what there is before memory is taken."""

from __future__ import annotations

import os
import pickle
import re
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memrecon_fast.images.arrays import CLIPPED
from memrecon_fast.images.numpy_files import read_array
from memrecon_fast.images.scan import NEARLY_BLACK, scan
from memrecon_fast.images.sources import from_array, open_source

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), np.uint8)  # (N, H, W, C)


def header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize("shape", [(10**12, 3, 6, 7), (2**62, 2**62, 4, 4), (6, 3, 6, 7)])
def test_a_header_that_declares_more_than_there_is(tmp_path: Path, shape: tuple[int, ...]) -> None:
    (tmp_path / "a.npy").write_bytes(header(shape) + PIXELS.tobytes())
    with pytest.raises(ValueError, match=r"its header declares uint8 \(.*, .*, and the file has 7.. bytes"):
        open_source(tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", header(shape) + PIXELS.tobytes())
    with pytest.raises(ValueError, match=r"the header of 'images\.npy' declares uint8 \(.*, and there are 7.. bytes"):
        open_source(tmp_path / "a.npz")


def test_an_archive_for_which_there_is_no_memory_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "a.npz", np.zeros((1000, 100, 100, 3), np.uint8))
    assert (tmp_path / "a.npz").stat().st_size < 100_000
    monkeypatch.setattr("memrecon_fast.images.numpy_files.available_memory", lambda: 20 * 10**6)
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(ValueError, match=r"'arr_0\.npy' takes 30 MB of memory, and 20 MB are free; saved as"):
        open_source(tmp_path / "a.npz")


def test_of_an_archive_the_only_array_of_images_is_taken(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", train_labels=np.arange(5), train_images=PIXELS, names=np.array(["a"], dtype=object))
    source = open_source(tmp_path / "a.npz")
    np.testing.assert_array_equal(source.read(2), PIXELS[2])
    assert source.remarks == ("train_images was taken, the only array of images beside train_labels, names",)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_an_archive_with_one_name_for_two_arrays_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for pixels in (PIXELS, PIXELS[::-1]):
            with archive.open("x.npy", "w") as file:
                np.save(file, pixels)
        with archive.open("y.npy", "w") as file:
            np.save(file, PIXELS)
    for name in ("a.npz:x", "a.npz:x.npy"):
        with pytest.raises(ValueError, match=r"it holds 2 arrays that are called 'x\.npy', which may differ"):
            open_source(tmp_path / name)
    np.testing.assert_array_equal(open_source(tmp_path / "a.npz:y").read(0), PIXELS[0])
    both: dict[str, Any] = {"x": PIXELS, "x.npy": PIXELS[::-1]}
    np.savez(tmp_path / "b.npz", **both)
    np.testing.assert_array_equal(open_source(tmp_path / "b.npz:x").read(0), PIXELS[0])
    with pytest.raises(ValueError, match=r"it holds both x\.npy and x\.npy\.npy, which may be meant by 'x\.npy'"):
        open_source(tmp_path / "b.npz:x.npy")


def test_of_several_arrays_of_images_one_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", train_images=PIXELS, test_images=PIXELS[::-1], train_labels=np.arange(5))
    message = r"it holds 3 arrays, 2 of which may be images; name one, FILE\.npz:NAME, of 'train_images' \(uint8 \(5,"
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path / "a.npz")
    source = open_source(f"{tmp_path}/a.npz:test_images")
    np.testing.assert_array_equal(source.read(0), PIXELS[4])
    assert source.remarks == ()
    with pytest.raises(ValueError, match=r"it holds no 'val_images'; expected one of 'train_images' \(uint8"):
        open_source(f"{tmp_path}/a.npz:val_images")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "it is a Git LFS pointer"),
        (header((5, 6, 7, 3), "|O"), "it holds Python objects, which are not unpickled"),
        (header((-5, 6, 7, 3)), "it"),
        (b"no array", "magic string"),
    ],
)
def test_files_that_hold_no_array_say_why(tmp_path: Path, content: bytes, message: str) -> None:
    for name in ("a.npy", "a.npz"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} cannot be read as a NumPy array: .*{message}"):
            open_source(tmp_path / name)


def test_an_array_that_becomes_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", PIXELS)
    source = open_source(tmp_path / "a.npy")
    (tmp_path / "a.npy").unlink()
    os.mkfifo(tmp_path / "a.npy")
    with pytest.raises(ValueError, match="it is a named pipe, no regular file"):
        source.read(0)


def test_what_rounding_explains_is_clipped_and_said() -> None:
    array = np.full((4, 3, 5, 5), 0.5, np.float32)
    array[1, 0, 0, 0] = np.nextafter(np.float32(1), np.float32(2))
    array[2, 0, 0, 0] = -1e-6
    array[3, 0, 0, 0] = 1.0001
    images = scan(from_array(array))
    assert images.usable() == [0, 1, 2]
    assert (images[1].max().item(), images[2].min().item()) == (1, 0)
    assert images.remarks == (f"2 of 4 images {CLIPPED}",)
    assert images.problems[3].startswith("it has a pixel of 1.0001; float pixels must lie in [0, 1]")


@pytest.mark.parametrize("descr", ["<f2", ">f2", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_floats_of_other_sizes_and_byte_orders_are_the_images_of_their_float32_copy(
    tmp_path: Path, descr: str, suffix: str, order: Any
) -> None:
    array = np.array(PIXELS / 255, descr, order=order)
    array[1, 0, 0, 0] = 0  # the largest pixel is 1, and the smallest 0
    path = tmp_path / f"a{suffix}"
    np.save(path, array) if suffix == ".npy" else np.savez(path, array)
    expected = scan(from_array(array.astype(np.float32)))
    source = open_source(path)
    for one in (source, pickle.loads(pickle.dumps(source)), from_array(array)):
        assert [one.read(index).dtype for index in range(5)] == [np.float32] * 5
        images = scan(one)
        assert (images.sha256, images.digest(), images.remarks) == (expected.sha256, expected.digest(), ())
        assert images.stack().equal(expected.stack())
    assert expected.stack().max() == 1


@pytest.mark.parametrize("descr", ["<f2", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize(("value", "said"), [(1.1, "1.09961|1.1"), (-0.5, "-0.5"), (np.nan, "nan"), (-np.inf, "-inf")])
def test_floats_of_other_sizes_outside_the_range_are_refused(descr: str, value: float, said: str) -> None:
    array = np.full((2, 3, 5, 5), 0.5, descr)
    array[1, 2, 3, 4] = value
    images = scan(from_array(array))
    assert images.usable() == [0]
    assert re.match(rf"it has a pixel of ({said}); float pixels must lie in \[0, 1\]", images.problems[1])


def test_float64_is_clipped_where_rounding_explains_it_and_may_be_beyond_float32() -> None:
    array = np.full((4, 3, 5, 5), 0.5)
    array[1:, 0, 0, 0] = 1 + 1e-12, 1 + 5e-6, 1e300
    images = scan(from_array(array))
    assert images.remarks == (f"1 of 4 images {CLIPPED}",)  # in float32 the first of them is 1
    assert [images[index].max().item() for index in (1, 2)] == [1, 1]
    assert images.problems[3].startswith("it has a pixel of inf; float pixels must lie in [0, 1]")


def test_floats_of_other_sizes_are_read_one_image_at_a_time(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((200, 3, 100, 100), ">f8"))  # 48 MB
    source = open_source(tmp_path / "a.npy")
    tracemalloc.start()
    try:
        for index in range(200):
            source.read(index)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000  # an image is 240 kB, and half of that as float32


def test_bytes_of_0_and_1_are_said_to_be_nearly_black() -> None:
    array = PIXELS // 128
    array[0] = 0  # an image may be black
    array[1, 0, 0, 0] = 2
    assert scan(from_array(array)).remarks == (f"3 of 5 images {NEARLY_BLACK}",)
    assert scan(from_array(array.astype(np.float32).clip(0, 1))).remarks == ()


@pytest.mark.parametrize(
    ("scale", "shift", "hint"),
    [
        (2, -1, "they look like -1 to 1, of which (x + 1) / 2 makes 0 to 1"),
        (255, 0, "they look like 0 to 255, of which x / 255 makes 0 to 1"),
        (4.4, -2.1, "they look as if mean and standard deviation had been made 0 and 1, which must be undone"),
    ],
)
def test_pixels_in_another_range_are_told_by_it(scale: float, shift: float, hint: str) -> None:
    array = (PIXELS / 255 * scale + shift).astype(np.float32)
    with pytest.raises(ValueError, match=f"{re.escape(hint)}$"):
        scan(from_array(array))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_grey_images_need_no_axis_for_their_channel(tmp_path: Path, suffix: str, order: Any) -> None:
    grey = np.array(PIXELS[..., 0], order=order)
    path = tmp_path / f"a{suffix}"
    np.save(path, grey) if suffix == ".npy" else np.savez(path, x_train=grey, y_train=np.arange(5))
    source = open_source(path)
    for one in (source, pickle.loads(pickle.dumps(source)), from_array(grey)):
        np.testing.assert_array_equal(one.read(3), PIXELS[3, :, :, :1])


@pytest.mark.parametrize("array", [PIXELS[0], PIXELS[:3, :, :, 0]])
def test_an_axis_that_is_missing_is_told(array: np.ndarray[Any, Any]) -> None:
    with pytest.raises(ValueError, match=r"one image, array\[None\]\? Or grey ones .* array\[:, None\]\?"):
        from_array(array)


def test_a_member_of_an_archive_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    """The directory says little, and the member expands to much: no more than it says is read."""
    content = header((5, 6, 7, 3)) + bytes(10**7)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", content)
    raw = (tmp_path / "a.npz").read_bytes()
    little = len(header((5, 6, 7, 3))) + PIXELS.size
    (tmp_path / "a.npz").write_bytes(raw.replace(struct.pack("<I", len(content)), struct.pack("<I", little)))
    with pytest.raises(ValueError, match=r"a\.npz cannot be read as a NumPy array: Bad CRC-32"):
        read_array(tmp_path / "a.npz")
    assert zlib.crc32(content) != 0
