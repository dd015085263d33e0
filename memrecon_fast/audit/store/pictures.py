"""The pictures of a run, so that a report needs no model: the best, borderline and worst of each cell, reduced, and
thumbnails of those members of which most came back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memrecon_fast.common.files import open_regular, replacing

_Shown = TypeVar("_Shown")

GALLERY = "gallery"
SHEET = "sheet"
LARGEST_SIDE = 128
"""Pixels; larger images are reduced to this by averaging."""
THUMBNAIL_SIDE = 32
"""The same of thumbnails."""

MAX_BYTES = 2**30
"""A file of pictures with more inside is none of ours: it would fill the memory."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """One image of a cell; all uint8 (C, H, W)."""

    index: int
    original: NDArray[np.uint8]
    degraded: NDArray[np.uint8]
    recovered: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    """255 = kept."""
    member: NDArray[np.uint8] | None = None
    """The member that the estimate is nearest to; black where there is none, None where an earlier version kept it."""


@dataclasses.dataclass(frozen=True)
class Thumbnail:
    """A member and its estimate, small; both uint8 (C, H, W)."""

    index: int
    original: NDArray[np.uint8]
    """What was given, where the original is unknown."""
    recovered: NDArray[np.uint8]


def make_picture(
    original: Tensor, degraded: Tensor, recovered: Tensor, mask: Tensor, member: Tensor | None = None
) -> NDArray[np.uint8]:
    """The five as a report shows them: uint8 (5, C, H, W), of float or bool tensors (C, H, W); NaN becomes black, and
    so does a member that there is not."""
    member = torch.zeros_like(original) if member is None else member
    return np.stack([to_picture(image) for image in (original, degraded, recovered, mask, member)])


def make_thumbnail(original: Tensor, recovered: Tensor) -> NDArray[np.uint8]:
    """The two as a contact sheet shows them: uint8 (2, C, H, W), see `make_picture`."""
    return np.stack([to_picture(image, THUMBNAIL_SIDE) for image in (original, recovered)])


def write_pictures(path: Path, pictures: Sequence[Picture]) -> None:
    """Write the pictures of a cell, in the order of their indices, to an `.npz` file, whole or not at all."""
    fields = [field.name for field in dataclasses.fields(Picture)]
    if any(picture.member is None for picture in pictures):
        fields.remove("member")
    _write(path, pictures, fields)


def read_pictures(path: Path) -> list[Picture]:
    """The inverse of `write_pictures`; none where there is no such file. Raises ValueError for any other file."""
    return _read(path, Picture, optional=("member",))


def write_thumbnails(path: Path, thumbnails: Sequence[Thumbnail]) -> None:
    """Write the thumbnails of a cell as `write_pictures` writes pictures."""
    _write(path, thumbnails, [field.name for field in dataclasses.fields(Thumbnail)])


def read_thumbnails(path: Path) -> list[Thumbnail]:
    """The inverse of `write_thumbnails`, as `read_pictures`."""
    return _read(path, Thumbnail)


def to_picture(image: Tensor, largest_side: int = LARGEST_SIDE) -> NDArray[np.uint8]:
    """As a report shows it: uint8 (C, H, W), of a float or bool tensor (C, H, W); NaN becomes black."""
    pixels = torch.nan_to_num(image.float(), nan=0.0).clamp(0, 1)
    height, width = pixels.shape[1:]
    if max(height, width) > largest_side:
        scale = largest_side / max(height, width)
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        pixels = torch.nn.functional.adaptive_avg_pool2d(pixels, size)
    return (pixels * 255).round().byte().numpy()


def _write(path: Path, shown: Sequence[Any], fields: Sequence[str]) -> None:
    ordered = sorted(shown, key=lambda one: one.index)
    arrays: dict[str, Any] = {name: np.stack([getattr(one, name) for one in ordered]) for name in fields}
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, **arrays)


def _read(path: Path, kind: Callable[..., _Shown], optional: Sequence[str] = ()) -> list[_Shown]:
    if not path.exists():
        return []
    try:
        with open_regular(path) as stream, np.load(stream, allow_pickle=False) as archive:
            if sum(member.file_size for member in archive.zip.infolist()) > MAX_BYTES:
                raise ValueError("it holds far more than pictures")
            names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
            columns = {name: archive[name] for name in names if name not in optional or name in archive.files}
        rows = zip(*columns.values(), strict=True)
        return [kind(int(index), **dict(zip(list(columns)[1:], pixels, strict=True))) for index, *pixels in rows]
    except Exception as error:  # NumPy and its decompressors raise many kinds on a damaged file
        raise ValueError(f"{path} cannot be read as pictures of an audit: {error}") from error
