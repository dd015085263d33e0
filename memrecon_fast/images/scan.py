"""Images that were read once and checked; each is identified by its hash when it is read again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from memrecon_fast.common.checks import check_integer
from memrecon_fast.common.errors import reason
from memrecon_fast.common.files import open_regular, replacing
from memrecon_fast.images.decode import WrongSize
from memrecon_fast.images.source import FILTERS, Look, Resize, Size
from memrecon_fast.images.sources import IN_MEMORY, PIXEL_RANGE, Names, Source, open_source

NEARLY_BLACK = (
    "hold pixels of 0 and 1 alone, as uint8, which of 255 is nearly black; if 1 is to be white, save them as float32"
)
CELLS = 8
"""A thumbnail has so many cells along each side."""
_STRIP = 2**20  # pixels
_MAX_THREADS = 8
_PIECE = 8  # images that a thread takes at a time: handing over a small one takes as long as reading it
_ASKED = 32  # images at the beginning, the most frequent shape of which is taken where none is given
_AHEAD = 2  # pieces for each thread that are read before the first of them is asked for

IMAGES_SCHEMA = pa.schema(
    [
        pa.field("split", pa.string(), nullable=False),
        pa.field("index", pa.int64(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("problem", pa.string()),
        pa.field("near_duplicate_of", pa.string()),
    ]
)

T = TypeVar("T")
_NUMBER = re.compile(r"-?\d[\d.]*(e[-+]?\d+)?")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Images:
    """N ≥ 1 images of one shape, of which only the one that is asked for is in memory.

    Made by `scan` or `open_images`. What belongs to an image that cannot be used stays in its place.
    """

    source: Source
    image_shape: tuple[int, int, int]
    """(channels, height, width)."""
    names: tuple[str, ...]
    """N names."""
    sha256: tuple[str, ...]
    """In hexadecimal, of dtype, shape and pixels of each image as it is used; "" where it cannot be used."""
    problems: Mapping[int, str]
    """Why an image cannot be used, by its index; most begin with "it": "it is in colour; …"."""
    thumbnails: NDArray[np.float32]
    """(N, channels · 8 · 8): averages over cells of the image, see `average_cells`; zeros where it cannot be used."""
    remarks: tuple[str, ...] = ()
    """What a person should know of them: which files were left out and why, which pixels were clipped, …"""
    filter: str = FILTERS[0]
    """By which those of another size are resized."""

    def __repr__(self) -> str:
        unusable = f", {len(self.problems)} of them not usable" if self.problems else ""
        return f"Images({len(self)} of shape {self.image_shape}{unusable})"

    def __len__(self) -> int:
        """The number of images, whether they can be used or not."""
        return len(self.names)

    def usable(self) -> list[int]:
        """The indices of the images that can be used."""
        return [index for index in range(len(self)) if index not in self.problems]

    def __getitem__(self, index: int) -> Tensor:
        """Image `index`: float32 (channels, height, width) in [0, 1], contiguous; read now.

        Raises ValueError, which names it, where it cannot be read, or is not what it was when it was checked.
        """
        return _to_tensor(self.pixels(index))

    def pixels(self, index: int) -> NDArray[Any]:
        """The same as its source has it: uint8, of which a 255th is meant, or float32. Raises as above."""
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} images, and none with index {index}")
        name = self.names[index]
        if index in self.problems:
            raise ValueError(f"{name} cannot be used: {self.problems[index]}")
        try:
            pixels = _fit(self.source.read(index), self.image_shape, self.filter)
        except ValueError as error:
            raise ValueError(f"{name} cannot be used any more: {error}") from error
        if _hash(pixels) != self.sha256[index]:
            raise ValueError(f"{name} has changed since the audit began")
        return pixels

    def stack(self) -> Tensor:
        """All the images in memory: float32 (N, channels, height, width). Raises ValueError where one is not usable."""
        images = torch.empty(len(self), *self.image_shape)
        for index in range(len(self)):
            images[index] = self[index]
        return images

    def digest(self) -> str:
        """The identity of these images: SHA-256 over names, hashes and problems, in hexadecimal."""
        return digest_of(self.names, self.sha256, self.problems)


def check_images(name: str, images: object) -> None:
    """Raise TypeError, which says how they are made of it, unless these are `Images`."""
    if isinstance(images, Images):
        return
    what, how = type(images).__name__, "mf.images.open_images(FOLDER or FILE)"
    if isinstance(images, (Tensor, np.ndarray)):
        what += f" of shape {tuple(images.shape)}"
        how = f"mf.images.scan(mf.images.from_array({'tensor.numpy()' if isinstance(images, Tensor) else 'array'}))"
    raise TypeError(f"{name} must be Images, not {what}; expected {how}")


def open_images(
    names: Names,
    image_shape: tuple[int, int, int] | None = None,
    resize: Resize | Size | tuple[int, int, str] | None = None,
    limit: int | None = None,
    progress: Callable[[int], object] | None = None,
    expecting: str = "as the model",
    pixel_range: tuple[float, float] = PIXEL_RANGE,
) -> Images:
    """`scan` of `sources.open_source`: opens a source of images by its name or names, and checks every image."""
    return scan(open_source(names, pixel_range), image_shape, resize, limit, progress, expecting)


def scan(
    source: Source,
    image_shape: tuple[int, int, int] | None = None,
    resize: Resize | Size | tuple[int, int, str] | None = None,
    limit: int | None = None,
    progress: Callable[[int], object] | None = None,
    expecting: str = "as the model",
) -> Images:
    """Read every image once, and note of each what it is, or why it cannot be used.

    image_shape: (C, H, W), what is expected; without it, the most frequent shape among the first images that can be
        read. A greyscale image among colour ones gets three equal channels; a colour image among greyscale ones is not
        usable.
    resize: (H, W), or (H, W, one of `source.FILTERS`), to which images of another size are resized (by default by
        Lanczos' filter; the aspect ratio is not kept), which a remark says. Without it, they are not usable.
    limit: only so many images are looked at, the first ones.
    progress: called with the number of images that have been read, after each.
    expecting: who else has that image_shape, for messages.

    Raises TypeError for what is no Source; ValueError where there is no image that can be used, where two have one
    name, or where resize and image_shape do not agree.
    """
    if not isinstance(source, Source):
        raise TypeError(f"source must be a Source, not {type(source).__name__}; {IN_MEMORY}")
    if limit is not None:
        check_integer("limit", limit, low=1)
        source = dataclasses.replace(source, names=source.names[:limit])
    resize = None if resize is None else Resize(*resize)
    size = None if resize is None else (resize.height, resize.width)
    if resize is not None:
        check_integer("the height to resize to", resize.height, low=1)
        check_integer("the width to resize to", resize.width, low=1)
        if resize.filter not in FILTERS:
            raise ValueError(f"there is no filter {resize.filter!r}; expected one of {', '.join(FILTERS)}")
    if not len(source):
        raise ValueError("there are no images")
    remarks = [*source.remarks, *_check_names(source.names)]
    if image_shape is None:
        image_shape, expecting, differing = _usual_shape(source, size)
        remarks += [differing] if differing else []
    elif size is not None and size != image_shape[1:]:
        raise ValueError(f"images of {_size(size)} do not fit; expected {_size(image_shape[1:])}, {expecting}")
    look = partial(_look, source, image_shape, None if resize is None else resize.filter, expecting)
    thumbnails = np.zeros((len(source), image_shape[0] * CELLS * CELLS), np.float32)
    sha256: list[str] = []
    problems: dict[int, str] = {}
    of_images: Counter[str] = Counter()
    for index, found in enumerate(in_threads(look, len(source))):
        if isinstance(found, str):
            problems[index] = found
            sha256.append("")
        else:
            hash_, thumbnails[index], said = found
            sha256.append(hash_)
            of_images.update(said)
        if progress is not None:
            progress(index + 1)
    if len(problems) == len(source):
        raise _unusable(source, problems[0])
    remarks += [f"{count} of {len(source)} images {remark}" for remark, count in of_images.items()]
    by = FILTERS[0] if resize is None else resize.filter
    return Images(source, image_shape, source.names, tuple(sha256), problems, thumbnails, tuple(remarks), by)


def _check_names(names: Sequence[str]) -> list[str]:
    """Raise ValueError where two images have one name: nobody could tell them apart in records. And a remark on names
    that look alike: "é" may be one character or two."""
    counts = Counter(names)
    if len(counts) < len(names):
        name, count = counts.most_common(1)[0]
        raise ValueError(
            f"{count} images are called {name}: one file was named twice, as itself and as part of a folder, or their "
            "names differ in bytes that are no text; leave one out, or rename it"
        )
    looks = Counter(unicodedata.normalize("NFC", name) for name in names if not name.isascii())
    alike = [name for name, count in looks.items() if count > 1]
    if not alike:
        return []
    more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
    return [f"several images have names that look the same, {alike[0]}{more}, in other characters of Unicode"]


def digest_of(names: Sequence[str], hashes: Sequence[str], problems: Mapping[int, str]) -> str:
    """The identity of images, see `Images.digest`: of N names, N hashes and the problems by index."""
    digest = hashlib.sha256()
    for index, (name, sha256) in enumerate(zip(names, hashes, strict=True)):
        digest.update(json.dumps([name, sha256, problems.get(index)]).encode())
    return digest.hexdigest()


def typical_problem(images: Images) -> int:
    """The index of the first image with the problem that most of the unusable ones have, whatever its numbers are."""
    kinds = {index: _NUMBER.sub("", problem) for index, problem in images.problems.items()}
    most, _ = Counter(kinds.values()).most_common(1)[0]
    return next(index for index, kind in kinds.items() if kind == most)


def write_images(path: Path, splits: Mapping[str, Images], near_duplicates: Mapping[int, int]) -> None:
    """Write one row for each image of each split to a Parquet file, which appears whole or not at all.

    near_duplicates: as for `images_table`. The same images make the same file, byte for byte.
    """
    table = images_table(splits, near_duplicates)
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def images_table(splits: Mapping[str, Images], near_duplicates: Mapping[int, int]) -> pa.Table:
    """One row for each image of each split.

    near_duplicates: of the split "controls", index to index of the split "members", see
        `duplicates.find_near_duplicates`.
    """
    tables = []
    for split, images in splits.items():
        count = range(len(images))
        near = near_duplicates if split == "controls" else {}
        columns = {
            "split": [split] * len(images),
            "index": list(count),
            "name": images.names,
            "sha256": images.sha256,
            "problem": [images.problems.get(index) for index in count],
            "near_duplicate_of": [splits["members"].names[near[index]] if index in near else None for index in count],
        }
        tables.append(pa.table(columns, IMAGES_SCHEMA))
    return pa.concat_tables(tables)


def read_images(path: Path) -> dict[str, NDArray[Any]]:
    """The columns that `write_images` wrote, see `columns_of`. Raises ValueError for another file."""
    return columns_of(read_images_table(path))


def columns_of(table: pa.Table) -> dict[str, NDArray[Any]]:
    """The columns of `images_table` as arrays; None where there is no problem, or no near duplicate."""
    return {name: table[name].to_numpy() for name in table.column_names}


def read_images_table(path: Path) -> pa.Table:
    """What `write_images` wrote. Raises ValueError for another file."""
    try:
        with open_regular(path) as stream, pq.ParquetFile(stream) as file:
            table = file.read()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as the images of an audit: {reason(error)}") from error
    if not table.schema.equals(IMAGES_SCHEMA):
        raise ValueError(f"{path} holds no images of an audit: its columns are {', '.join(table.column_names)}")
    return table


def average_cells(image: NDArray[Any]) -> NDArray[np.float64]:
    """The averages (C, 8, 8) of an image (C, H, W), uint8 taken as [0, 1], by cells, see `cell_edges`; 0 if empty."""
    rows, columns = (_averaging(size) for size in image.shape[1:])
    strip = max(_STRIP // image.shape[2], 1)  # of rows: as float64, a large image would take eight times its memory
    averaged = np.zeros((image.shape[0], CELLS, image.shape[2]))
    for begin in range(0, image.shape[1], strip):
        averaged += rows[:, begin : begin + strip] @ image[:, begin : begin + strip].astype(np.float64)
    averages: NDArray[np.float64] = averaged @ columns.T
    return averages / 255 if image.dtype == np.uint8 else averages


def cell_edges(size: int) -> NDArray[np.int64]:
    """The 9 positions at which the 8 cells along a side begin and end; as even as can be, some empty below 8 pixels."""
    return np.arange(CELLS + 1) * size // CELLS


@lru_cache(maxsize=4)
def _averaging(size: int) -> NDArray[np.float64]:
    """(8, size): the matrix that averages over the cells of a side."""
    edges, position = cell_edges(size), np.arange(size)
    inside = (edges[:-1, None] <= position) & (position < edges[1:, None])
    return inside / np.maximum(np.diff(edges), 1)[:, None]


def _usual_shape(source: Source, resize: Size | None) -> tuple[tuple[int, int, int], str, str]:
    """The most frequent shape among the first images, as they will be; how to say that others should have it; and a
    remark where they differ. Where several are as frequent, it is that which comes first."""
    shapes: dict[int, tuple[int, int, int]] = {}
    first_problem = ""
    for index in range(len(source)):
        found = _first_look(source, index, None)
        if isinstance(found, str):
            first_problem = first_problem or found
        else:
            height, width, channels = found.pixels.shape
            shapes[index] = (channels, *(resize or (height, width)))
        if len(shapes) and index + 1 >= _ASKED:
            break
    if not shapes:
        raise _unusable(source, first_problem)
    shape, count = Counter(shapes.values()).most_common(1)[0]
    first = min(shapes)
    if shapes[first] == shape:
        return shape, f"as the first image, {source.names[first]}", ""
    others = f"{count} of the first {len(shapes)} images"
    return shape, f"as {others}", f"no shape was given; {'×'.join(map(str, shape))}, (C, H, W), is that of {others}"


def _first_look(source: Source, index: int, size: Size | None) -> Look | str:
    """What is seen of an image, or why it cannot be read. Raises WrongSize, where it was not decoded for that."""
    try:
        return Look(source.read(index)) if source.look is None else source.look(index, size)
    except WrongSize:
        raise
    except ValueError as error:
        return str(error)


def _unusable(source: Source, problem: str) -> ValueError:
    count = "the only image cannot" if len(source) == 1 else f"none of the {len(source)} images can"
    return ValueError(f"{count} be used; {source.names[0]}: {problem}")


def _look(
    source: Source, image_shape: tuple[int, int, int], filter: str | None, expecting: str, index: int
) -> tuple[str, NDArray[np.float64], list[str]] | str:
    """Hash and thumbnail of an image, and remarks; or what is wrong with it."""
    try:
        found = _first_look(source, index, None if filter else image_shape[1:])
        if isinstance(found, str):
            return found
        pixels = _fit(found.pixels, image_shape, filter, expecting)
    except WrongSize as error:
        return _wrong_size(error.size, image_shape[1:], expecting)
    except ValueError as error:
        return str(error)
    remarks = [found.remark] if found.remark else []
    if found.pixels.dtype == np.uint8 and found.pixels.max() == 1:
        remarks.append(NEARLY_BLACK)
    if found.pixels.shape[:2] != image_shape[1:]:
        remarks.append(
            f"were resized by {filter}: where the model was trained on images that another filter made, little comes "
            "back accurately"
        )
    return _hash(pixels), average_cells(pixels).reshape(-1), remarks


def _fit(
    pixels: NDArray[Any], image_shape: tuple[int, int, int], filter: str | None, expecting: str = ""
) -> NDArray[Any]:
    """An image (H, W, C) as (C, H, W) of the shape that is expected, contiguous. Raises ValueError if it cannot be.

    filter: by which one of another size is resized; without it, it cannot be."""
    expected, size = image_shape[0], image_shape[1:]
    if pixels.shape[2] > expected:
        raise ValueError(f"it is in colour; expected greyscale, {expecting}".removesuffix(", "))
    if pixels.shape[:2] != size:
        if filter is None:
            raise ValueError(_wrong_size(pixels.shape[:2], size, expecting))
        pixels = np.stack([_resize(pixels[:, :, c], size, filter) for c in range(pixels.shape[2])], axis=2)
    return np.ascontiguousarray(np.broadcast_to(pixels.transpose(2, 0, 1), image_shape))


def _wrong_size(size: tuple[int, ...], expected: tuple[int, ...], expecting: str) -> str:
    return (
        f"it is {_size(size)} pixels (height×width); expected {_size(expected)}, {expecting} "
        f"(--resize {expected[0]}x{expected[1]} would change that)"
    )


def _resize(channel: NDArray[Any], size: tuple[int, int], filter: str) -> NDArray[Any]:
    """One channel (H, W) in another size; of float32, what the filter overshoots is cut off."""
    by = Image.Resampling[filter.upper()]
    resized = np.asarray(Image.fromarray(np.ascontiguousarray(channel)).resize(size[::-1], by))
    return resized if resized.dtype == np.uint8 else resized.clip(0, 1)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}×{shape[1]}"


def _hash(pixels: NDArray[Any]) -> str:
    digest = hashlib.sha256(f"{pixels.dtype} {pixels.shape}".encode())
    digest.update(pixels.data)
    return digest.hexdigest()


def _to_tensor(pixels: NDArray[Any]) -> Tensor:
    if not pixels.flags.writeable:  # torch shares the memory, and warns
        pixels = pixels.copy()
    image = torch.from_numpy(pixels)
    return image.float() / 255 if image.dtype == torch.uint8 else image


def in_threads(function: Callable[[int], T], count: int) -> Iterator[T]:
    """function(0), …, function(count - 1) in this order, from threads that run only a few calls ahead."""

    def work(begin: int) -> list[T]:
        return [function(index) for index in range(begin, min(begin + _PIECE, count))]

    threads = min(_processors(), _MAX_THREADS)
    pending: deque[Future[list[T]]] = deque()
    with ThreadPoolExecutor(threads, "memrecon-scan") as executor:
        try:
            for begin in range(0, count, _PIECE):
                pending.append(executor.submit(work, begin))
                if len(pending) > _AHEAD * threads:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _processors() -> int:
    """How many processors this process may use, or has the machine, where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
