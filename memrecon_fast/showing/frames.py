"""Tables that are wanted as a pandas DataFrame."""

from __future__ import annotations

from typing import Any


def import_pandas() -> Any:
    """The module. Raises ImportError, with what to install, where it is missing."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError("a table needs pandas: pip install 'memrecon-fast[notebook]'") from error
    return pandas
