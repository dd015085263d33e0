"""A small audit of the photographs that `Memorised` remembers, run as the command runs it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
from torch import Tensor, nn

import memrecon_fast as mf
from memrecon_fast.audit.plan import Audit, describe
from memrecon_fast.audit.session import run_audit
from memrecon_fast.audit.store.folder import LOCK, Folder
from memrecon_fast.audit.store.manifest import DESCRIPTION
from memrecon_fast.audit.store.opening import open_run
from memrecon_fast.audit.store.parts import Parts
from memrecon_fast.audit.store.records import RECORDS, Cell, Columns, Record
from memrecon_fast.audit.worker import Workbench
from memrecon_fast.images.scan import IMAGES_SCHEMA, Images, columns_of, scan
from memrecon_fast.images.sources import from_array
from tests.helpers.memorised import Memorised

SHAPE = (3, 8, 8)
MASKS = ("center", "random-50")
SETTINGS = mf.Settings(gamma=0.5, max_outer_iterations=12, solver="paper")
METHODS = ("paper", "known-mask", "iterate")
NEVER = 1e9
"""Seconds between parts: what is done is written at the end alone."""


class Interruption:
    """Counts the records, and interrupts as Ctrl-C would when it is shown so many and one more."""

    def __init__(self, after: int | None = None) -> None:
        self.records: list[Record] = []
        self._after = after

    def __call__(self, record: Record) -> None:
        if len(self.records) == self._after:
            raise KeyboardInterrupt
        self.records.append(record)


def images_of(images: Tensor) -> Images:
    return scan(from_array(images.numpy()))


def small_audit(memorised: Memorised, controls: int = 16, **changes: Any) -> Audit:
    splits = {"members": images_of(memorised.members)}
    if controls:
        splits["controls"] = images_of(memorised.controls[:controls])
    masks = {name: mf.degradation.make_mask(name, SHAPE) for name in MASKS}
    audit = Audit(splits, masks, METHODS, SETTINGS, backend="torch", slots=8)
    return dataclasses.replace(audit, **changes)


def run(
    audit: Audit,
    autoencoder: nn.Module,
    path: Path,
    *,
    report: Callable[[Record], None] | None = None,
    seconds: float = NEVER,
    parts: str | None = None,
) -> list[str]:
    """Begin the run or continue it; returns the remarks, and the messages on images that were skipped."""
    remarks: list[str] = []
    description = describe(audit, autoencoder, "cpu", "model", dict.fromkeys(audit.splits, "somewhere"), parts)
    with open_run(audit.splits, description, path, False, remarks.append) as opened:
        bench = Workbench(audit, audit.prepare(autoencoder), opened.folder.parts, seconds)
        run_audit(
            audit,
            opened.folder,
            lambda method, shards, wanted: bench.work(method, shards, wanted, report or Interruption(), remarks.append),
        )
    return remarks


def make_record(cell: Cell, index: int, **changes: Any) -> Record:
    record = Record(
        index=index,
        name=f"{index}.png",
        sha256=hashlib.sha256(bytes([index % 256])).hexdigest(),
        split=cell.split,
        mask=cell.mask,
        method=cell.method,
        mse=0.25,
        psnr=6.5,
        accurate=False,
        approximate=False,
        diverged=False,
        status="CONVERGED",
        outer_iterations=3,
        evaluations=78,
        residual=1e-10,
        wrong_mask_share=0.125,
        fixed_point_mse=2e-6,
        misfit=1e-6,
        explained=0.99,
        score=3e-6,
        gamma=0.5,
        attempts=2,
        accepted=5,
        rejected=1,
        mask_changes=4,
        erased_mse=0.05,
    )
    return dataclasses.replace(record, **changes)


def known_images(count: int) -> Columns:
    """Of members and controls, so many each: as `make_record` names them."""
    indices = [*range(count)] * 2
    records = [make_record(Cell("members", "center", "paper"), index) for index in indices]
    columns: dict[str, list[Any]] = {
        "split": ["members"] * count + ["controls"] * count,
        "index": indices,
        "name": [record.name for record in records],
        "sha256": [record.sha256 for record in records],
        "problem": [None] * len(indices),
        "near_duplicate_of": [None] * len(indices),
    }
    return columns_of(pa.table(columns, IMAGES_SCHEMA))


def folder_of(path: Path) -> Folder:
    return Folder(path, Parts(str(path / RECORDS)))


def contents(path: Path) -> dict[str, bytes]:
    """All files below, by their relative paths, without those that say who worked there, and when."""
    files = (file for file in path.rglob("*") if file.is_file() and file.name not in (DESCRIPTION, LOCK))
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def read_all(path: Path, cells: Iterable[Cell]) -> dict[Cell, Columns]:
    """The records of those of the cells that have any."""
    read = {cell: folder_of(path).read(cell) for cell in cells}
    return {cell: columns for cell, columns in read.items() if len(columns["index"])}
