"""The masks of an audit: named ones, or a person's own from a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memrecon_fast.common.checks import suggestion
from memrecon_fast.common.errors import reason
from memrecon_fast.common.files import open_regular
from memrecon_fast.degradation import MASKS, check_mask, make_mask
from memrecon_fast.images.decode import IMAGE_SUFFIXES, open_image, pixels_of
from memrecon_fast.images.numpy_files import read_array
from memrecon_fast.images.source import Size


def open_masks(masks: Sequence[str], image_shape: Sequence[int], seed: int = 0) -> dict[str, Tensor]:
    """Each mask under its name (of a file: that it is given as NAME=FILE, or the file's): bool (C, H, W), True = kept.

    masks: names of `degradation.MASKS`; paths of image files, where the brighter half of the grey values means kept, or
        of two values the brighter one, such as 0 and 1; or of `.npy` files, bool or 0 and 1, (H, W), (C, H, W),
        (H, W, C), or with one channel for all.
    seed: of the random named masks.

    Raises FileNotFoundError, ValueError or TypeError; also where two masks have one name, or a file that of another.
    """
    opened: dict[str, Tensor] = {}
    for mask in masks:
        name, path = (mask, None) if mask in MASKS else _named_file(mask)
        if name in opened:
            raise ValueError(f"two masks are called {name!r}; a file takes another name as NAME=FILE")
        opened[name] = make_mask(mask, image_shape, seed) if path is None else _read_mask(path, image_shape)
    return opened


def _named_file(mask: str) -> tuple[str, Path]:
    """The name and the path of NAME=FILE; of FILE, which may have such a sign in its name, the file's name."""
    name, sign, path = mask.partition("=")
    if not sign or Path(mask).exists() or ("/" in name and not Path(path).is_file()):
        return Path(mask).name, Path(mask)
    if "/" in name:
        raise ValueError(f"the name of a mask has no '/' in it, NAME=FILE; {mask!r} gives the name {name!r}")
    if not name or name in MASKS:
        wrong = "no name" if not name else f"the name of another mask, {name!r}"
        raise ValueError(f"a mask file must have a name of its own, NAME=FILE; {mask!r} gives {wrong}")
    return name, Path(path)


def _read_mask(path: Path, image_shape: Sequence[int]) -> Tensor:
    suffix = path.suffix.lower()
    if suffix not in (*IMAGE_SUFFIXES, ".npy"):
        expected = f"one of {', '.join(MASKS)}, or an image or .npy file"
        raise ValueError(f"mask must be {expected}, not {str(path)!r}{suggestion(str(path), MASKS)}")
    if not path.exists():
        raise FileNotFoundError(f"there is no mask file {path}")
    channels, height, width = image_shape
    kept = _from_array(path) if suffix == ".npy" else _from_image(path, (height, width))
    shape = kept.shape
    while kept.ndim > 3 and len(kept) == 1:
        kept = kept[0]
    if kept.shape in ((height, width, channels), (height, width, 1)) and kept.shape != (channels, height, width):
        kept = kept.transpose(2, 0, 1)
    if kept.shape not in ((channels, height, width), (1, height, width), (height, width)):
        raise _wrong_shape(path, shape, image_shape)
    mask = torch.from_numpy(kept.astype(np.bool_)).expand(channels, height, width).clone()
    check_mask(f"the mask {path}", mask)
    return mask


def _from_array(path: Path) -> NDArray[Any]:
    kept = np.asarray(read_array(path))
    if kept.dtype != np.bool_ and not (np.issubdtype(kept.dtype, np.number) and np.isin(kept, (0, 1)).all()):
        raise ValueError(f"the mask {path} must hold True and False, or 1 and 0 (kept, erased)")
    return kept


def _from_image(path: Path, size: Size) -> NDArray[Any]:
    """(H, W), True where it is bright: of two grey values, whatever they are, the brighter one."""
    try:
        with open_regular(path) as file, open_image(file) as image:
            if (image.height, image.width) != size:
                raise _wrong_shape(path, (image.height, image.width), size)
            is_deep = image.mode.startswith("I")  # 16 bits of grey
            grey = np.asarray(image) if is_deep else pixels_of(image).mean(axis=2)
    except WrongShape:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds on a damaged file
        raise ValueError(f"the mask {path} cannot be read as an image: {reason(error)}") from error
    values = np.unique(grey)
    kept: NDArray[Any] = grey == values[1] if len(values) == 2 else grey >= (2**16 - 1 if is_deep else 255) / 2
    return kept


class WrongShape(ValueError):
    """A mask is not of the images' shape."""


def _wrong_shape(path: Path, shape: Sequence[int], expected: Sequence[int]) -> WrongShape:
    of = "(C, H, W)" if len(expected) == 3 else "(H, W)"
    return WrongShape(f"the mask {path} has the shape {tuple(shape)}; the images' is {tuple(expected)}, {of}")
