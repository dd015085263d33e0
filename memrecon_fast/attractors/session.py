"""A session of work on a survey: it is begun or continued, what is missing of it is done, the report is written."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from memrecon_fast.attractors.jacobian import make_jacobian
from memrecon_fast.attractors.opened import Run
from memrecon_fast.attractors.survey.manifest import DESCRIPTION, plan_digest, read_description, write_description
from memrecon_fast.attractors.survey.plan import Survey, describe
from memrecon_fast.attractors.survey.results import NothingDoneError
from memrecon_fast.attractors.survey.store import Store, folders_of
from memrecon_fast.attractors.survey.table import Table
from memrecon_fast.attractors.survey.tables import SCHEMAS, tables_of
from memrecon_fast.attractors.survey.work import Crew, Here, Task, Workforce
from memrecon_fast.audit import cluster
from memrecon_fast.audit.analysis.reconstruction_error import warning_of
from memrecon_fast.audit.measuring import measure
from memrecon_fast.audit.model import Model, as_model
from memrecon_fast.audit.progress import Output, WorkProgress
from memrecon_fast.audit.session import MissingImagesError, naming
from memrecon_fast.audit.store.folder import check_folders, locked
from memrecon_fast.audit.store.manifest import ERRORS, doubts_of, place
from memrecon_fast.audit.store.opening import check_same, has_run, mend_images, remark_on_versions
from memrecon_fast.common.checks import check_integer
from memrecon_fast.common.errors import AutoencoderChangedError
from memrecon_fast.common.files import remove_unfinished
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.prox import device_of

KIND = "survey of attractors"
"""What such a run is called in messages."""


SECONDS_TO_STOP = 60.0
"""After an interruption or an error, workers that compute a block are waited for so long."""


@dataclasses.dataclass(frozen=True)
class Means:
    """How a survey is carried out: nothing here changes what comes of it.

    workers, ray, resume: as for `run`. output: where to write.
    """

    workers: int | None = None
    ray: str | None = None
    resume: bool = False
    output: Output = dataclasses.field(default_factory=lambda: Output(Console(quiet=True)))

    @property
    def on_cluster(self) -> bool:
        """Whether worker processes do the work."""
        return self.workers is not None or self.ray is not None


def run(
    survey: Survey,
    model: Model | str | os.PathLike[str] | Autoencoder,
    out: str | os.PathLike[str],
    *,
    workers: int | None = None,
    ray: str | None = None,
    resume: bool = False,
    progress: bool | Console = True,
) -> Run:
    """Carry out a survey in the folder `out`, from the beginning or from where an earlier call was ended.

    model: an nn.Module or another callable, (B, *image_shape) → the same; the path of a model file or
        "package.module:factory", see `autoencoders.load`; or an `audit.open_model`, for weights, a device or a `.pt2`
        file.
    workers: so many worker processes do the work, on a Ray cluster of this machine or on `ray`; None: this process, or
        with `ray` one worker for each processor or GPU.
    ray: the address of a Ray cluster, for instance "auto".
    resume: there must be a run to continue; otherwise one is begun where there is none.
    progress: whether to show a progress bar and the table of results, or a rich Console to show them on.

    Its tables are the same, byte for byte, however often it was interrupted and whoever did the work.

    Raises TypeError or ValueError, before any work, for what is wrong with the arguments or does not fit the model, and
    where the folder holds another run; after the report, `audit.MissingImagesError` where images could not be read, and
    AutoencoderChangedError where the model did not answer in the end as in the beginning of the work. Whatever ends the
    work, what was done is kept.
    """
    console = progress if isinstance(progress, Console) else Console(quiet=not progress)
    with begin(survey, model, out, Means(workers, ray, resume, Output(console))) as session:
        return session.work()


@dataclasses.dataclass(frozen=True)
class Session:
    """A survey that is open for work, with all that could be checked beforehand."""

    survey: Survey
    store: Store
    description: dict[str, Any]
    """The content of `attractors.json`."""
    means: Means
    workers: int | None
    """Worker processes; None: this process does the work."""
    make_workforce: Callable[[], Workforce]

    def work(self) -> Run:
        """Do what is missing, then write the report; raises as `run` says."""
        skipped: list[str] = []
        with self._noted() as note:
            rows = self.description["plan"]["rows_in_block"]
            for table in tables_of(self.survey, self.store, rows):
                for fault in self.store.mend(table):
                    self.means.output.remark(f"{fault}; it is set aside, and what it held is done again")
                if not self.store.has_complete(table.name):
                    self._do(table, note, skipped)
                if skipped:  # tables that come later may rest on this one
                    break
        return self._finish(skipped)

    def _do(self, table: Table, note: _Note, skipped: list[str]) -> None:
        """Compute what is missing of a table, and join it once all is there that it needs."""
        order, done = list(table.blocks), self.store.done(table)
        stop = None if table.stop is None else table.stop()
        seen = 0

        def is_enough() -> bool:
            """Looks at the blocks that follow without a gap."""
            nonlocal seen
            while seen < len(order) and order[seen] in done:
                seen += 1
                if stop is not None and stop.add(self.store.read_block(table, order[seen - 1])):
                    return True
            return seen == len(order)

        enough = is_enough()
        if not enough:
            workforce = note.begin()
            missing = [block for block in order if block not in done]
            count = sum(len(table.blocks[block]) for block in done)
            console = self.means.output.console
            with (
                WorkProgress(len(table.indices), count, console, "rows") as progress,
                contextlib.closing(workforce.compute(table, missing)) as computed,  # type: ignore[type-var]
            ):
                for one in computed:
                    if one.rows is None:
                        skipped.append(one.unreadable)
                        continue
                    self.store.write(table, one.block, one.rows)
                    done.add(one.block)
                    note.rows += len(one.rows)
                    progress.advance(len(one.rows), table.name)
                    if enough := is_enough():
                        break
        if enough:
            self.store.complete(table, order[:seen])

    @contextlib.contextmanager
    def _noted(self) -> Iterator[_Note]:
        """An entry in `attractors.json` on this session, once it has something to do."""
        note = _Note(self)
        try:
            with warnings.catch_warnings():
                console = self.means.output.console
                if not console.quiet:
                    warnings.showwarning = lambda message, *_: console.print(f"memrecon: {message}", markup=False)
                yield note
        except BaseException as error:
            doubts = note.end(patience=SECONDS_TO_STOP)
            if doubts and isinstance(error, Exception):  # which is why it failed
                raise AutoencoderChangedError(doubts[0]) from error
            raise
        note.end(patience=None)

    def _finish(self, skipped: list[str]) -> Run:
        finished = Run(self.store.run)
        missing = MissingImagesError(f"not all is done; images could not be read, first: {'; '.join(skipped[:1])}")
        try:
            finished.write_report(self.means.output.console)
        except NothingDoneError:
            if skipped:
                raise missing from None
            raise
        if doubts := doubts_of(self.description):
            raise AutoencoderChangedError(f"the results are in doubt: {doubts[0]}")
        if skipped:
            raise missing
        return finished


class _Note:
    """The entry on a session, and who works in it."""

    def __init__(self, session: Session) -> None:
        self.rows = 0
        """That were done in it."""
        self._session = session
        self._workforce: Workforce | None = None
        self._entry: dict[str, Any] = {}
        self._began = time.monotonic()

    def begin(self) -> Workforce:
        """There is something to do: the entry is written, and those who do it are called."""
        if self._workforce is None:
            session = self._session
            self._entry = {**place(session.survey.slots, session.workers), "rows": None}
            session.description["sessions"].append(self._entry)
            write_description(session.store.run, session.description)
            self._workforce = session.make_workforce()
        return self._workforce

    def end(self, patience: float | None) -> list[str]:
        """All is done, or something ended it. Returns why what was done is in doubt. patience: see
        `Workforce.doubts`."""
        if self._workforce is None:
            return []
        self._entry["seconds"], self._entry["rows"] = round(time.monotonic() - self._began, 3), self.rows
        write_description(self._session.store.run, self._session.description)
        if doubts := self._workforce.doubts(patience):
            self._entry["doubts"] = doubts
            write_description(self._session.store.run, self._session.description)
        return doubts


@contextlib.contextmanager
def begin(
    survey: Survey, model: Model | str | os.PathLike[str] | Autoencoder, out: str | os.PathLike[str], means: Means
) -> Iterator[Session]:
    """All of `run` that comes before the work, and its errors; no other session may work in the folder meanwhile."""
    if means.workers is not None:
        check_integer("workers", means.workers, low=1)
    run = Path(out)
    check_run_folder(run, means.resume)
    opened = as_model(model, in_workers=means.on_cluster)
    with contextlib.ExitStack() as stack:
        if means.on_cluster:
            stack.enter_context(cluster.connected(means.ray, means.workers))
            cluster.check_can_be_sent(opened.load)
        kind = cluster.device_kind(opened.device) if means.on_cluster else opened.kind
        crew = cluster.number_of_workers(means.workers, kind) if means.on_cluster else None
        with naming(opened), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", RuntimeWarning)
            jacobian = make_jacobian(
                opened.autoencoder, survey.shape, device_of(opened.autoencoder, torch.device("cpu"))
            )
            description = describe(survey, opened.autoencoder, kind, opened.name)
        run.mkdir(parents=True, exist_ok=True)
        stack.enter_context(locked(run, KIND))
        remove_unfinished(run)
        description = _open(survey, description, run, means.output.remark)
        for remark in sorted({str(warning.message) for warning in caught}):
            means.output.remark(remark)
        make: Callable[[], Workforce] = functools.partial(Here, jacobian, opened.autoencoder)
        if crew is not None:
            threads = 1 if means.ray else cluster.threads_of_each(crew)
            digest = description["plan"]["model"]
            task = Task(opened.load, digest, survey.shape, kind, threads, os.getcwd())
            make = functools.partial(Crew, task, crew)
        store = Store(run, plan_digest(description))
        if survey.splits:
            _measure(survey, opened, run, description, means.output)
        yield Session(survey, store, description, means, crew, make)


def check_run_folder(run: Path, resume: bool) -> None:
    """Raise ValueError unless the folder holds a survey, or is new or empty and `resume` False."""
    if has_run(run, resume, DESCRIPTION, KIND):
        check_folders(run, folders_of(SCHEMAS))


def _open(survey: Survey, description: dict[str, Any], run: Path, remark: Callable[[str], None]) -> dict[str, Any]:
    """The description of the run: this one, written, or what it was begun with, if that is the same."""
    if (run / DESCRIPTION).exists():
        before = read_description(run)
        check_same(survey.splits, before["plan"], description["plan"], run, KIND)
        remark_on_versions(before["sessions"], remark)
        description = before
    else:
        write_description(run, description)  # before all else: what is not empty must be a run's
    if survey.splits:
        mend_images(survey.splits, run, remark)
    return description


def _measure(survey: Survey, model: Model, run: Path, description: dict[str, Any], output: Output) -> None:
    """How well the model reconstructs the images, once for a run; and a warning where it does not."""
    if ERRORS not in description:
        with warnings.catch_warnings(), naming(model):
            warnings.simplefilter("ignore", RuntimeWarning)  # what is to be said of the model was said
            description[ERRORS] = measure(model.autoencoder, survey.splits)
        write_description(run, description)
    if (warning := warning_of(description[ERRORS])) is not None:
        output.remark(warning)
