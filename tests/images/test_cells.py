"""What a column of a Parquet file may hold as images."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from memrecon_fast.images import parquet
from memrecon_fast.images.scan import scan
from memrecon_fast.images.sources import NOISY_PIXEL_RANGE, open_source

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), np.uint8)  # (N, H, W, C)


def file_of(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


FILES = [file_of(pixels) for pixels in PIXELS]
LARGE = pa.struct([("bytes", pa.large_binary()), ("path", pa.string())])
BYTES_AND_PATH = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(path: Path, column: pa.Array, name: str = "image", **others: Any) -> Path:
    pq.write_table(pa.table({name: column, **others}), path, row_group_size=2)
    return path


def check(path: Path) -> None:
    source = open_source(path)
    assert len(source) == len(PIXELS)
    for index, pixels in enumerate(PIXELS):
        np.testing.assert_array_equal(source.read(index), pixels)


@pytest.mark.parametrize(
    "column",
    [
        pa.array(FILES).dictionary_encode(),
        pa.array(FILES, pa.binary_view()),
        pa.array(FILES, pa.large_binary()),
        pa.array([{"bytes": one, "path": None} for one in FILES], LARGE),
        pa.array(PIXELS.tolist(), pa.list_(pa.list_(pa.list_(pa.uint8())))),
        pa.array(PIXELS.tolist(), pa.large_list(pa.list_(pa.list_(pa.int64(), 3), 7))),
        pa.array(PIXELS.transpose(0, 3, 1, 2).tolist(), pa.list_(pa.list_(pa.list_(pa.int32())))),
        pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(PIXELS)),
        pa.array([base64.b64encode(one).decode() for one in FILES]),
        pa.array([base64.b64encode(one).decode() for one in FILES], pa.string_view()),
        pa.array([f"data:image/png;base64,{base64.b64encode(one).decode()}" for one in FILES]).dictionary_encode(),
    ],
    ids=[
        "categories",
        "views",
        "large",
        "large struct",
        "lists",
        "fixed lists",
        "channels first",
        "tensors",
        "base64",
        "base64 views",
        "data URLs",
    ],
)  # fmt: skip
def test_what_is_read(tmp_path: Path, column: pa.Array) -> None:
    try:
        path = write(tmp_path / "a.parquet", column, label=list(range(5)))
    except pa.ArrowNotImplementedError as error:  # so it can be in no file of this pyarrow
        pytest.skip(str(error))
    check(path)


def test_grey_and_float_pixels(tmp_path: Path) -> None:
    grey = PIXELS[..., 0].tolist()
    source = open_source(write(tmp_path / "grey.parquet", pa.array(grey, pa.list_(pa.list_(pa.uint8())))))
    np.testing.assert_array_equal(source.read(1), PIXELS[1, :, :, :1])
    floats = (PIXELS / np.float32(255)).astype(np.float32)
    column = pa.array(floats.tolist(), pa.list_(pa.list_(pa.list_(pa.float32()))))
    np.testing.assert_array_equal(open_source(write(tmp_path / "f.parquet", column)).read(2), floats[2])
    noisy = pa.array((floats - 0.5).tolist(), column.type)
    with pytest.raises(ValueError, match=r"it has a pixel of .*; float pixels must lie in \[0, 1\]"):
        open_source(write(tmp_path / "n.parquet", noisy)).read(0)
    noisy_source = open_source(tmp_path / "n.parquet", NOISY_PIXEL_RANGE)
    np.testing.assert_allclose(noisy_source.read(0), floats[0] - 0.5, atol=1e-6)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        ([[[1, 2, 3], [1, 2, 3]], [[1, 2, 3]]], "its lists of pixels are not all of one length"),
        ([[[1, 2, 300]]], "it has pixels from 1 to 300; whole numbers must be 0 to 255"),
        ([[[1, 2, None]]], "entries without a value"),
        ([[[1, 2], [1, 2]]] * 2, "no axis of one or three channels"),
        (None, "its cell holds no bytes"),
    ],
)
def test_pixels_that_are_none(tmp_path: Path, pixels: Any, message: str) -> None:
    column = pa.array([pixels], pa.list_(pa.list_(pa.list_(pa.int64()))))
    with pytest.raises(ValueError, match=message):
        open_source(write(tmp_path / "a.parquet", column)).read(0)


def test_paths_lead_to_regular_files_below_the_folder_alone(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "0.png").write_bytes(FILES[0])
    (tmp_path / "secret.png").write_bytes(FILES[1])
    (folder / "link.png").symlink_to("../secret.png")
    os.mkfifo(folder / "pipe.png")
    paths = ["images/0.png", "../secret.png", str(tmp_path / "secret.png"), "link.png", "pipe.png", "absent.png"]
    paths += ["https://example.org/a.png", "a\0b", "/etc/passwd"]
    images = scan(open_source(write(folder / "a.parquet", pa.array(paths), "image")))
    assert images.usable() == [0]
    for index in (1, 2, 3, 7, 8):
        assert images.problems[index].endswith("that leads out of the folder of the Parquet file")
    assert images.problems[4].endswith("it is a named pipe, no regular file")
    assert images.problems[5].endswith("the file 'absent.png' cannot be read: No such file or directory")
    assert images.problems[6] == "it is an address, 'https://example.org/a.png'; nothing is downloaded"
    struct = pa.array(
        [{"bytes": None, "path": "images/0.png"}, {"bytes": None, "path": "../secret.png"}], BYTES_AND_PATH
    )
    images = scan(open_source(write(folder / "b.parquet", struct)))
    assert images.usable() == [0]
    assert images.problems[1].endswith("that leads out of the folder of the Parquet file")


def test_a_column_of_images_comes_before_text(tmp_path: Path) -> None:
    check(write(tmp_path / "a.parquet", pa.array(FILES), "blob", file_name=[f"{row}.png" for row in range(5)]))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_by_their_exif_orientation_as_datasets_does(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = PIXELS[0]
    stored = {  # what Image.transpose makes of it when the orientation is applied is `upright`
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
        6: np.rot90(upright), 7: np.rot90(upright[:, ::-1], -1), 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    content = file_of(np.ascontiguousarray(stored), exif=exif)
    path = write(tmp_path / "a.parquet", pa.array([content]))
    images = scan(open_source(path), (3, 6, 7))
    np.testing.assert_array_equal(images[0].mul(255).round().byte().permute(1, 2, 0).numpy(), upright)
    assert images.remarks == (() if orientation == 1 else images.remarks[:1])
    if orientation > 1:
        assert "1 of 1 images carry an EXIF orientation and are turned as it says" in images.remarks[0]


def test_an_orientation_that_is_not_applied_is_said(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a.png").write_bytes(file_of(PIXELS[0], exif=exif))
    (tmp_path / "b.png").write_bytes(FILES[1])
    images = scan(open_source(tmp_path))
    np.testing.assert_array_equal(images.source.read(0), PIXELS[0])
    assert images.remarks == (
        "1 of 2 images carry an EXIF orientation, which is not applied (as in torchvision; the library datasets "
        "applies it)",
    )


def test_parquet_files_of_several_splits_are_not_one_set(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name, rows in (("train-00000-of-00002", [0, 1]), ("train-00001-of-00002", [2, 3]), ("test-0", [4])):
        write(tmp_path / "data" / f"{name}.parquet", pa.array([FILES[row] for row in rows]))
    with pytest.raises(ValueError, match=r"2 files in data/train\*\.parquet, 1 in data/test\*\.parquet") as refused:
        open_source(tmp_path)
    assert f"for instance '{tmp_path}/data/train*.parquet'" in str(refused.value)
    with pytest.raises(ValueError, match="several splits"):
        open_source(f"{tmp_path}/data/*.parquet")
    source = open_source(f"{tmp_path}/data/train*.parquet")
    assert len(source) == 4
    np.testing.assert_array_equal(source.read(3), PIXELS[3])
    assert len(open_source([f"{tmp_path}/data/train*.parquet", f"{tmp_path}/data/test-0.parquet"])) == 5


def test_rows_of_several_splits_are_not_one_set(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", pa.array(FILES), split=["train", "test", "train", "train", "test"])
    with pytest.raises(ValueError, match=r"several splits: 3 rows of 'train', 2 rows of 'test'; name one"):
        open_source(path)
    source = open_source(f"{path}:train")
    assert source.names == ("a.parquet:0", "a.parquet:2", "a.parquet:3")
    np.testing.assert_array_equal(source.read(2), PIXELS[3])
    with pytest.raises(ValueError, match=r"no rows of the split 'val', but 3 rows of 'train'"):
        open_source(f"{path}:val")
    check(write(tmp_path / "b.parquet", pa.array(FILES), split=["train"] * 5))


def test_a_placeholder_and_an_empty_file_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    with pytest.raises(ValueError, match="it is a Git LFS pointer, not the file itself"):
        open_source(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be read as a Parquet file: it is empty"):
        open_source(tmp_path / "b.parquet")


def test_columns_that_expand_without_measure_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_LARGE", 2**20)
    huge = pa.array([bytes(2 * 2**20), b"a"])
    pq.write_table(pa.table({"image": huge}), tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 10_000
    with pytest.raises(ValueError, match=r"may be a decompression bomb: 2\.1 MB of its column image come from .*bytes"):
        open_source(tmp_path / "a.parquet")
    pq.write_table(pa.table({"image": huge}), tmp_path / "a.parquet", compression="none")
    assert len(open_source(tmp_path / "a.parquet")) == 2


def test_a_large_value_of_a_dictionary_is_not_repeated_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a dictionary, each row may be its largest value: few rows are read at a time."""
    monkeypatch.setattr(parquet, "_LARGE", 2**24)
    value = np.random.default_rng(0).bytes(2**22)
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 200, pa.int32()), pa.array([value]))
    table = pa.table({"image": column})
    pq.write_table(table, tmp_path / "a.parquet", dictionary_pagesize_limit=2**26, store_schema=False)
    del table, column
    source = open_source(tmp_path / "a.parquet")
    before = pa.total_allocated_bytes()
    with pytest.raises(ValueError, match="format is unknown"):
        source.read(0)
    assert pa.total_allocated_bytes() - before < 2**25


def test_rows_that_a_file_cannot_hold_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": pa.nulls(10**6, pa.binary())}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"declares 1000000 rows, which .* (kB|bytes) cannot hold"):
        open_source(tmp_path / "a.parquet")


def test_lists_with_more_numbers_than_an_image_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal numbers take no room in the file."""
    monkeypatch.setattr(parquet, "MAX_CELL", 2**16)
    column = pa.array([np.zeros((2**7, 2**7, 8), np.uint8).tolist()], pa.list_(pa.list_(pa.list_(pa.uint8()))))
    pq.write_table(pa.table({"image": column}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="may be a decompression bomb: 131 kB of its column image come from"):
        open_source(tmp_path / "a.parquet")
