"""The run of an audit: method after method, what is missing of it is worked on, and complete cells are put in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from memrecon_fast.audit.analysis.statistics import errors, extremes
from memrecon_fast.audit.plan import Audit
from memrecon_fast.audit.store import pictures as gallery
from memrecon_fast.audit.store.folder import Folder
from memrecon_fast.audit.store.records import Cell, Columns
from memrecon_fast.audit.worker import Shard, shards_of

Work = Callable[[str, Sequence[Shard], Mapping[Cell, frozenset[int]] | None], str]
"""Works on the shards of a method; see `Workbench.work`."""


def missing(audit: Audit, folder: Folder, method: str) -> dict[Cell, list[int]]:
    """The images of each cell of the method that are not done yet."""
    return {
        cell: np.setdiff1d(audit.splits[cell.split].usable(), folder.done(cell)).tolist()
        for cell in audit.cells(method)
        if not folder.is_complete(cell)
    }


def count_missing(audit: Audit, folder: Folder) -> int:
    """The recoveries that are not done yet, of all methods."""
    return sum(len(indices) for method in audit.methods for indices in missing(audit, folder, method).values())


def count_all(audit: Audit) -> int:
    """All the recoveries of an audit."""
    return sum(len(audit.splits[cell.split].usable()) for cell in audit.cells())


def run_audit(audit: Audit, folder: Folder, work: Work) -> dict[str, str]:
    """Do what is missing of the audit. Returns, of each method that was worked on, how it was run.

    The folder may hold a part of the audit already: nothing in it is done again, and what comes of it all is the same
    as without an interruption. A cell of which images are missing afterwards is left as it is.
    """
    execution = {}
    others = [method for method in audit.methods if method != audit.headline]
    for method in (audit.headline, *others):
        wanted = None if method == audit.headline else _shown(audit, folder, method)
        todo = missing(audit, folder, method)
        if any(todo.values()):
            execution[method] = work(method, shards_of(todo), wanted)
            todo = missing(audit, folder, method)
        for cell, indices in todo.items():
            if not indices:
                _complete(audit, folder, cell, wanted)
    return execution


def choose_shown(columns: Columns) -> dict[int, str]:
    """The images of a cell that the gallery shows: index → group."""
    return {int(columns["index"][at]): group for at, group in gallery.choose(errors(columns)).items()}


def _shown(audit: Audit, folder: Folder, method: str) -> dict[Cell, frozenset[int]]:
    """The gallery shows what all methods made of the images that were chosen by the results of the first one."""
    return {
        cell: frozenset(choose_shown(folder.read(Cell(cell.split, cell.mask, audit.headline))))
        for cell in audit.cells(method)
    }


def _complete(audit: Audit, folder: Folder, cell: Cell, wanted: Mapping[Cell, frozenset[int]] | None) -> None:
    columns = folder.read(cell)
    if not len(columns["index"]):  # no image of the split can be used
        return
    shown = choose_shown(columns) if wanted is None else wanted[cell]
    kept = extremes(errors(columns), audit.keep_images)
    folder.complete(cell, list(shown), columns["index"][sorted(kept)].tolist())
