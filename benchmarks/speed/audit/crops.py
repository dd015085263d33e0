"""As many distinct images as a benchmark of an audit needs: crops of a few photographs."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import skimage.data
from numpy.typing import NDArray

from memrecon_fast.images.photographs import MIN_STD, NAMES

SCALES = (1, 2)
"""A crop is of so many times its size, and reduced by averaging."""


def write_crops(paths: Sequence[Path], count: int, size: int) -> None:
    """Write `.npy` files of `count` crops each, uint8 (count, size, size, 3); no two are the same in any of them.

    They lie anywhere in the photographs that scikit-image ships, overlap, and may be mirrored.
    """
    crops = _distinct(itertools.islice(_crops(size), 100 * len(paths) * count))
    for path in paths:
        array = np.lib.format.open_memmap(path, "w+", np.uint8, (count, size, size, 3))
        position = -1
        for position, crop in enumerate(itertools.islice(crops, count)):
            array[position] = crop
        assert position == count - 1, f"the photographs do not hold so many distinct crops of {size}×{size} pixels"
        array.flush()


def _distinct(crops: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    hashes: set[bytes] = set()
    for crop in crops:
        digest = hashlib.sha256(crop.tobytes()).digest()
        if digest not in hashes:
            hashes.add(digest)
            yield crop


def _crops(size: int) -> Iterator[NDArray[np.uint8]]:
    random = np.random.default_rng(0)
    photographs = [_load(name) for name in NAMES]
    while True:
        photograph, scale = photographs[random.integers(len(photographs))], int(random.choice(SCALES))
        side = size * scale
        top, left = (int(random.integers(length - side + 1)) for length in photograph.shape[:2])
        crop = photograph[top : top + side, left : left + side].reshape(size, scale, size, scale, 3).mean(axis=(1, 3))
        if crop.mean(axis=2).std() >= 255 * MIN_STD:
            yield np.ascontiguousarray(np.rint(crop[:, :: random.choice((1, -1))]).astype(np.uint8))


def _load(name: str) -> NDArray[np.uint8]:
    loaded = getattr(skimage.data, name)()
    picture: NDArray[np.uint8] = loaded[0] if isinstance(loaded, tuple) else loaded  # the left one of a stereo pair
    return picture
