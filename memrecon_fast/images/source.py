"""What a source of images is, and what a kind of source is."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

PIXEL_RANGE = (0.0, 1.0)
NOISY_PIXEL_RANGE = (-1.0, 2.0)
"""Room for noise, not enough for pixels of 0 to 255."""


Size = tuple[int, int]
"""(height, width)."""


FILTERS = ("lanczos", "bicubic", "bilinear", "hamming", "box", "nearest")
"""By which images can be resized; Pillow's."""


class Resize(NamedTuple):
    """The size that images get, and how."""

    height: int
    width: int
    filter: str = FILTERS[0]


class Look(NamedTuple):
    """What is seen of an image when it is first read."""

    pixels: NDArray[Any]
    """As `Source.read` gives them."""
    remark: str | None = None
    """What was done with it, or was not, that a person should know; the same words for all images of which it is so,
    as they follow "3 images ": "carry an EXIF orientation, …"."""


@dataclasses.dataclass(frozen=True)
class Source:
    """N ≥ 1 images, of which only the one that is asked for is in memory. Small to pickle, unless it is an array."""

    names: tuple[str, ...]
    """What to call each image in records and reports: its path in the folder, or its index."""
    read: Callable[[int], NDArray[Any]]
    """Reads an image: uint8 or float32 in [0, 1], (H, W, 1) or (H, W, 3). May be called by several threads.

    Raises ValueError, which says what is wrong, without the name of the image, where it cannot be used."""
    look: Callable[[int, Size | None], Look] | None = dataclasses.field(default=None, compare=False)
    """Where there is more to know than `read` tells: reads an image for the first time. One that is not of the size, if
    a size is given, may be refused before it is decoded. As `read` in all else."""
    remarks: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    """What a person should know of all of it: which files were left out, say. Each is part of a line."""
    text: str | None = dataclasses.field(default=None, compare=False)
    """What the user called all of it: "members.npy", say. It identifies nothing: the same images may have two names."""

    @property
    def name(self) -> str:
        """What to call all of it: what the user called it, or how many images it has."""
        return f"{len(self)} images" if self.text is None else self.text

    def __len__(self) -> int:
        return len(self.names)


@dataclasses.dataclass(frozen=True)
class SourceKind:
    """A kind of source: which names are its own, and what opens them. `sources.SOURCES` lists them all.

    A name is a text of the user: one that begins with `prefix`, a folder, or a file with one of `suffixes`, after which
    ":" and a part of the file may be named, see `file_and_part`.
    """

    open: Callable[[str, tuple[float, float]], Source]
    """Opens a name; float32 pixels that are not in this range are wrong. Reads no image.

    Raises FileNotFoundError, ValueError or TypeError, which name it, for what is wrong with all of it."""
    prefix: str | None = None
    """For instance "torchvision:"."""
    folders: bool = False
    suffixes: tuple[str, ...] = ()
    """In lower case, with the dot."""

    def matches(self, text: str) -> bool:
        """Whether the name is of this kind."""
        if self.prefix is not None and text.startswith(self.prefix):
            return True
        path, _ = file_and_part(text)
        if path.is_dir():
            return self.folders
        return path.suffix.lower() in self.suffixes and path.exists()


def file_and_part(text: str) -> tuple[Path, str | None]:
    """FILE and PART of "FILE:PART", where there is such a file and none of the whole name; else the whole, and None.

    PART may have colons of its own.
    """
    colons = [] if os.path.exists(text) else [at for at, one in enumerate(text) if one == ":"]
    for at in reversed(colons):
        if os.path.isfile(text[:at]):
            return Path(text[:at]), text[at + 1 :]
    return Path(text), None


def indices(count: int) -> tuple[str, ...]:
    """The names of images that have none: 0, 1, 2, …"""
    return tuple(map(str, range(count)))
