"""The nearest of a set of images, exactly, for any number of queries: by lower bounds, most images are never looked at.

With P an orthogonal projection onto m « d directions and Q = I − P,

    ‖a − b‖² ≥ ‖Pa − Pb‖² + (‖Qa‖ − ‖Qb‖)²,

so that the points (Pb, ‖Qb‖) of m + 1 coordinates are never further apart than the images. P keeps the lowest
frequencies, in which most of a photograph is. A query is compared with all points by one product of matrices in
float32, and then pixel by pixel with those images whose bound, less what rounding may have added, is not above the
least distance that was found. Where that leaves many (noise is not in the low frequencies), a product over all pixels
takes the place of the bounds. What is near nothing costs most: where only near images are asked for, it costs least.
"""

from __future__ import annotations

import dataclasses
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memrecon_fast.common.memory import in_units
from memrecon_fast.images.scan import Images, in_threads
from memrecon_fast.metrics import mse_of_rows

NONE = -1
"""The index where there is no nearest image."""
LARGEST = 1e6
"""No pixel of the set may be larger. A query with one that is so many times larger than those of the set (or than 1, if
that is more) has no nearest image: rounding would choose it."""
DIRECTIONS = 768
"""m is no more than this ..."""
DIRECTIONS_WITHIN = 192
"""... or than this, where nothing is looked for that is far: then few directions leave few images as well, and ‖Qa‖,
which takes longest, is not needed."""
_QUERIES = 256  # in a block, at most
_BOUNDS = 2**22  # in a block of queries: 16 MB
_PIXELS = 2**21  # in a block of images: 16 MB as float64
_IN_MEMORY = 256 * 2**20  # bytes of float32 pixels; more of them lie in a temporary file
_FEW = 32  # images that are compared with a query pixel by pixel before better bounds are taken
_READING = 8  # an image is read in the time of so many products with it
_AT_ONCE = 16  # rows that are compared pixel by pixel: few enough for the caches
_UNIT32, _UNIT64 = 2.0**-24, 2.0**-53  # relative errors of rounding
_TINY = float(np.finfo(np.float32).tiny)
_STEP = np.float32(1 / 255)
_OF_BYTES = np.arange(256, dtype=np.float32) / np.float32(255)  # as `Images` converts them


class Nearest:
    """A set of images, of which the nearest to any others can be asked for.

    images: `Images`, of which those that can be used are the set, by their indices there; or an array or tensor
        (N ≥ 1, *shape) of float32, or of uint8 taken as [0, 1]. An array, or a tensor on the CPU, is not copied, and
        must not change. `Images` are read once, and kept as uint8 where that is exact; else as float32, in a temporary
        file where they are large.
    within: images further from a query than this mean squared error are not looked for.

    Beside them it keeps 3 kB for each image, or less. Raises TypeError or ValueError for what is no set of images:
    another type, none at all, pixels that are not finite or beyond `LARGEST`; and where an image cannot be read any
    more.
    """

    def __init__(self, images: Images | Tensor | NDArray[Any], within: float = math.inf) -> None:
        if not within >= 0:
            raise ValueError(f"within must be a mean squared error, 0 or more, not {within!r}")
        self._within = within
        if isinstance(images, Images):
            usable = images.usable()
            self._indices = np.array(usable, np.int64)
            self._shape: tuple[int, ...] = images.image_shape
            self._pixels = _Pixels(_read(images, usable))
            self._largest = 1.0
        else:
            array = images.detach().cpu().numpy() if isinstance(images, Tensor) else images
            self._largest = _check_array(array)
            self._indices = np.arange(len(array), dtype=np.int64)
            self._shape = array.shape[1:]
            self._pixels = _Pixels(array.reshape(len(array), -1))
        far = within == math.inf
        self._lowest = _Lowest(self._shape, DIRECTIONS if far else DIRECTIONS_WITHIN, with_rest=far)
        self._points = self._gather_points()

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Tensor:
        """The image with this index, float32, as it is compared. Raises IndexError where it is none of the set."""
        position = int(np.searchsorted(self._indices, index))
        if position == len(self) or self._indices[position] != index:
            raise IndexError(f"there is no image {index} in the set")
        return torch.from_numpy(self._pixels.take(np.array([position]))[0].reshape(self._shape))

    def of(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest image to each of the queries, float32 (n, *shape), n ≥ 0, on any device: its index, int64 (n,),
        and its mean squared error, float64 (n,), to the last bit as `metrics.mse_of_rows` has it.

        Of images that are equally near it is the lowest index. Where a query is not finite, or out of all proportion,
        see `LARGEST`, the index is `NONE` and the error NaN; where none is `within`, `NONE` and infinity. The result
        for a query does not depend on the others; many at once take less time. Raises TypeError or ValueError for
        queries of another type or shape.
        """
        if not isinstance(queries, Tensor) or queries.dtype != torch.float32:
            found = queries.dtype if isinstance(queries, Tensor) else type(queries).__name__
            raise TypeError(f"queries must be a float32 tensor, not {found}")
        if not queries.dim() or queries.shape[1:] != self._shape:
            raise ValueError(
                f"queries must be of shape (n, {str(self._shape)[1:-1]}), as the images are, not {tuple(queries.shape)}"
            )
        rows = queries.detach().cpu().numpy().reshape(len(queries), self._pixels.width)
        index, mse = np.full(len(rows), NONE, np.int64), np.full(len(rows), np.nan)
        comparable = np.abs(rows).max(axis=1) <= LARGEST * max(1.0, self._largest)  # False where it is NaN
        for some in _blocks(np.flatnonzero(comparable), min(_QUERIES, _BOUNDS // len(self))):
            nearest, mse[some] = self._of_rows(rows[some])
            index[some] = np.where(mse[some] < np.inf, self._indices[nearest], NONE)
        return torch.from_numpy(index), torch.from_numpy(mse)

    def _gather_points(self) -> _Points:
        everything = np.arange(len(self))
        center = self._lowest.of(self._pixels.take(everything[:: -(-len(self) // _QUERIES)])).mean(axis=0)
        factors = np.empty((len(self), self._lowest.coordinates + 1), np.float32)
        farthest = longest = 0.0
        for block in _blocks(everything, _PIXELS // self._pixels.width):
            pixels = self._pixels.take(block)
            points = self._lowest.points(pixels, center)
            factors[block] = _right_factor(points)
            farthest, longest = (max(most, *_norms(rows)) for most, rows in ((farthest, points), (longest, pixels)))
        return _Points(center, factors, farthest, longest)

    def _of_rows(self, queries: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The position of the nearest image to each, and its MSE: infinity where none is within reach."""
        ours = self._points
        points = self._lowest.points(queries, ours.center)
        bounds = _left_factor(points) @ ours.factors.T
        above = _above(points, ours.farthest, self._lowest.rounding * (_norms(queries) + ours.longest))
        nearest: NDArray[np.int64] = bounds.argmin(axis=1)
        mse = np.full(len(queries), np.inf)
        reach = self._within * self._pixels.width + above
        near = np.flatnonzero(bounds[np.arange(len(queries)), nearest] <= reach)
        for some in _blocks(near, _AT_ONCE):
            mse[some] = mse_of_rows(queries[some], self._pixels.take(nearest[some]))
        possible = bounds <= np.minimum(mse * self._pixels.width + above, reach)[:, None]
        left = np.count_nonzero(possible, axis=1)
        for row in np.flatnonzero((left > 1) & (left <= _FEW)):
            images = np.flatnonzero(possible[row])
            best = (mse[row], nearest[row])
            mse[row], nearest[row] = self._compare(queries[row], images, bounds[row, images], above[row], best)
        for rows in _groups(np.flatnonzero(left > _FEW), possible):
            images = np.flatnonzero(possible[rows].any(axis=0))
            distances, above_them = self._distances(queries[rows], images)
            for at, row in enumerate(rows):
                best = (mse[row], nearest[row])
                mse[row], nearest[row] = self._compare(queries[row], images, distances[at], above_them[at], best)
        mse[mse > self._within] = np.inf
        return nearest, mse

    def _compare(
        self,
        query: NDArray[np.float32],
        images: NDArray[np.int64],
        bounds: NDArray[np.float32],
        above: float,
        best: tuple[float, int],
    ) -> tuple[float, int]:
        """The least (MSE, position) of `best` and of these images, which are compared with the query in the order of
        their bounds until those are above the least."""
        order = np.argsort(bounds, kind="stable")
        for begin in range(0, len(order), _AT_ONCE):
            some = order[begin : begin + _AT_ONCE]
            some = some[bounds[some] <= best[0] * self._pixels.width + above]
            if not len(some):
                break
            mse = mse_of_rows(query[None], self._pixels.take(images[some]))
            best = min(best, *zip(mse.tolist(), images[some].tolist(), strict=True))
        return best

    def _distances(
        self, queries: NDArray[np.float32], images: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """‖a − b‖² − ‖a‖² for each of the queries and of these images, in float32 from all pixels, around the centre;
        and `_above` for them."""
        center = self._lowest.image(self._points.center)
        centered = np.subtract(queries, center, dtype=np.float64)
        left = (-2 * centered).astype(np.float32)
        distances = np.empty((len(queries), len(images)), np.float32)
        farthest = 0.0
        at_once = _AT_ONCE if len(queries) == 1 else _PIXELS // self._pixels.width  # in the caches, or a good product
        for block in _blocks(np.arange(len(images)), at_once):
            pixels = self._pixels.roughly(images[block])
            pixels -= center
            squares = np.einsum("ij,ij->i", pixels, pixels)
            distances[:, block] = left @ pixels.T + squares
            farthest = max(farthest, math.sqrt(squares.max()))
        farthest *= 1 + self._pixels.width * _UNIT32  # which `squares` may be off by
        return distances, _above(centered, farthest, 3 * _UNIT32 * self._points.longest)


@dataclasses.dataclass(frozen=True, eq=False)
class _Points:
    """Of N images: their points, from a centre, which makes their squares, and so their rounding, small."""

    center: NDArray[np.float64]
    """(m,)."""
    factors: NDArray[np.float32]
    """(N, k + 1), of points with k coordinates: see `_right_factor`."""
    farthest: float
    """The greatest distance of a point from the centre."""
    longest: float
    """The greatest norm of an image."""


class _Lowest:
    """The projection P onto the lowest frequencies of a discrete cosine transform along each axis, as many of each axis
    as make no more than `directions` in all; along an axis of no more, the identity.

    with_rest: whether ‖Qa‖ is a coordinate of a point, too.
    """

    def __init__(self, shape: tuple[int, ...], directions: int, with_rest: bool) -> None:
        most = next(most for most in range(directions, 0, -1) if math.prod(min(s, most) for s in shape) <= directions)
        self._shape, self._with_rest = shape, with_rest
        self._factors = [_cosines(size, min(size, most)) for size in shape]
        self.coordinates = math.prod(map(len, self._factors)) + with_rest
        """Of a point."""
        self.rounding = (sum(shape) + 8) * _UNIT64
        """Norm of the error of a point of a row of norm 1, at most."""

    def points(self, rows: NDArray[np.float32], center: NDArray[np.float64]) -> NDArray[np.float64]:
        """The point of each row: Pa − centre, and ‖Qa‖."""
        pixels = rows.astype(np.float64)
        lowest = self.of(pixels)
        coordinates = [lowest - center]
        if self._with_rest:
            coordinates.append(_norms(pixels - self._back(lowest))[:, None])
        return np.hstack(coordinates)

    def of(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        """Pa, (n, m), of each row of (n, d), in float64."""
        lowest = rows.astype(np.float64, copy=False).reshape(-1, *self._shape)
        for factor in reversed(self._factors):  # each turns the last axis into the first after that of rows
            lowest = np.moveaxis(lowest @ factor.T, -1, 1)
        return lowest.reshape(len(rows), -1)

    def image(self, lowest: NDArray[np.float64]) -> NDArray[np.float32]:
        """The row (d,) in the range of P that has these coordinates, (m,)."""
        row: NDArray[np.float32] = self._back(lowest[None])[0].astype(np.float32)
        return row

    def _back(self, lowest: NDArray[np.float64]) -> NDArray[np.float64]:
        image = lowest.reshape(-1, *(len(factor) for factor in self._factors))
        for factor in self._factors:
            image = np.tensordot(image, factor, (1, 0))
        return image.reshape(len(lowest), -1)


def _cosines(size: int, count: int) -> NDArray[np.float64]:
    """(count, size): the first rows of the orthonormal cosine transform (DCT-II), or the identity for all."""
    if count == size:
        return np.eye(size)
    frequency, position = np.arange(count)[:, None], np.arange(size) + 0.5
    waves = np.cos(np.pi / size * frequency * position) * math.sqrt(2 / size)
    waves[0] = math.sqrt(1 / size)
    return waves


def _left_factor(points: NDArray[Any]) -> NDArray[np.float32]:
    """(a, 1) of each point: its product with `_right_factor` is ‖a − b‖² − ‖a‖². Without ‖a‖², the same for all b,
    distances from a distant query do not drown in rounding."""
    return np.hstack([points, np.ones((len(points), 1))]).astype(np.float32)


def _right_factor(points: NDArray[Any]) -> NDArray[np.float32]:
    """(−2b, ‖b‖²) of each point."""
    return np.hstack([-2 * points, np.square(_norms(points))[:, None]]).astype(np.float32)


def _above(points: NDArray[Any], farthest: float, off: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """What must be added to d times an MSE so that an image with a greater product of the factors has a greater MSE.

    That is −‖a‖², and what rounding explains. In whatever order k products are summed, the sum is off by less than
    k·2⁻²⁴ of that of their absolute values (and two more for the roundings of the factors), which is at most
    2‖a‖‖b‖ + ‖b‖². Twice that, for second orders; and 1e-14 for what is in float64: ‖a‖² and the MSE.

    farthest: the greatest ‖b‖. off: by how much the points themselves may be off, a and b together.
    """
    norms, terms = _norms(points), points.shape[1] + 3
    products, both = 2 * norms * farthest + farthest**2, norms + farthest
    rounding = 2 * terms * (_UNIT32 * products + _TINY) + 4 * off * (both + off) + 1e-14 * both**2
    above: NDArray[np.float64] = rounding - np.square(norms)
    return above


def _groups(hard: NDArray[np.int64], possible: NDArray[np.bool_]) -> Iterable[NDArray[np.int64]]:
    """All of these queries together, where they have most of their possible images in common; else each alone."""
    alone = np.count_nonzero(possible[hard]) * (_READING + 1)
    together = np.count_nonzero(possible[hard].any(axis=0)) * (_READING + len(hard))
    return [hard] if together < alone else hard[:, None]


def _norms(rows: NDArray[Any]) -> NDArray[np.float64]:
    """‖a‖ of each row."""
    norms: NDArray[np.float64] = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1))
    return norms


def _blocks(positions: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for begin in range(0, len(positions), max(size, 1)):
        yield positions[begin : begin + max(size, 1)]


class _Pixels:
    """The images as rows (N, d), uint8 or float32, of which some are taken as float32."""

    def __init__(self, rows: NDArray[Any]) -> None:
        self._rows, self.width = rows, rows.shape[1]

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """These rows, as a copy."""
        rows = self._rows[positions]
        return _OF_BYTES[rows] if rows.dtype == np.uint8 else rows

    def roughly(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """The same, off by two roundings where they are bytes, and several times as fast then."""
        rows = self._rows[positions]
        return np.multiply(rows, _STEP, dtype=np.float32) if rows.dtype == np.uint8 else rows


def _check_array(array: NDArray[Any]) -> float:
    """The largest absolute value of a pixel. Raises TypeError or ValueError for what is no set of images."""
    if not isinstance(array, np.ndarray) or array.dtype not in (np.float32, np.uint8):
        found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(f"the images must be Images, or an array or tensor of float32 or uint8, not {found}")
    if array.ndim < 2 or 0 in array.shape:
        raise ValueError(f"the images must be of shape (N, *shape), none of them 0, not {array.shape}")
    if array.dtype == np.uint8:
        return 1.0
    largest = max(float(array.max()), -float(array.min()))
    if not largest <= LARGEST:
        raise ValueError(f"the images must be finite, with no pixel beyond {LARGEST:g}")
    return largest


def _read(images: Images, usable: Sequence[int]) -> NDArray[Any]:
    """(N, d): uint8 if all of these were; otherwise float32."""
    width = math.prod(images.image_shape)
    rows: NDArray[Any] = np.empty((len(usable), width), np.uint8)

    def read(position: int) -> NDArray[Any]:
        pixels = images.pixels(usable[position]).reshape(-1)
        if pixels.dtype == np.uint8:
            return pixels
        as_bytes = np.rint(pixels * 255).astype(np.uint8)
        return as_bytes if np.array_equal(_OF_BYTES[as_bytes], pixels) else pixels

    for position, row in enumerate(in_threads(read, len(usable))):
        if rows.dtype == np.uint8 and row.dtype != np.uint8:
            known, rows = rows, _room(len(usable), width)
            for some in _blocks(np.arange(position), _PIXELS // width):
                rows[some] = _OF_BYTES[known[some]]
        rows[position] = _OF_BYTES[row] if rows.dtype != np.uint8 and row.dtype == np.uint8 else row
    return rows


def _room(count: int, width: int) -> NDArray[np.float32]:
    """(count, width), in a file without a name where it is large. Raises ValueError where there is no room for it."""
    size = 4 * count * width
    if size <= _IN_MEMORY:
        return np.empty((count, width), np.float32)
    try:
        with tempfile.TemporaryFile(prefix="memrecon-") as file:
            if hasattr(os, "posix_fallocate"):  # otherwise a full disk shows only as a signal that kills the process
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, np.float32, "w+", shape=(count, width))
    except OSError as error:
        raise ValueError(
            f"there is no room in {tempfile.gettempdir()} for {count} images, {in_units(size)}: {error.strerror}; "
            "TMPDIR may name another folder"
        ) from error
