"""The records of an audit, one for each image of a cell, as rows of Parquet files.

While a cell is worked on, its rows are in part files, written by whoever does the work. A complete cell is one file, in
the order of the indices, and the same byte for byte however the work was done.
"""

from __future__ import annotations

import dataclasses
import hashlib
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from memrecon_fast.common.files import replacing

RECORDS = "records"
_PLAN = b"memrecon_fast.plan"
_LONGEST_QUOTED = 100  # bytes; file systems allow 255 for a name, with split, method, suffix and the temporary parts
MAX_PSNR = 120.0
"""dB. PSNR is infinite for equal images; float32 does not tell apart what lies above this (an MSE below 1e-12)."""


@dataclasses.dataclass(frozen=True, order=True)
class Cell:
    """A part of an audit: the images of one split, under one mask, by one method."""

    split: str
    """"members" or "controls"."""
    mask: str
    method: str

    @property
    def file_stem(self) -> str:
        """The name of its files without the suffix; no two cells share one."""
        mask = urllib.parse.quote(self.mask, safe="")
        if len(mask) > _LONGEST_QUOTED:  # "+" is in no quoted name
            mask = f"{mask[:_LONGEST_QUOTED]}+{hashlib.sha256(self.mask.encode()).hexdigest()[:16]}"
        return f"{self.split}.{self.method}.{mask}"


@dataclasses.dataclass(frozen=True)
class Record:
    """The result for one image under one mask by one method."""

    index: int
    """Its place in its split; noise and initial mask are keyed by (seed, index)."""
    name: str
    """The image's name in its split: of a file its path, of an array its index."""
    sha256: str
    """Of its pixels, see `images.Images`."""
    split: str
    """ "members" or "controls"."""
    mask: str
    """The mask's name."""
    method: str
    """The method's name."""
    mse: float | None
    """Mean squared error of the estimate as it is; NaN or infinite where it diverged. None, as in the three columns
    that follow, where the original is unknown."""
    psnr: float | None
    """dB, of the estimate clipped to [0, 1]; at most `MAX_PSNR`."""
    accurate: bool | None
    """Whether it did not diverge and its MSE is below `metrics.ACCURATE_MSE`."""
    approximate: bool | None
    """The same with `metrics.APPROXIMATE_MSE`."""
    diverged: bool
    """Whether the status is DIVERGED."""
    status: str
    """The name of a `Status`."""
    outer_iterations: int
    """Outer iterations of the solver; 1 by methods that have none."""
    evaluations: int
    """Applications of the autoencoder; 0 where they were not counted."""
    residual: float
    """MSE between the last two estimates; NaN where there was only one."""
    wrong_mask_share: float | None
    """Share of the mask's entries that were estimated wrongly; None where the method estimates none, or where the true
    mask is unknown."""
    fixed_point_mse: float
    """Mean squared change by one application of the autoencoder to the estimate; NaN or infinite where it diverged."""
    misfit: float
    """Mean squared difference of the degraded image and the estimate under its mask; NaN or infinite as above."""
    explained: float
    """Share of the squares of the degraded image that the estimate explains under its mask."""
    score: float
    """`results.score_of` the three values above; a low score means recognized, see `analysis.recognition`."""
    gamma: float | None
    """The penalty γ of the estimate; None where the method has none."""
    attempts: int
    """Pairs of γ and initial mask that were tried."""
    accepted: int
    """Accepted extrapolations of the accelerated solver."""
    rejected: int
    """Rejected extrapolations, which made the residual grow."""
    mask_changes: int
    """How often the accelerated solver changed its estimate of the mask."""
    erased_mse: float | None
    """‖(1 − H)x‖²/d: by how much the image x and its degraded copy differ through the mask alone; where the original is
    unknown, of the estimate and its mask, infinite where it diverged. Below `metrics.APPROXIMATE_MSE` the copy passes
    for the image, and what comes back says nothing of the model: it counts nowhere. None where an earlier version wrote
    the record: it is not known."""
    nearest_member: int | None = None
    """The member that the estimate is nearest to, of all that can be used, within an MSE of `NEAR_MSE`: its index. None
    where none is so near, where it diverged, or is out of all proportion, where the originals are unknown, and where an
    earlier version wrote the record."""
    nearest_member_mse: float | None = None
    """Mean squared error of the estimate from that member; below `metrics.APPROXIMATE_MSE` it is that member. Infinite
    where no member is near; None where it was compared with none, as above."""
    shown_member_mse: float | None = None
    """The same of the degraded copy from that member: below `metrics.APPROXIMATE_MSE` the member was shown, and did not
    come out. None where no member is near."""
    flat_mse: float | None = None
    """Mean squared error of the image's mean colour, everywhere, from it: its variance within channels. Below
    `metrics.APPROXIMATE_MSE` that colour passes for the image, and so does any estimate near it. None where the
    original is unknown, and where an earlier version wrote the record."""


_OPTIONAL = " | None"
_KINDS = {"int": pa.int64(), "float": pa.float64(), "str": pa.string(), "bool": pa.bool_()}
SCHEMA = pa.schema(
    [
        pa.field(field.name, _KINDS[kind.removesuffix(_OPTIONAL)], nullable=kind.endswith(_OPTIONAL))
        for field in dataclasses.fields(Record)
        for kind in [str(field.type)]
    ]
)

NEAREST = ("nearest_member", "nearest_member_mse", "shown_member_mse")
"""The columns on the member that an estimate is nearest to: all null, or none, or the error alone, infinite."""

NEAR_MSE = 1e-2
"""A member further from an estimate is not looked for: twenty times the error of an approximate recovery, and a tenth
of what photographs differ by. To find the nearest among members that are all far takes longest."""

LATER = ("erased_mse", *NEAREST, "flat_mse")
"""Columns that earlier versions did not write: of their rows these are null."""

THUMBNAIL = "thumbnail"
"""The column of part files with thumbnails, which earlier versions did not write either."""

Columns = dict[str, NDArray[Any]]


def cell_path(run: Path, cell: Cell) -> Path:
    """The file of a complete cell."""
    return run / RECORDS / f"{cell.file_stem}.parquet"


def write_cell(run: Path, cell: Cell, table: pa.Table, plan: str = "") -> None:
    """Write the rows of a cell, in the order of their indices; the file appears whole or not at all.

    plan: see `of_plan`.
    """
    path = cell_path(run, cell)
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary:
        rows = table.select(SCHEMA.names).cast(SCHEMA).combine_chunks()  # where pages end depends on the chunks
        pq.write_table(of_plan(rows, plan), temporary, write_page_checksum=True)


def of_plan(table: pa.Table, plan: str) -> pa.Table:
    """The table with a note of the audit that it is of: `manifest.plan_digest`; "" is none."""
    return table.replace_schema_metadata({_PLAN: plan} if plan else None)


def read_table(
    source: Any, what: str, schema: pa.Schema, columns: Sequence[str] | None = None, plan: str = ""
) -> pa.Table:
    """The rows of a Parquet file, or these columns of them.

    plan: see `of_plan`; a file without that note, as earlier versions wrote them, is taken.

    Raises ValueError, which names the file as `what`, where it is damaged, holds something else, or is of another
    audit.
    """
    try:
        with pq.ParquetFile(source, page_checksum_verification=True) as file:
            noted = (file.schema_arrow.metadata or {}).get(_PLAN, b"").decode()
            if plan and noted and noted != plan:
                raise ValueError(f"{what} is of another audit: another model, other images, masks or settings")
            later = [name for name in (*LATER, THUMBNAIL) if name in schema.names]
            absent = [name for name in later if name not in file.schema_arrow.names]
            if not file.schema_arrow.equals(pa.schema([field for field in schema if field.name not in absent])):
                raise ValueError(f"{what} holds no records of an audit: its columns are {file.schema_arrow.names}")
            wanted = schema.names if columns is None else list(columns)
            table = file.read([name for name in wanted if name not in absent])
            for name in absent:
                table = table.append_column(schema.field(name), pa.nulls(len(table), schema.field(name).type))
            return table.select(wanted)
    except (pa.ArrowException, OSError) as error:  # ArrowInvalid is a ValueError as well, but names no file
        raise ValueError(f"{what} cannot be read as records of an audit: {error}") from error
