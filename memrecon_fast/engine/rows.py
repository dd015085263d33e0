"""Images one behind the other in memory that the GPU reads by itself, so that many of them go there in one copy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from memrecon_fast.engine.samples import Staged

BYTES = 16 * 2**20
"""Of a piece of such memory, unless a single image takes more."""


def in_rows(items: Iterable[Staged], count: int, pinned: bool) -> Iterator[Staged]:
    """The same samples, their images on the CPU copied into rows of shared memory: so many in a piece of it at most.

    pinned: a piece is page-locked, as the GPU wants it. It is free again once none of its images waits any more.
    """
    pieces: dict[str, _Piece] = {}
    for staged in items:
        images = {
            name: pieces.setdefault(name, _Piece(count, pinned)).add(image) if image.device.type == "cpu" else image
            for name, image in staged.images.items()
        }
        yield dataclasses.replace(staged, images=images)


class _Piece:
    """Memory for images of one kind, which is filled row by row; a new one is taken when it is full."""

    def __init__(self, count: int, pinned: bool) -> None:
        self._count = count
        self._pinned = pinned
        self._rows: list[Tensor] = []

    def add(self, image: Tensor) -> Tensor:
        """A copy of the image, in the next row."""
        if not self._rows or self._rows[0].shape != image.shape or self._rows[0].dtype != image.dtype:
            count = max(1, min(self._count, BYTES // max(1, math.prod(image.shape) * image.itemsize)))
            rows = torch.empty(
                (count, *image.shape), dtype=image.dtype, device="cpu", pin_memory=self._pinned and image.numel() > 0
            )
            self._rows = list(rows.unbind())
        return self._rows.pop(0).copy_(image.detach())
