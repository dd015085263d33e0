"""Tables that are wanted as a pandas DataFrame."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # slow to import
    import pyarrow as pa
    from pandas import DataFrame


def import_pandas() -> Any:
    """The module. Raises ImportError, with what to install, where it is missing."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError("a table needs pandas: pip install 'memrecon-fast[notebook]'") from error
    return pandas


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Rows:
    """A `pyarrow.Table`, and all that it has: `.to_pylist()`, `.column_names`, `rows["name"]`, `.filter(…)`, …"""

    arrow: pa.Table
    """The table itself, for what takes nothing else, as `pyarrow.parquet.write_table`."""

    def to_pandas(self, **options: Any) -> DataFrame:
        """As a DataFrame; options: of `pyarrow.Table.to_pandas`. Raises ImportError where pandas is missing."""
        import_pandas()
        return self.arrow.to_pandas(**options)

    def equals(self, other: Rows | pa.Table) -> bool:
        """Whether both hold the same."""
        return bool(self.arrow.equals(other.arrow if isinstance(other, Rows) else other))

    def __len__(self) -> int:
        return len(self.arrow)

    def __getitem__(self, key: Any) -> Any:
        return self.arrow[key]

    def __repr__(self) -> str:
        return repr(self.arrow)

    def __getattr__(self, name: str) -> Any:
        if name == "arrow":  # of a copy that is not made yet
            raise AttributeError(name)
        return getattr(self.arrow, name)
