"""The table of a recovery curve: which training image is nearest to each start after so many applications of f."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import torch

from memrecon_fast.attractors.curves import SHOWN, TIMES, Course, RecoveryCurve, one_step_of, passages_of
from memrecon_fast.attractors.flight import rows_at_once
from memrecon_fast.attractors.jacobian import Jacobian
from memrecon_fast.attractors.survey.plan import Survey
from memrecon_fast.attractors.survey.table import INDEX, Known, Table, pictures_of, tensor_of
from memrecon_fast.audit.store.parts import pack
from memrecon_fast.audit.store.pictures import to_picture
from memrecon_fast.images.nearest import NONE

CURVE = "curve"
"""The name of the table."""
PICTURES = ("start_picture", "step_picture", "member_picture")
CURVE_SCHEMA = pa.schema(
    [
        pa.field(INDEX, pa.int64(), nullable=False),
        pa.field("nearest", pa.list_(pa.int64()), nullable=False),  # at each time: a member, or −1 where it diverged
        pa.field("nearest_mse", pa.list_(pa.float64()), nullable=False),  # NaN where it diverged
        # of the first few starts: the start, what one application makes of it, and the member nearest to that, as uint8
        # (C, H, W); null of the others, and the last where there is none
        *(pa.field(name, pa.binary()) for name in PICTURES),
    ]
)


def curve_table(survey: Survey, members: Known, size: int) -> Table:
    """What the starts come by."""
    rows = functools.partial(_rows, survey, members)
    return Table(CURVE, CURVE_SCHEMA, tuple(range(survey.curve)), size, rows)


def curve_of(rows: pa.Table, plan: Mapping[str, Any], members: int) -> RecoveryCurve:
    """The curve of these rows, at least one; without pictures. plan: of the survey. members: how many there are."""
    none = torch.zeros(0, *plan["image_shape"], dtype=torch.float32, device="cpu")
    return RecoveryCurve(
        times=torch.tensor(plan["times"], dtype=torch.int64, device="cpu"),
        nearest=tensor_of(rows, "nearest"),
        nearest_mse=tensor_of(rows, "nearest_mse"),
        kind=plan["kind"],
        members=members,
        shown=none,
        one_step=none,
        one_step_nearest=torch.zeros(0, dtype=torch.int64, device="cpu"),
    )


def _rows(survey: Survey, members: Known, jacobian: Jacobian, indices: Sequence[int]) -> Mapping[str, Any]:
    at_once = min(rows_at_once(jacobian.prox, survey.slots), len(indices))
    course = Course(
        prox=jacobian.prox,
        nearest=members.nearest,
        starts=survey.kind,
        count=survey.curve,
        times=TIMES,
        seed=survey.seed,
        pictures=pictures_of(survey),
        rows=at_once,
    )
    found = passages_of(course, indices)
    shown = [index for index in indices if index < SHOWN]
    pictures = _pictures(course, members, shown) if shown else {name: [] for name in PICTURES}
    return {
        "nearest": list(found.nearest.numpy()),
        "nearest_mse": list(found.nearest_mse.numpy()),
        **{name: column + [None] * (len(indices) - len(shown)) for name, column in pictures.items()},
    }


def _pictures(course: Course, members: Known, indices: Sequence[int]) -> dict[str, list[bytes | None]]:
    starts, ends = one_step_of(course, indices)
    nearest = members.nearest.of(ends)[0].tolist()
    columns = (
        [pack(to_picture(start)) for start in starts],
        [None if one == NONE else pack(to_picture(end)) for one, end in zip(nearest, ends, strict=True)],
        [None if one == NONE else pack(to_picture(members.nearest[one])) for one in nearest],
    )
    return dict(zip(PICTURES, columns, strict=True))
