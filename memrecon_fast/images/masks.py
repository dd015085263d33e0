"""The masks of an audit: named ones, or a person's own from a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from memrecon_fast.degradation import MASKS, make_mask
from memrecon_fast.images.decode import IMAGE_SUFFIXES, read_image
from memrecon_fast.images.numpy_files import read_array


def open_masks(masks: Sequence[str], image_shape: Sequence[int], seed: int = 0) -> dict[str, Tensor]:
    """Each mask under its name (of a file: the file's name): bool (C, H, W), True = kept.

    masks: names of `degradation.MASKS`; paths of image files, where the brighter half of the grey values means kept; or
        of `.npy` files, bool or 0 and 1, (H, W) or (C, H, W).
    seed: of the random named masks.

    Raises FileNotFoundError, ValueError or TypeError.
    """
    opened: dict[str, Tensor] = {}
    for mask in masks:
        is_name = mask in MASKS
        name = mask if is_name else Path(mask).name
        if name in opened:
            raise ValueError(f"two masks are called {name!r}")
        opened[name] = make_mask(mask, image_shape, seed) if is_name else _read_mask(Path(mask), image_shape)
    return opened


def _read_mask(path: Path, image_shape: Sequence[int]) -> Tensor:
    suffix = path.suffix.lower()
    if suffix not in (*IMAGE_SUFFIXES, ".npy"):
        raise ValueError(f"mask must be one of {', '.join(MASKS)}, or an image or .npy file, not {str(path)!r}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no mask file {path}")
    if suffix == ".npy":
        kept = np.asarray(read_array(path))
        if kept.dtype != np.bool_ and not (np.issubdtype(kept.dtype, np.number) and np.isin(kept, (0, 1)).all()):
            raise ValueError(f"the mask {path} must hold True and False, or 1 and 0 (kept, erased)")
    else:
        kept = read_image(path).mean(axis=2) >= 127.5
    shape = tuple(image_shape)
    if kept.shape not in (shape, shape[1:]):
        raise ValueError(f"the mask {path} has the shape {kept.shape}; the images' is {shape}, (C, H, W)")
    mask = torch.from_numpy(kept.astype(np.bool_)).expand(shape).clone()
    if not mask.any():
        raise ValueError(f"the mask {path} erases everything")
    return mask
