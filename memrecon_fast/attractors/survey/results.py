"""All that a summary of a survey is made of, read from its folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from memrecon_fast.attractors.harvest import Gathering
from memrecon_fast.attractors.survey.harvested import STARTS, STARTS_SCHEMA, gather
from memrecon_fast.attractors.survey.manifest import plan_digest, read_description
from memrecon_fast.attractors.survey.store import Store
from memrecon_fast.attractors.survey.table import INDEX
from memrecon_fast.attractors.survey.tables import SCHEMAS
from memrecon_fast.audit.store.opening import read_known_images
from memrecon_fast.audit.store.records import Columns


class NothingDoneError(ValueError):
    """There is no row in any table yet."""


@dataclasses.dataclass(frozen=True)
class Results:
    """What a survey has found so far."""

    path: Path
    description: dict[str, Any]
    """The content of `attractors.json`."""
    tables: Mapping[str, pa.Table]
    """By name, but for that of the starts of a harvest; those of which nothing is done are not there."""
    gathering: Gathering | None
    """What came of the starts of a harvest so far; None where there is to be none."""
    images: Columns | None
    """Of all splits, see `scan.read_images`; None where no images were given."""

    def is_complete(self, name: str) -> bool:
        """Whether all rows of a table are there."""
        return Store(self.path, plan_digest(self.description)).has_complete(name)

    @property
    def splits(self) -> list[str]:
        """Those that were given: members, or members and controls, or none."""
        return list(self.description["plan"]["images"])

    def usable(self, split: str) -> int:
        """How many images of a split can be used."""
        count = self.description["counts"][split]
        return int(count["images"] - count["unusable"])


def read_results(run: Path) -> Results:
    """Read a run. Raises NothingDoneError, and ValueError where a file is damaged."""
    description = read_description(run)
    store = Store(run, plan_digest(description))
    tables = {
        name: rows for name, schema in SCHEMAS.items() if name != STARTS and len(rows := store.read(name, schema))
    }
    gathering = None
    if description["plan"]["harvest"]:
        pieces = _without_gaps(store.pieces(STARTS, STARTS_SCHEMA))
        gathering = gather(tuple(description["plan"]["image_shape"]), pieces)
    if not tables and not (gathering and gathering.starts):
        raise NothingDoneError(f"nothing is done of the survey in {run} yet: the same command goes on")
    images = read_known_images(run, description) if description["plan"]["images"] else None
    return Results(run, description, tables, gathering, images)


def _without_gaps(pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Those that follow each other from row 0 on: workers may be ahead."""
    expected = 0
    for rows in pieces:
        if rows[INDEX][0].as_py() != expected:
            return
        expected += len(rows)
        yield rows
