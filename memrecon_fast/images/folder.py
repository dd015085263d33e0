"""Images from the files of a folder, or from files that are named."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from numpy.typing import NDArray

from memrecon_fast.common.errors import reason
from memrecon_fast.common.files import open_regular
from memrecon_fast.images.decode import IMAGE_SUFFIXES, begins_as_image, look, printable
from memrecon_fast.images.foreign import what_to_do_with_most
from memrecon_fast.images.listing import LeftOut, list_files, sentence, with_suffix
from memrecon_fast.images.source import Look, Size, Source
from memrecon_fast.images.splits import in_words, splits_of_files

PARQUET_SUFFIX = ".parquet"
# fmt: off
_PICTURES = frozenset((  # that Pillow does not read, and documents and films
    ".heic", ".heif", ".hif", ".avif", ".jxl", ".jxr", ".wdp", ".svg", ".svgz", ".eps", ".ps", ".pdf", ".ai", ".wmf",
    ".emf", ".exr", ".hdr", ".dcm", ".nii", ".nrrd", ".mha", ".mhd", ".xcf", ".kra", ".djvu", ".raw", ".dng", ".cr2",
    ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".orf", ".rw2", ".raf", ".pef", ".srw", ".x3f", ".3fr",
    ".iiq", ".rwl", ".kdc", ".dcr", ".mrw", ".erf", ".mos", ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg",
    ".mpeg", ".bpg", ".flif", ".psb", ".pct", ".pict", ".thm",
))
_UNFINISHED = frozenset((  # what browsers and other programs call a file that they download
    ".part", ".partial", ".crdownload", ".download", ".incomplete", ".opdownload", ".aria2", ".!ut",
))
_PLAIN = frozenset((  # of which none is a picture, so that they are not opened to look
    ".json", ".jsonl", ".txt", ".csv", ".tsv", ".md", ".xml", ".yaml", ".yml", ".toml", ".html", ".htm", ".log", ".py",
    ".ipynb", ".sh", ".db", ".ini", ".cfg", ".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2", ".7z", ".rar", ".npy", ".npz",
    ".parquet", ".arrow", ".h5", ".hdf5", ".pt", ".pth", ".pkl", ".safetensors", ".ckpt", ".onnx", ".mat",
))
# fmt: on


def open_folder(text: str, pixel_range: tuple[float, float]) -> Source:
    """The image files in a folder and in those below, in the order of their relative paths, also where links lead to
    them. See `decode.read_image` for what is read. If there are none, its Parquet files, in that order. What is left
    out is said in the remarks of the source.

    pixel_range: of float32 pixels in Parquet files.

    Raises ValueError where there are neither, and where the files belong to several splits, such as train and test.
    """
    folder = Path(text)
    listing = list_files(folder)
    kinds = {file: _kind(folder, file) for file in listing.files}
    images = tuple(file for file, kind in kinds.items() if kind is None)
    tables = () if images else tuple(file for file in listing.files if file.lower().endswith(PARQUET_SUFFIX))
    taken = frozenset(tables)
    left_out = listing.left_out + Counter(kind for file, kind in kinds.items() if kind and file not in taken)
    remarks = (sentence(left_out),) if left_out else ()
    if images or tables:
        check_one_split(text, images or tables, bool(tables))
    if images:
        return open_image_files(folder, images, remarks)
    if tables:
        from memrecon_fast.images.parquet import open_parquet  # pyarrow is not needed for image files

        return open_parquet(folder, tables, pixel_range, remarks)
    hint = what_to_do_with_most(listing.files)
    raise ValueError(
        f"the folder {folder} holds no image files that can be read (such as .png, .jpg, .tif, .webp) and no .parquet "
        "files" + "".join(f"; {remark}" for remark in remarks) + (f". Most are each {hint}" if hint else "")
    )


def open_image_files(folder: Path, files: tuple[str, ...], remarks: tuple[str, ...] = ()) -> Source:
    """The images of these files of a folder, which are named by their relative paths."""
    absolute = folder.absolute()
    names = tuple(map(printable, files))
    return Source(names, partial(_read_from_folder, absolute, files), partial(_look_at, absolute, files), remarks)


def is_image_file(path: Path) -> bool:
    """Whether a file is taken for an image: by its suffix, or where it has none by its first bytes."""
    return path.is_file() and _kind(path.parent, path.name) is None


def check_one_split(text: str, files: Iterable[str], by_name: bool) -> None:
    """Raise ValueError where these files of a folder belong to several splits, see `splits.splits_of_files`: images
    that the model was not trained on would be taken for members."""
    splits = splits_of_files(files, by_name)
    if len(splits) > 1:
        example = os.path.join(text, next(iter(next(iter(splits.values())))))
        raise ValueError(
            f"{text} holds several splits: {in_words(splits, 'files')}. Which was the model trained on? Name one, for "
            f"instance {_quoted(example)}, or several, one after the other"
        )


def _quoted(path: str) -> str:
    return f"'{path}'" if "*" in path or " " in path else path


def _kind(folder: Path, file: str) -> LeftOut | None:
    """As what a file is left out; None for an image."""
    lower = file.lower()
    if lower.endswith(IMAGE_SUFFIXES):
        return None
    suffix = PurePosixPath(lower).suffix
    if suffix in _PICTURES:
        return with_suffix(0, file, "file that cannot be read here", "files that cannot be read here")
    if suffix in _UNFINISHED:
        return with_suffix(1, file, "file that was not downloaded whole", "files that were not downloaded whole")
    if suffix in _PLAIN or not _begins_as_image(folder / file):
        return with_suffix(5, file, "file", "files") if suffix else LeftOut(5, "file of no kind", "files of no kind")
    if suffix:
        one, many = "file that begins as images do", "files that begin as images do"
        return with_suffix(1, file, f"{one} under another suffix", f"{many} under another suffix")
    return None


def _begins_as_image(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            return begins_as_image(file.read(16))
    except OSError:  # what cannot be read is no image
        return False


def _read_from_folder(folder: Path, files: tuple[str, ...], index: int) -> NDArray[Any]:
    return _look_at(folder, files, index, None).pixels


def _look_at(folder: Path, files: tuple[str, ...], index: int, size: Size | None) -> Look:
    try:
        with open_regular(os.path.join(folder, files[index])) as file:  # a Path would take as long as to open it
            return look(file, size)
    except OSError as error:
        raise ValueError(f"it cannot be read: {reason(error)}") from error
