"""Runs of audits whose every number is known: written with the project's own functions, from errors that are given."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

import memrecon_fast as mf
from memrecon_fast.audit.analysis.results import Results, read_results
from memrecon_fast.audit.analysis.statistics import choose_shown
from memrecon_fast.audit.plan import Audit, describe
from memrecon_fast.audit.store.folder import Folder
from memrecon_fast.audit.store.manifest import session, write_description
from memrecon_fast.audit.store.opening import IMAGES
from memrecon_fast.audit.store.parts import Parts, Row
from memrecon_fast.audit.store.records import MAX_PSNR, RECORDS, Cell, Record
from memrecon_fast.degradation import make_mask
from memrecon_fast.images.scan import CELLS, Images, write_images
from memrecon_fast.images.sources import Source

SHAPE = (3, 8, 8)
UNKNOWN: dict[str, Any] = dict.fromkeys(("mse", "psnr", "accurate", "approximate", "wrong_mask_share"))


def make_images(names: Sequence[str], problems: Mapping[int, str], shape: tuple[int, int, int] = SHAPE) -> Images:
    """Images of which everything is known but the pixels."""
    hashes = ["" if i in problems else hashlib.sha256(name.encode()).hexdigest() for i, name in enumerate(names)]
    thumbnails = np.zeros((len(names), shape[0] * CELLS * CELLS), np.float32)
    source = Source(tuple(names), lambda index: np.zeros((*shape[1:], shape[0]), np.uint8))
    return Images(source, shape, tuple(names), tuple(hashes), problems, thumbnails)


def make_run(
    path: Path,
    errors: Mapping[Cell, ArrayLike],
    *,
    names: Mapping[str, Sequence[str]] | None = None,
    problems: Mapping[str, Mapping[int, str]] | None = None,
    near_duplicates: Mapping[int, int] | None = None,
    unfinished: Sequence[Cell] = (),
    sessions: int = 1,
    model: str = "model.safetensors",
    shape: tuple[int, int, int] = SHAPE,
    picture: NDArray[np.uint8] | None = None,
    degraded: bool = False,
    noise_std: float = 0.0,
) -> Results:
    """Write a run and read it.

    errors: the MSE of each image of each cell, 0.3 of which is its score; NaN: not done; infinite: diverged. degraded:
        the originals are unknown, so that no record has an MSE; the mask is "given". problems, near_duplicates: as
    `write_images` has them. unfinished: these cells stay in part files. picture: (4, C, H, W), that of every image.
    """
    splits = list(dict.fromkeys(cell.split for cell in errors))
    masks = list(dict.fromkeys(cell.mask for cell in errors))
    count = {cell.split: len(np.asarray(values)) for cell, values in errors.items()}
    named = names or {split: [f"{split}-{i}.png" for i in range(count[split])] for split in splits}
    images = {split: make_images(named[split], (problems or {}).get(split, {}), shape) for split in splits}
    audit = Audit(
        splits=images,
        masks={mask: make_mask("half", shape) for mask in masks},
        methods=tuple(dict.fromkeys(cell.method for cell in errors)),
        degraded=degraded,
        noise_std=noise_std,
    )
    path.mkdir(parents=True, exist_ok=True)
    description = describe(audit, torch.nn.Identity(), "cpu", model, dict.fromkeys(splits, "somewhere"), None)
    for _ in range(sessions):
        ended = {"seconds": 12.5, "recoveries": 7, "execution": {"paper": "cpp, captured, 64 slots"}}
        description["sessions"].append(session(None, None) | ended)
    write_description(path, description)
    write_images(path / IMAGES, images, near_duplicates or {})
    folder = Folder(path, Parts(str(path / RECORDS)))
    if picture is None:
        picture = np.zeros((4, *shape), np.uint8)
    for cell, values in errors.items():
        mse = np.asarray(values, np.float64)
        done = np.flatnonzero(~np.isnan(mse))
        if not len(done):
            continue
        rows = [make_row(cell, images[cell.split], int(index), float(mse[index]), picture) for index in done]
        if degraded:
            rows = [Row(dataclasses.replace(row.record, **UNKNOWN), row.picture) for row in rows]
        folder.parts.write(cell, rows[::-1])
        if cell not in unfinished:
            chosen = Cell(cell.split, cell.mask, audit.headline)  # whose pictures all methods keep, if they have them
            columns = folder.read(chosen if chosen in errors else cell)
            folder.complete(cell, list(choose_shown(columns)), [])
    return read_results(path)


GIVEN_OUT = ("compared", "own_member", "other_member", "different_members")


def without_new(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The summary as version e44d08c made it: without what was added since."""
    new = ("nothing_erased", *GIVEN_OUT)
    rows = [{name: value for name, value in row.items() if name not in new} for row in summary["rows"]]
    added = ("erased_unknown", "copies", "doubts", "given_out", "traits", "low_contrast")
    compared = {
        name: [{**one, "at": [_earlier(at) for at in one["at"] if at["false_positive_rate"] < 0.01]} for one in value]
        for name, value in summary.items()
        if name.startswith("comparisons")
    }
    return {**{name: value for name, value in summary.items() if name not in added}, **compared, "rows": rows}


def _earlier(at: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in at.items() if name != "told"}


def make_row(cell: Cell, images: Images, index: int, mse: float, picture: NDArray[np.uint8] | None) -> Row:
    """What came of an image."""
    diverged = bool(np.isinf(mse))
    record = Record(
        index=index,
        name=images.names[index],
        sha256=images.sha256[index],
        split=cell.split,
        mask=cell.mask,
        method=cell.method,
        mse=mse,
        psnr=5.0 if diverged else min(MAX_PSNR, -10 * float(np.log10(mse))),
        accurate=not diverged and mse < mf.metrics.ACCURATE_MSE,
        approximate=not diverged and mse < mf.metrics.APPROXIMATE_MSE,
        diverged=diverged,
        status="DIVERGED" if diverged else "CONVERGED",
        outer_iterations=1 + index % 7,
        evaluations=39 * (1 + index % 7),
        residual=1e-10,
        wrong_mask_share=0.25 if cell.method == "paper" else None,
        fixed_point_mse=0.2 * mse,
        misfit=0.1 * mse,
        explained=0.99,
        score=0.3 * mse,
        gamma=None if cell.method == "iterate" else 0.5,
        attempts=2,
        accepted=5,
        rejected=1,
        mask_changes=4,
        erased_mse=0.05,
    )
    return Row(record, picture)
