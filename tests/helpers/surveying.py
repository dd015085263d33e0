"""A small survey of the photographs that `Memorised` remembers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from memrecon_fast.attractors.survey.manifest import DESCRIPTION
from memrecon_fast.attractors.survey.plan import Survey
from memrecon_fast.attractors.survey.table import INDEX, Table
from memrecon_fast.audit.store.folder import LOCK
from tests.helpers.auditing import images_of
from tests.helpers.memorised import Memorised

OF_SESSIONS = (DESCRIPTION, LOCK, "summary.json", "report.html")
SCHEMA = pa.schema([pa.field(INDEX, pa.int64(), nullable=False), pa.field("square", pa.int64(), nullable=False)])


def small_survey(memorised: Memorised, controls: int = 6, members: int = 16, **changes: Any) -> Survey:
    splits = {"members": images_of(memorised.members[:members])}
    if controls:
        splits["controls"] = images_of(memorised.controls[:controls])
    return Survey(splits, **{"harvest": 64, **changes})


def tables_in(run: Path) -> dict[str, bytes]:
    """All files below, by their relative paths, without those that say who worked there, and when."""
    files = (file for file in run.rglob("*") if file.is_file() and file.name not in OF_SESSIONS)
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


def squares(count: int, size: int, **changes: Any) -> Table:
    """A table that needs no model."""
    return Table("squares", SCHEMA, tuple(range(count)), size, _squares, **changes)


def _squares(jacobian: object, indices: Sequence[int]) -> dict[str, Any]:
    return {"square": [index**2 for index in indices]}


def save_arrays(folder: Path, **images: Tensor) -> None:
    for name, pixels in images.items():
        np.save(folder / f"{name}.npy", pixels.numpy())
