"""The files of tables and figures, each whole or not at all, and the same each time."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from memrecon_fast.audit.report.charts import STYLE
from memrecon_fast.audit.store.manifest import DESCRIPTION
from memrecon_fast.common.files import replacing, write_csv
from memrecon_fast.common.latex import latex_table
from memrecon_fast.common.tables import Table, markdown_table

LOOK: Any = {
    **STYLE,
    "font.size": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 8,
    "axes.linewidth": 0.6,
    "pdf.fonttype": 42,  # publishers refuse Type 3 fonts, which is what matplotlib makes otherwise
}
"""matplotlib's settings, with which figures are drawn."""
_METADATA: dict[str, dict[str, None]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


@dataclasses.dataclass(frozen=True)
class Sheet:
    """A table as it is read, and its numbers for machines."""

    shown: Table
    numbers: Sequence[Mapping[str, Any]]
    """Rows with the same columns; shares are between 0 and 1."""


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A figure that is yet to be drawn: width and height in inches, and what draws it."""

    width: float
    height: float
    draw: Callable[[Figure], None]


def check_folder(folder: Path) -> None:
    """Raise ValueError where the files cannot go: a run's folder holds what the run wrote, and nothing else."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; expected a folder for tables and figures")
    if (folder / DESCRIPTION).exists():
        raise ValueError(f"{folder} is the folder of a run; give another one for tables and figures")


def write_all(folder: Path, sheets: Mapping[str, Sheet], drawings: Mapping[str, Drawing]) -> list[Path]:
    """Write tables as NAME.tex, .csv and .md and figures as NAME.svg and .pdf; files of these names are replaced.

    The label of a table is "tab:FOLDER-NAME", with the folder's name, so that those of several runs can be in one
    paper. Returns the paths. Raises ValueError as `check_folder`."""
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    prefix = re.sub("[^A-Za-z0-9]+", "-", folder.resolve().name).strip("-") or "memrecon"
    paths = [path for name, sheet in sheets.items() for path in _write_sheet(folder, name, sheet, f"{prefix}-{name}")]
    return paths + [path for name, drawing in drawings.items() for path in _write_drawing(folder, name, drawing)]


def _write_sheet(folder: Path, name: str, sheet: Sheet, label: str) -> list[Path]:
    paths = [folder / f"{name}.{kind}" for kind in ("tex", "md", "csv")]
    texts = (latex_table(sheet.shown, f"tab:{label}"), markdown_table(sheet.shown))
    for path, text in zip(paths, texts, strict=False):
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    write_csv(paths[-1], list(sheet.numbers[0]), sheet.numbers)
    return paths


def _write_drawing(folder: Path, name: str, drawing: Drawing) -> list[Path]:
    paths = []
    with mpl.rc_context(LOOK), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # in a name, which the tables have as well
        figure = Figure(figsize=(drawing.width, drawing.height), layout="constrained")
        drawing.draw(figure)
        for kind, metadata in _METADATA.items():
            paths.append(folder / f"{name}.{kind}")
            with replacing(paths[-1]) as temporary:
                figure.savefig(temporary, format=kind, metadata=metadata)
    return paths
