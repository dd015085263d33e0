"""The tables of a survey, in the order in which they are computed."""

from __future__ import annotations

from collections.abc import Iterator

from memrecon_fast.attractors.basins import DEGRADATIONS
from memrecon_fast.attractors.survey.basin_tables import BASIN_SCHEMA, basin_name_of, basin_table
from memrecon_fast.attractors.survey.curve_table import CURVE, CURVE_SCHEMA, curve_table
from memrecon_fast.attractors.survey.harvested import (
    FOUND,
    FOUND_SCHEMA,
    STARTS,
    STARTS_SCHEMA,
    found_table,
    starts_table,
)
from memrecon_fast.attractors.survey.plan import Survey
from memrecon_fast.attractors.survey.stabilities import SCHEMA, name_of, stability_table
from memrecon_fast.attractors.survey.store import Store
from memrecon_fast.attractors.survey.table import Known, Table
from memrecon_fast.audit.plan import SPLITS

SCHEMAS = {
    **{name_of(split): SCHEMA for split in SPLITS},
    STARTS: STARTS_SCHEMA,
    FOUND: FOUND_SCHEMA,
    CURVE: CURVE_SCHEMA,
    **{basin_name_of(degradation): BASIN_SCHEMA for degradation in DEGRADATIONS},
}
"""The columns of each table that a survey may have, by its name."""


def tables_of(survey: Survey, store: Store, size: int) -> Iterator[Table]:
    """All tables. One may be made of what is in those before it: it is asked for once they are complete.

    size: rows in a block.
    """
    known = {split: Known(images) for split, images in survey.splits.items()}
    for split in survey.splits:
        yield stability_table(survey, split, size)
    if survey.harvest:
        yield starts_table(survey, size)
        found = found_table(survey, known, store.pieces(STARTS, STARTS_SCHEMA), size)
        if found.indices:
            yield found
    if survey.curve:
        yield curve_table(survey, known["members"], size)
    for degradation in survey.basins:
        yield basin_table(survey, known["members"], degradation, size)
