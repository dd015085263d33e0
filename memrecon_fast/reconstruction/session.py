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
import torch
from rich.console import Console
from torch import Tensor

from memrecon_fast.audit.progress import Output
from memrecon_fast.audit.store.folder import check_folders, locked
from memrecon_fast.audit.store.manifest import place
from memrecon_fast.audit.store.opening import check_same, has_run, remark_on_versions
from memrecon_fast.common.errors import NothingFoundError
from memrecon_fast.common.text import counted
from memrecon_fast.reconstruction.feature_residual import feature_residual
from memrecon_fast.reconstruction.kept.results import PICTURES, scaling_of, true_inputs
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
from memrecon_fast.reconstruction.search import DECIDES, Search, describe
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
        failures: dict[int, list[str]] = {}
        with self._noted() as note, Progress(len(order), len(order) - len(missing), self.output.console) as progress:
            for index, seed in missing:
                target, began = search.targets[index], time.monotonic()
                progress.begin(target.name, seed)
                try:
                    found = reconstruct(target.model, target.theta, search.images, search.settings, seed, progress.show)
                except ValueError as error:  # this start finds nothing; another one may
                    failures.setdefault(index, []).append(str(error))
                    progress.fail()
                    continue
                store.write(index, seed, Solution(found, round(time.monotonic() - began, 3)))
                note["solutions"] += 1
                progress.end(found)
        for index, reasons in failures.items():
            self._fail(index, reasons)

    def _fail(self, index: int, reasons: list[str]) -> None:
        """Say of a target how many starts found nothing, or raise NothingFoundError where that is all of them."""
        name, starts = self.search.targets[index].name, self.search.starts
        if len(reasons) == starts:
            raise NothingFoundError(
                f"{name}: {reasons[-1]} ({counted(starts, 'start')} made; another one may be luckier: --starts)"
            )
        self.output.remark(f"{name}: {len(reasons)} of {starts} starts found nothing: {reasons[-1]}")

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
        """Beside the pictures to compare with, how much of their features is explained."""
        search, store = self.search, self.store
        pictures = store.read_truth().get(PICTURES)
        if pictures is None:
            return
        kept: dict[str, Any] = {PICTURES: pictures}
        for index, target in enumerate(search.targets):
            solutions = [one.found for seed in search.seeds if (one := store.read(index, seed)) is not None]
            truth = true_inputs(torch.from_numpy(pictures), self.description["targets"][index])
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
        yield Session(dataclasses.replace(search, starts=description["plan"]["starts"]), store, description, output)


def check_run_folder(path: Path, resume: bool) -> None:
    """Raise ValueError unless the folder holds a reconstruction, or is new or empty and `resume` False."""
    if has_run(path, resume, DESCRIPTION, KIND):
        check_folders(path, (SOLUTIONS,))


def _open(search: Search, path: Path, output: Output) -> dict[str, Any]:
    """The description of the run: what decides its solutions must be as it was begun, all else is as it is said now;
    what is not said now, or less, is as it was. The pictures to compare with are kept beside it, alone: how much of
    their features is explained rests on scalings and starts, and is known again after the work."""
    now, store, pictures = describe(search), Store(path), None
    if search.truth is not None:
        pictures = search.truth.pictures.float()
    if (path / DESCRIPTION).exists():
        before = read_description(path)
        begun, continued = ({name: one["plan"][name] for name in DECIDES} for one in (before, now))
        check_same({}, begun, continued, path, KIND)
        if search.truth is None and PICTURES in (kept := store.read_truth()):
            pictures = torch.from_numpy(kept[PICTURES])
        _go_on(before, now, search, pictures, path, output)
    write_description(path, now)  # before all else: what is not empty must be a run's
    if pictures is not None:
        store.write_truth({PICTURES: pictures.numpy()})
    return now


def _go_on(
    before: dict[str, Any], now: dict[str, Any], search: Search, pictures: Tensor | None, path: Path, output: Output
) -> None:
    """Put into the description what is still as it was before. Raises ValueError where scalings do not fit that."""
    remark_on_versions(before["sessions"], output.remark)
    if before["plan"]["starts"] > search.starts:
        output.remark(f"{before['plan']['starts']} starts were asked for before, and belong to it: not {search.starts}")
    if search.truth is None:
        now["truth"], now["plan"]["truth"] = before["truth"], before["plan"]["truth"]
    for old, new in zip(before["targets"], now["targets"], strict=True):
        if new["image_shape"] is None:
            new["image_shape"] = old["image_shape"]
        if search.truth is None and before["truth"] is not None and new["image_shape"] != old["image_shape"]:
            raise ValueError(
                f"{path} has pictures {tuple(old['image_shape'])} to compare with, not {tuple(new['image_shape'])}: "
                "give them again"
            )
        if new["image_shape"] is not None:
            scaling_of(new).check(tuple(new["image_shape"]))
        if pictures is not None:
            scaling_of(new).inputs_of(pictures)  # raises for what it cannot be compared with
        if new["scaling"] != old["scaling"]:
            output.remark(
                f"{new['name']}: the scaling of its pictures is another one than before; it counts from now on"
            )
    now["plan"]["starts"] = max(before["plan"]["starts"], search.starts)
    now |= {"law": now["law"] or before["law"], "sessions": before["sessions"]}
