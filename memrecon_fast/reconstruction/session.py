"""A session of work on a reconstruction: it is begun or continued, the starts that are missing are made, the report is
written."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from memrecon_fast.audit.progress import Output
from memrecon_fast.audit.store.folder import check_folders, locked
from memrecon_fast.audit.store.manifest import place
from memrecon_fast.audit.store.opening import check_same, has_run, remark_on_versions
from memrecon_fast.reconstruction.feature_residual import feature_residual
from memrecon_fast.reconstruction.kept.results import PICTURES, true_inputs
from memrecon_fast.reconstruction.kept.store import (
    DESCRIPTION,
    SOLUTIONS,
    Solution,
    Store,
    read_description,
    write_description,
)
from memrecon_fast.reconstruction.opened import Run
from memrecon_fast.reconstruction.progress import Progress
from memrecon_fast.reconstruction.reconstructing import check, reconstruct
from memrecon_fast.reconstruction.search import Search, describe
from memrecon_fast.reconstruction.verdicts import judge

KIND = "reconstruction"
"""What such a run is called in messages."""


def run(search: Search, out: str | os.PathLike[str], *, resume: bool = False, progress: bool | Console = True) -> Run:
    """Carry out a search in the folder `out`, from the beginning or from where an earlier call was ended: each start
    that is done is kept.

    resume: there must be a run to continue; otherwise one is begun where there is none. progress: whether to show it,
    and the table of results, or a rich Console to show them on.

    Raises TypeError or ValueError, before any work, for what is wrong with the search, and where the folder holds
    something else.
    """
    console = progress if isinstance(progress, Console) else Console(quiet=not progress)
    with begin(search, Path(out), resume, Output(console)) as session:
        return session.work()


@dataclasses.dataclass(frozen=True)
class Session:
    """A search that is open for work, with all that could be checked beforehand."""

    search: Search
    store: Store
    description: dict[str, Any]
    """The content of `reconstruction.json`."""
    output: Output

    def work(self) -> Run:
        """Make the starts that are missing, then write the report."""
        self._solve()
        self._keep_truth()
        opened, console = Run(self.store.run), self.output.console
        opened.write_report(None if console.quiet else console)
        return opened

    def _solve(self) -> None:
        search, store = self.search, self.store
        order = [(index, seed) for index in range(len(search.targets)) for seed in search.seeds]
        missing = [one for one in order if store.read(*one) is None]
        with self._noted() as note, Progress(len(order), len(order) - len(missing), self.output.console) as progress:
            for index, seed in missing:
                target, began = search.targets[index], time.monotonic()
                progress.begin(target.name, seed)
                found = reconstruct(target.model, target.theta, search.images, search.settings, seed, progress.show)
                store.write(index, seed, Solution(found, round(time.monotonic() - began, 3)))
                note["solutions"] += 1
                progress.end(found)

    @contextlib.contextmanager
    def _noted(self) -> Iterator[dict[str, Any]]:
        """An entry in `reconstruction.json` on this session, if anything comes of it."""
        entry, began = {**place(None, None), "solutions": 0}, time.monotonic()
        try:
            yield entry
        finally:
            if entry["solutions"]:
                entry["seconds"] = round(time.monotonic() - began, 3)
                self.description["sessions"].append(entry)
                write_description(self.store.run, self.description)

    def _keep_truth(self) -> None:
        """The pictures to compare with, and how much of their features is explained."""
        search, store = self.search, self.store
        if search.truth is None:
            return
        kept: dict[str, Any] = {PICTURES: search.truth.pictures.float().numpy()}
        for index, target in enumerate(search.targets):
            solutions = [one.found for seed in search.seeds if (one := store.read(index, seed)) is not None]
            truth = true_inputs(search.truth.pictures, self.description["targets"][index])
            residual = feature_residual(target.model, truth, judge(solutions).best.inputs)
            kept[f"feature_residual-{index}"] = residual.numpy().astype(np.float64)
        store.write_truth(kept)


@contextlib.contextmanager
def begin(search: Search, path: Path, resume: bool, output: Output) -> Iterator[Session]:
    """All of `run` that comes before the work, and its errors; no other session may work in the folder meanwhile."""
    check_run_folder(path, resume)
    for target in search.targets:
        check(target.model, target.theta, search.images, search.settings)
    path.mkdir(parents=True, exist_ok=True)
    with locked(path, KIND):
        description, store = _open(search, path, output), Store(path)
        store.mend(output.remark)
        yield Session(search, store, description, output)


def check_run_folder(path: Path, resume: bool) -> None:
    """Raise ValueError unless the folder holds a reconstruction, or is new or empty and `resume` False."""
    if has_run(path, resume, DESCRIPTION, KIND):
        check_folders(path, (SOLUTIONS,))


def _open(search: Search, path: Path, output: Output) -> dict[str, Any]:
    """The description of the run: this one, written, or what it was begun with, if that is the same."""
    now = describe(search)
    if not (path / DESCRIPTION).exists():
        write_description(path, now)  # before all else: what is not empty must be a run's
        return now
    before = read_description(path)
    check_same({}, before["plan"], now["plan"], path, KIND)
    remark_on_versions(before["sessions"], output.remark)
    return before
