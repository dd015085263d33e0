"""Tables of basins: from how far away iteration comes back to each training image."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import torch

from memrecon_fast.attractors.basins import DEGRADATIONS, DRAWS, MAX_ITERATIONS, Basins, Trial, needed_of, returns_of
from memrecon_fast.attractors.jacobian import Jacobian
from memrecon_fast.attractors.survey.plan import Survey
from memrecon_fast.attractors.survey.table import INDEX, Known, Table, read_images, tensor_of

_COUNTS = ("draws", "back", "another", "diverged", "unsettled", "began_near", "evaluations")
"""The columns of `basins.Basins`, a number for each level."""
BASIN_SCHEMA = pa.schema(
    [
        pa.field(INDEX, pa.int64(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        *(pa.field(name, pa.list_(pa.int64()), nullable=False) for name in _COUNTS),
    ]
)


def basin_name_of(degradation: str) -> str:
    """The name of the table for this way to move away from an image."""
    return f"basins-{degradation}"


def basin_table(survey: Survey, members: Known, degradation: str, size: int) -> Table:
    """How far the members reach; see `basins.DEGRADATIONS`."""
    rows = functools.partial(_rows, survey, members, degradation)
    return Table(basin_name_of(degradation), BASIN_SCHEMA, tuple(members.images.usable()), size, rows)


def basins_of(rows: pa.Table, plan: Mapping[str, Any], degradation: str) -> Basins:
    """The basins of these rows, at least one. plan: of the survey."""
    return Basins(
        degradation=degradation,
        levels=torch.tensor(plan["basins"][degradation], dtype=torch.float64, device="cpu"),
        needed=needed_of(plan["draws"]),
        **{name: tensor_of(rows, name) for name in _COUNTS},
    )


def _rows(
    survey: Survey, members: Known, degradation: str, jacobian: Jacobian, indices: Sequence[int]
) -> Mapping[str, Any]:
    images = dict(zip(indices, read_images(members.images, indices), strict=True))
    trial = Trial(
        prox=jacobian.prox,
        images=images,
        indices=indices,
        nearest=members.nearest,
        degradation=DEGRADATIONS[degradation],
        levels=DEGRADATIONS[degradation].usual,
        draws=DRAWS,
        seed=survey.seed,
        max_iterations=MAX_ITERATIONS,
        slots=survey.slots,
    )
    found = dataclasses.asdict(returns_of(trial, indices))
    return {
        "name": [members.images.names[index] for index in indices],
        **{name: list(found[name].long().numpy()) for name in _COUNTS},
    }
