"""What an audit keeps of every image, and its Parquet files: one for each split, mask and method."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

RECORDS = "records"
_LONGEST_QUOTED = 100  # bytes; file systems allow 255 for a name, with split, method, suffix and the temporary parts
MOST_PSNR = 120.0
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
    """What came of one image."""

    index: int
    """Its place in its split; noise and initial mask are keyed by (seed, index)."""
    name: str
    split: str
    mask: str
    method: str
    mse: float
    """Mean squared error of the estimate as it is; NaN or infinite where it diverged."""
    psnr: float
    """dB, of the estimate clipped to [0, 1]; at most `MOST_PSNR`."""
    accurate: bool
    """Whether it did not diverge and its MSE is below `metrics.ACCURATE_MSE`."""
    approximate: bool
    """The same with `metrics.APPROXIMATE_MSE`."""
    diverged: bool
    status: str
    """The name of a `Status`."""
    outer_iterations: int
    evaluations: int
    """Applications of the autoencoder."""
    residual: float
    """MSE between the last two estimates; NaN where there was only one."""
    wrong_mask_share: float | None
    """Share of the mask's entries that were estimated wrongly; None where the method estimates none."""


SCHEMA = pa.schema(
    [
        pa.field(field.name, kind, nullable=field.name == "wrong_mask_share")
        for field in dataclasses.fields(Record)
        for kind in [{"int": pa.int64(), "str": pa.string(), "bool": pa.bool_()}.get(str(field.type), pa.float64())]
    ]
)

Columns = dict[str, NDArray[Any]]


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Write the records, in the order of their indices, to a Parquet file that appears whole or not at all."""
    rows = [dataclasses.asdict(record) for record in sorted(records, key=lambda record: record.index)]
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), temporary)


def read_records(run: Path) -> dict[Cell, Columns]:
    """The records of a run: for each cell the columns of `Record`, as arrays. Raises ValueError for what is no run."""
    cells: dict[Cell, Columns] = {}
    for path in sorted((run / RECORDS).glob("*.parquet")):
        try:
            with pq.ParquetFile(path) as file:
                table = file.read()
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path} cannot be read as records of an audit: {error}") from error
        if not table.schema.equals(SCHEMA) or not len(table):
            raise ValueError(f"{path} holds no records of an audit: {len(table)} rows of {table.column_names}")
        columns = {name: table[name].to_numpy() for name in table.column_names}
        cells[Cell(*(str(columns[name][0]) for name in ("split", "mask", "method")))] = columns
    if not cells:
        raise ValueError(f"{run} holds no records of an audit (*.parquet in {RECORDS})")
    return cells


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place once the block has ended well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
