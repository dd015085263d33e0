from __future__ import annotations

import io
import os
import pickle
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from memrecon_fast.images import parquet
from memrecon_fast.images.scan import scan
from memrecon_fast.images.sources import open_source

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 6, 7, 3), np.uint8)  # (N, H, W, C)


def file_of(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


FILES = [file_of(pixels) for pixels in PIXELS]


def cells(begin: int, end: int, path: Callable[[int], str | None] = lambda _: None) -> list[dict[str, Any]]:
    return [{"bytes": FILES[row], "path": path(row)} for row in range(begin, end)]


def save(path: Path, column: list[Any], name: str = "image", rows_in_group: int = 10, **others: list[Any]) -> None:
    kind = pa.binary() if isinstance(column[0], bytes) else pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({name: pa.array(column, kind), **others}), path, row_group_size=rows_in_group)


def check(text: Path, order: list[int] | None = None) -> None:
    source = open_source(text)
    for index in order or range(len(PIXELS)):
        np.testing.assert_array_equal(source.read(index), PIXELS[index])


@pytest.mark.parametrize("name", ["image", "img", "picture"])
@pytest.mark.parametrize("layout", ["struct", "binary"])
def test_images_in_a_column(tmp_path: Path, name: str, layout: str) -> None:
    column = cells(0, 60) if layout == "struct" else FILES
    save(tmp_path / "a.parquet", column, name, label=list(range(60)))
    assert open_source(tmp_path / "a.parquet").names == tuple(f"a.parquet:{row}" for row in range(60))
    check(tmp_path / "a.parquet")


def test_a_column_called_image_comes_first(tmp_path: Path) -> None:
    save(tmp_path / "a.parquet", FILES, image=FILES[:1] * 60, name="blob")
    source = open_source(tmp_path / "a.parquet")
    np.testing.assert_array_equal(source.read(3), PIXELS[0])


def test_paths_are_names_where_all_have_one_and_no_two_the_same(tmp_path: Path) -> None:
    save(tmp_path / "a.parquet", cells(0, 3, lambda row: f"{row}.png"))
    assert open_source(tmp_path / "a.parquet").names == ("0.png", "1.png", "2.png")
    save(tmp_path / "a.parquet", cells(0, 3, lambda row: "image.png"))
    assert open_source(tmp_path / "a.parquet").names == ("a.parquet:0", "a.parquet:1", "a.parquet:2")
    save(tmp_path / "a.parquet", cells(0, 3, lambda row: f"{row}.png" if row else None))
    assert open_source(tmp_path / "a.parquet").names == ("a.parquet:0", "a.parquet:1", "a.parquet:2")


def test_the_files_of_a_folder_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    save(tmp_path / "data" / "train-00001-of-00002.parquet", cells(35, 60))
    save(tmp_path / "data" / "train-00000-of-00002.parquet", cells(0, 35))
    save(tmp_path / "data" / "._train-00000-of-00002.parquet", cells(0, 5))
    (tmp_path / "README.md").write_text("a data set")
    source = open_source(tmp_path)
    assert len(source) == 60
    assert source.names[34:36] == ("data/train-00000-of-00002.parquet:34", "data/train-00001-of-00002.parquet:0")
    check(tmp_path)


def test_a_folder_of_images_with_a_parquet_file_is_one_of_images(tmp_path: Path) -> None:
    save(tmp_path / "labels.parquet", FILES)
    (tmp_path / "a.png").write_bytes(FILES[0])
    assert open_source(tmp_path).names == ("a.png",)


@pytest.mark.parametrize("rows_in_group", [1, 7, 60])
@pytest.mark.parametrize("rows_in_batch", [1, 3, 256])
def test_rows_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_in_group: int, rows_in_batch: int
) -> None:
    monkeypatch.setattr(parquet, "_MIN_ROWS", rows_in_batch)
    monkeypatch.setattr(parquet, "_MAX_ROWS", rows_in_batch)
    save(tmp_path / "0.parquet", cells(0, 25), rows_in_group=rows_in_group)
    save(tmp_path / "1.parquet", cells(25, 60), rows_in_group=rows_in_group)
    check(tmp_path, [59, 0, 58, 1, 24, 25, 24, 3, 2, 1, 0])
    check(tmp_path, np.random.default_rng(0).permutation(60).tolist())
    check(tmp_path, [*range(60), *range(60)])


def test_rows_for_several_threads(tmp_path: Path) -> None:
    save(tmp_path / "0.parquet", cells(0, 25))
    save(tmp_path / "1.parquet", cells(25, 60))
    source = open_source(tmp_path)
    with ThreadPoolExecutor(8) as executor:
        for index, pixels in enumerate(executor.map(source.read, list(range(60)) * 5)):
            np.testing.assert_array_equal(pixels, PIXELS[index % 60])


def test_nearly_sequential_reading_goes_through_a_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "0.parquet", cells(0, 25), rows_in_group=10)
    save(tmp_path / "1.parquet", cells(25, 60), rows_in_group=10)
    begun: list[tuple[str, int]] = []
    read = parquet._read

    def noted(folder: Path, table: Any, group: int) -> Any:
        begun.append((table.file, group))
        return read(folder, table, group)

    monkeypatch.setattr(parquet, "_read", noted)
    order = [index for begin in range(0, 60, 4) for index in (begin + 3, begin + 1, begin, begin + 2)]
    check(tmp_path, order)
    assert begun == [("0.parquet", 0), ("1.parquet", 0)]


def test_a_row_group_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    table = pa.table({"image": [noise.bytes(200_000) for _ in range(300)]})
    pq.write_table(table, tmp_path / "large.parquet", row_group_size=300, write_batch_size=10)  # 60 MB, in pages of 2
    del table
    source = open_source(tmp_path / "large.parquet")
    before = pa.total_allocated_bytes()
    for index in range(0, 300, 50):
        with pytest.raises(ValueError, match="format is unknown"):
            source.read(index)
        assert pa.total_allocated_bytes() - before < 25e6


def test_pickled_it_is_small_and_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.parquet", cells(0, 60), rows_in_group=60)
    monkeypatch.chdir(tmp_path)
    source = open_source("a.parquet")
    source.read(5)
    pickled = pickle.dumps(source)
    assert len(pickled) < 3000
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(pickle.loads(pickled).read(7), PIXELS[7])


def test_a_cell_without_an_image_is_the_problem_of_its_image(tmp_path: Path) -> None:
    column: list[Any] = cells(0, 5)
    column[1] = None
    column[2] = {"bytes": None, "path": "elsewhere.png"}
    column[3] = {"bytes": b"no image", "path": None}
    save(tmp_path / "a.parquet", column)
    images = scan(open_source(tmp_path / "a.parquet"))
    assert dict(images.problems) == {
        1: "its cell holds no bytes",
        2: "its cell holds no bytes",
        3: "its format is unknown, or it is damaged",
    }
    assert images.usable() == [0, 4]


def test_a_file_that_is_damaged_inside_says_so_for_its_images(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    save(path, FILES, rows_in_group=20)
    begin = pq.read_metadata(path).row_group(1).column(0).dictionary_page_offset
    content = bytearray(path.read_bytes())
    content[begin : begin + 50] = b"\xff" * 50
    path.write_bytes(content)
    images = scan(open_source(path))
    assert images.usable() == [*range(20), *range(40, 60)]
    assert all(
        re.match("the Parquet file a.parquet is damaged there: .+$", problem) for problem in images.problems.values()
    )


def test_a_file_that_is_shorter_than_it_was_says_so(tmp_path: Path) -> None:
    save(tmp_path / "a.parquet", FILES, rows_in_group=60)
    source = open_source(tmp_path / "a.parquet")
    save(tmp_path / "b.parquet", FILES[:20], rows_in_group=60)
    os.replace(tmp_path / "b.parquet", tmp_path / "a.parquet")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"the Parquet file a\.parquet is shorter than it was"):
            source.read(50)
    np.testing.assert_array_equal(source.read(3), PIXELS[3])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"a": [1], "text": ["b"]},
            r"has no column that may hold images: .* \{bytes, path\} .*; its columns are a \(int64\), text \(string\)",
        ),
        (
            {"a": [b"1"], "b": [b"2"]},
            r"has several columns that may hold images: .*; its columns are a \(binary\), b \(binary\)",
        ),
        (
            {"text": ["b"], "image": [[b"1", b"2"]]},
            r"has no column .*: expected is one image in a row, .*; its columns are image \(list<\w+: binary>\), text",
        ),
        ({"image": [3]}, r"has no column .*; its columns are image \(int64\)"),
    ],
)
def test_files_without_a_column_of_images_are_refused(
    tmp_path: Path, columns: dict[str, list[Any]], message: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=rf"a\.parquet {message}"):
        open_source(tmp_path / "a.parquet")


def test_files_that_are_damaged_or_empty_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(ValueError, match=r"text\.parquet cannot be read as a Parquet file: "):
        open_source(tmp_path / "text.parquet")
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "empty.parquet")
    with pytest.raises(ValueError, match=r"there are no rows in .*empty\.parquet$"):
        open_source(tmp_path / "empty.parquet")


def test_of_several_columns_of_images_one_is_named(tmp_path: Path) -> None:
    files = []
    for grey in (10, 200):
        content = io.BytesIO()
        Image.new("L", (4, 4), grey).save(content, "PNG")
        files.append(content.getvalue())
    pq.write_table(pa.table({"jpg": [files[0]], "mask": [files[1]], "label": [1]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"several columns .*; name one, FILE\.parquet:jpg or :mask"):
        open_source(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"several columns .*; name one, .* or :mask; png is none of them"):
        open_source(f"{tmp_path}/a.parquet:png")
    assert open_source(f"{tmp_path}/a.parquet:jpg").read(0).max() == 10
    assert open_source(f"{tmp_path}/a.parquet:mask").read(0).max() == 200
    with pytest.raises(ValueError, match="has no images in its column label"):
        open_source(f"{tmp_path}/a.parquet:label")


def test_a_column_and_a_split_of_one_file_are_both_named(tmp_path: Path) -> None:
    columns = {"jpg": FILES[:6], "a:b": FILES[6:12], "split": ["train", "test", "train", "test", "odd:one", "train"]}
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path)
    example = re.escape(f"{path}:a:b:train")
    with pytest.raises(ValueError, match=rf"several splits: 3 rows of 'train', .*; name one, for instance {example}$"):
        open_source(f"{path}:a:b")
    for part, first, rows in (("a:b:train", 6, (0, 2, 5)), ("jpg:test", 0, (1, 3)), ("jpg:odd:one", 0, (4,))):
        source = open_source(f"{path}:{part}")
        assert source.names == tuple(f"a.parquet:{row}" for row in rows)
        np.testing.assert_array_equal(source.read(0), PIXELS[first + rows[0]])
    with pytest.raises(ValueError, match="no rows of the split 'val', but 3 rows of 'train'"):
        open_source(f"{path}:jpg:val")
    with pytest.raises(ValueError, match=r"name one, FILE\.parquet:jpg or :a:b"):
        open_source(f"{path}:train")


def test_a_large_value_that_many_rows_share_is_read_a_few_rows_at_a_time(tmp_path: Path) -> None:
    """Decompressed it would be in memory once for each row of a batch; in the file it is a few bytes."""
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 500, pa.int32()), pa.array([bytes(2**24)], pa.binary()))
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": column}), path, compression="zstd")
    assert path.stat().st_size < 100_000
    table = parquet._open(tmp_path, path.name, None)
    assert table.rows_in_batch <= 4
