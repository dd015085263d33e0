"""Tables of a harvest: what came of each random start, and the different fixed points among them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from memrecon_fast.attractors.ends import End, Ends, Search, ends_of
from memrecon_fast.attractors.harvest import Gathering
from memrecon_fast.attractors.jacobian import Jacobian
from memrecon_fast.attractors.stability import stability_of
from memrecon_fast.attractors.survey.plan import Survey
from memrecon_fast.attractors.survey.stabilities import VERDICT_FIELDS, verdict_columns
from memrecon_fast.attractors.survey.table import INDEX, Known, Table, Usable, pictures_of
from memrecon_fast.audit.store.parts import pack, unpack
from memrecon_fast.audit.store.pictures import to_picture
from memrecon_fast.images.nearest import NONE

STARTS, FOUND = "starts", "harvest"
"""The names of the two tables."""
STARTS_SCHEMA = pa.schema(
    [
        pa.field(INDEX, pa.int64(), nullable=False),
        pa.field("end", pa.string(), nullable=False),  # the name of an `End`
        pa.field("residual_mse", pa.float32(), nullable=False),  # ‖f(x) − x‖²/d of the end
        pa.field("evaluations", pa.int32(), nullable=False),
        pa.field("image", pa.binary()),  # float32 (C, H, W), as `parts.pack` makes it, where it is a fixed point
    ]
)
FOUND_SCHEMA = pa.schema(
    [
        pa.field(INDEX, pa.int64(), nullable=False),  # by falling number of starts
        pa.field("starts", pa.int64(), nullable=False),  # so many came to it
        pa.field("first_start", pa.int64(), nullable=False),
        *VERDICT_FIELDS,
        *(
            field
            for split in ("member", "control")  # the nearest one; null where there are none
            for field in (
                pa.field(split, pa.int64()),
                pa.field(f"{split}_name", pa.string()),
                pa.field(f"{split}_mse", pa.float64()),
                pa.field(f"{split}_correlation", pa.float64()),  # of all pixels; NaN where one of them is uniform
                pa.field(f"{split}_picture", pa.binary()),
            )
        ),
        pa.field("image", pa.binary(), nullable=False),  # float32 (C, H, W), as `parts.pack` makes it
        pa.field("picture", pa.binary(), nullable=False),  # uint8 (C, H, W), as a report shows it
    ]
)


def starts_table(survey: Survey, size: int) -> Table:
    """What comes of each start; it ends once new ones bring nothing new."""
    rows = functools.partial(_ends, survey.kind, survey.seed, pictures_of(survey))
    stop = functools.partial(_Settling, survey.shape)
    return Table(STARTS, STARTS_SCHEMA, tuple(range(survey.harvest)), size, rows, stop)


def found_table(survey: Survey, known: Mapping[str, Known], starts: Iterable[pa.Table], size: int) -> Table:
    """The different fixed points among the ends, with a verdict on each, and the images that are nearest to it.

    known: the images of each split. starts: the rows of the table of starts, block by block.
    """
    clusters = gather(survey.shape, starts).clusters()
    images = np.zeros((len(clusters), *survey.shape), np.float32)
    for row, one in enumerate(clusters):
        images[row] = one.image.reshape(survey.shape)
    found = _Clusters(
        torch.from_numpy(images),
        [one.first for one in clusters],
        [one.count for one in clusters],
        {split.removesuffix("s"): of_split for split, of_split in known.items()},
    )
    rows = functools.partial(_verdicts, found, survey.k, survey.tolerance, survey.seed, survey.slots)
    return Table(FOUND, FOUND_SCHEMA, tuple(range(len(clusters))), size, rows)


def gather(image_shape: tuple[int, ...], starts: Iterable[pa.Table]) -> Gathering:
    """What is known of the starts, of the rows of their table, block by block, from the first one on."""
    gathering = Gathering(image_shape)
    for rows in starts:
        gathering.add(_ends_of_rows(rows, image_shape))
    return gathering


@dataclasses.dataclass(frozen=True, eq=False)
class _Clusters:
    """Fixed points that were found."""

    images: Tensor
    """float32 (A, C, H, W)."""
    firsts: list[int]
    """Of each the index of the first start that came to it."""
    counts: list[int]
    """Of each how many did."""
    compared: Mapping[str, Known]
    """"member" and "control": what they are compared with."""


class _Settling:
    """Sees the blocks of starts; see `table.Stop`."""

    def __init__(self, image_shape: tuple[int, ...]) -> None:
        self._shape, self._gathering = image_shape, Gathering(image_shape)

    def add(self, rows: pa.Table) -> bool:
        self._gathering.add(_ends_of_rows(rows, self._shape))
        return self._gathering.settled


def _ends(
    kind: str, seed: int, pictures: Usable | None, jacobian: Jacobian, indices: Sequence[int]
) -> Mapping[str, Any]:
    ends = ends_of(Search(jacobian, kind, pictures, seed), indices)
    names = [End(status).name for status in ends.status.tolist()]
    return {
        "end": names,
        "residual_mse": ends.residual_mse.numpy(),
        "evaluations": ends.evaluations.numpy(),
        "image": [
            pack(image.numpy()) if name == End.FIXED_POINT.name else None
            for image, name in zip(ends.images, names, strict=True)
        ],
    }


def _ends_of_rows(rows: pa.Table, image_shape: tuple[int, ...]) -> Ends:
    """The inverse of `_ends`, but for images that are no fixed points, which are zeros."""
    images = np.zeros((len(rows), *image_shape), np.float32)
    for row, content in enumerate(rows["image"]):
        if content.is_valid:
            images[row] = unpack(content.as_py())
    return Ends(
        indices=torch.tensor(rows[INDEX].to_pylist(), dtype=torch.int64),
        images=torch.from_numpy(images),
        residual_mse=torch.tensor(rows["residual_mse"].to_pylist(), dtype=torch.float32),
        evaluations=torch.tensor(rows["evaluations"].to_pylist(), dtype=torch.int32),
        status=torch.tensor([int(End[name]) for name in rows["end"].to_pylist()], dtype=torch.int8),
    )


def _verdicts(
    found: _Clusters,
    k: int,
    tolerance: float,
    seed: int,
    slots: int | None,
    jacobian: Jacobian,
    indices: Sequence[int],
) -> Mapping[str, Any]:
    images, firsts = found.images[list(indices)], [found.firsts[index] for index in indices]
    stability = stability_of(jacobian, images, firsts, k, tolerance, seed=seed, rows=slots)
    near = stability.fixed_points.near.view(-1, 1, 1, 1)
    images = torch.where(near, stability.fixed_points.images, images)
    columns: dict[str, Any] = {
        "starts": [found.counts[index] for index in indices],
        "first_start": firsts,
        **verdict_columns(stability),
        "image": [pack(image.numpy()) for image in images],
        "picture": [pack(to_picture(image)) for image in images],
    }
    for split in ("member", "control"):
        columns |= _nearest(split, found.compared.get(split), images)
    return columns


def _nearest(split: str, compared: Known | None, images: Tensor) -> dict[str, Any]:
    """The columns about the nearest of the images that these are compared with."""
    names = [split, f"{split}_name", f"{split}_mse", f"{split}_correlation", f"{split}_picture"]
    if compared is None:
        return {name: [None] * len(images) for name in names}
    known = compared.nearest
    nearest, mse = (column.tolist() for column in known.of(images))
    of = [None if index == NONE else index for index in nearest]
    columns = (
        of,
        [None if index is None else compared.images.names[index] for index in of],
        [None if index is None else one for index, one in zip(of, mse, strict=True)],
        [None if index is None else _correlation(known[index], image) for index, image in zip(of, images, strict=True)],
        [None if index is None else pack(to_picture(known[index])) for index in of],
    )
    return dict(zip(names, columns, strict=True))


def _correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's, of all pixels: near 1 where one is the other in another brightness or contrast."""
    a, b = (image.double().flatten() - image.double().mean() for image in (a, b))
    return float((a @ b) / (a.norm() * b.norm()))
