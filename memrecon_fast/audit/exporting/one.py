"""One run as tables and figures for a paper."""

from __future__ import annotations

import os
from pathlib import Path

from memrecon_fast.audit.exporting.figures import drawings_of
from memrecon_fast.audit.exporting.files import check_folder, write_all
from memrecon_fast.audit.exporting.tables import tables_of
from memrecon_fast.audit.opened import Run, open_run


def export(run: Run | str | os.PathLike[str], folder: str | os.PathLike[str]) -> list[Path]:
    """Write the rates of a run with 95 % intervals, members and controls, as tables (LaTeX with booktabs, Markdown, and
    CSV with all digits), and its figures (SVG, PDF), to a folder; returns the paths.

    run: of `open` or `run`, or its folder; finished or not, which the captions say. In the folder, files of the same
    names are replaced.

    Raises ValueError for what is no run or has no records, and where the folder cannot be written to.
    """
    check_folder(Path(folder))
    opened = run if isinstance(run, Run) else open_run(run)
    return write_all(Path(folder), tables_of(opened.summary), drawings_of(opened.results, opened.summary))
