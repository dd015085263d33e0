"""A session of work on an audit: a run is begun or continued, what is missing of it is done, the report is written."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from memrecon_fast.audit import cluster
from memrecon_fast.audit.analysis.given_out import choose_given_out
from memrecon_fast.audit.analysis.reconstruction_error import warning_of
from memrecon_fast.audit.analysis.sheet import leading
from memrecon_fast.audit.analysis.statistics import choose_shown, errors, extremes
from memrecon_fast.audit.measuring import measure
from memrecon_fast.audit.model import Model, as_model
from memrecon_fast.audit.opened import Run
from memrecon_fast.audit.plan import Audit, describe, watch_weights
from memrecon_fast.audit.progress import AuditProgress, Output
from memrecon_fast.audit.store.folder import Folder
from memrecon_fast.audit.store.manifest import ERRORS, doubts_of, write_description
from memrecon_fast.audit.store.manifest import session as describe_session
from memrecon_fast.audit.store.opening import OpenRun, check_run_folder, open_run
from memrecon_fast.audit.store.records import Cell
from memrecon_fast.audit.worker import SECONDS_BETWEEN_PARTS, Listener, Shard, Workbench, shards_of
from memrecon_fast.common.checks import check_integer, check_number
from memrecon_fast.common.errors import AutoencoderChangedError, is_out_of_memory, one_line
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.prox import check_autoencoder
from memrecon_fast.methods import Open

Work = Callable[[str, Sequence[Shard], Mapping[Cell, frozenset[int]] | None], str]
"""Works on the shards of a method; see `Workbench.work`."""


class MissingImagesError(RuntimeError):
    """Some recoveries could not be done; the same audit does them once they can be."""


@dataclasses.dataclass(frozen=True)
class Means:
    """How an audit is carried out: nothing here changes what comes of it.

    workers, ray, parts, resume, save_every: as for `run`. output: where to write.
    """

    workers: int | None = None
    ray: str | None = None
    parts: str | None = None
    resume: bool = False
    save_every: float = SECONDS_BETWEEN_PARTS
    output: Output = dataclasses.field(default_factory=lambda: Output(Console(quiet=True)))

    @property
    def on_cluster(self) -> bool:
        """Whether worker processes do the work."""
        return self.workers is not None or self.ray is not None


def run(
    plan: Audit,
    model: Model | str | os.PathLike[str] | Autoencoder,
    out: str | os.PathLike[str],
    *,
    workers: int | None = None,
    ray: str | None = None,
    parts: str | None = None,
    resume: bool = False,
    save_every: float = SECONDS_BETWEEN_PARTS,
    progress: bool | Console = True,
) -> Run:
    """Carry out an audit in the folder `out`, from the beginning or from where an earlier call was ended.

    plan: what is audited.
    model: an nn.Module or another callable, (B, *image_shape) → the same; the path of a model file or
        "package.module:factory", see `autoencoders.load`; or an `open_model`, for weights, a device or a `.pt2` file.
    workers: so many worker processes do the work, on a Ray cluster of this machine or on `ray`; None: this process, or
        with `ray` one worker for each processor or GPU.
    ray: the address of a Ray cluster, for instance "auto".
    parts: where workers write, a folder that all see or an address of `pyarrow.fs`; None: in `out`.
    resume: there must be a run to continue; otherwise one is begun where there is none.
    save_every: seconds between two writes of what was done, which is what a crash costs.
    progress: whether to show a progress bar and the table of results, or a rich Console to show them on.

    Returns the run as `open` does. Its files are the same, byte for byte, however often it was interrupted and whoever
    did the work. What the folder holds, docs/guides/audit.md says.

    Raises TypeError or ValueError, before any work, for what is wrong with the arguments or does not fit the model, and
    where the folder holds another run; after the report, MissingImagesError where images could not be read, and
    AutoencoderChangedError where the model did not answer in the end as in the beginning of the work, now or in an
    earlier call: the results are then in doubt. Whatever ends the work, what was done is kept.
    """
    console = progress if isinstance(progress, Console) else Console(quiet=not progress)
    with begin(plan, model, out, Means(workers, ray, parts, resume, save_every, Output(console))) as session:
        return session.work()


@dataclasses.dataclass(frozen=True)
class Session:
    """A run that is open for work, with all that could be checked beforehand."""

    plan: Audit
    opened: OpenRun
    means: Means
    workers: int | None
    """Worker processes; None: this process does the work."""
    make_work: Callable[[Listener], Work]
    """What works on shards, and tells the listener what comes of it."""
    weights_changed: Callable[[], str]
    """Says how the weights of the model in this process were changed; "" where they were not."""

    def work(self) -> Run:
        """Do what is missing, then write the report; raises as `run` says."""
        skipped: list[str] = []
        doubts: list[str] = []
        with self._showing(doubts) as (progress, entry):
            work = self.make_work(Listener(progress.show, skipped.append, doubts.append))
            entry["execution"] = run_audit(self.plan, self.opened.folder, work)
        return self._finish(skipped)

    @contextlib.contextmanager
    def _showing(self, doubts: list[str]) -> Iterator[tuple[AuditProgress, dict[str, Any]]]:
        """A progress bar, and an entry in `audit.json` on this session, which gets its "execution" inside; in the end
        the doubts, and whether the weights are what they were."""
        folder, description, console = self.opened.folder, self.opened.description, self.means.output.console
        left = {
            cell: len(indices)
            for method in self.plan.methods
            for cell, indices in missing(self.plan, folder, method).items()
        }
        todo, total = sum(left.values()), count_all(self.plan)
        before = _done_before(self.plan, folder) if todo < total else {}
        entry = describe_session(self.plan.slots, self.workers)
        if todo:
            description["sessions"].append(entry)
            write_description(folder.path, description)
        if todo < total:
            console.print(f"{total - todo} of {total} recoveries were done before.", highlight=False)
        began = time.monotonic()
        with AuditProgress(left, before, console) as progress, warnings.catch_warnings():
            if not console.quiet:
                warnings.showwarning = lambda message, *_: console.print(f"memrecon: {message}", markup=False)
            try:
                yield progress, entry
            finally:
                entry["seconds"] = round(time.monotonic() - began, 3)
                entry["recoveries"] = progress.new
                doubts += filter(None, [self.weights_changed()])
                if doubts:
                    entry["doubts"] = sorted(set(doubts))
                write_description(folder.path, description)

    def _finish(self, skipped: list[str]) -> Run:
        folder = self.opened.folder
        left = count_missing(self.plan, folder)
        why = f"what workers wrote is not in {folder.parts.address}: give a place that all of them see as --parts"
        if skipped:
            why = f"images could not be read, first: {skipped[0]}"
        missing = MissingImagesError(f"{left} recoveries are missing; {why}")
        if left == count_all(self.plan):  # nothing to report on
            raise missing
        finished = Run(folder.path)
        finished.write_report(self.means.output.console)
        doubts = doubts_of(finished.description)
        if doubts:
            raise AutoencoderChangedError(f"the results are in doubt: {doubts[0]}")
        if left:
            raise missing
        return finished


@contextlib.contextmanager
def begin(
    plan: Audit, model: Model | str | os.PathLike[str] | Autoencoder, out: str | os.PathLike[str], means: Means
) -> Iterator[Session]:
    """All of `run` that comes before the work, and its errors; no other session may work in the folder meanwhile."""
    if not isinstance(plan, Audit):
        raise TypeError(f"plan must be an Audit, mf.audit.Audit(splits, masks), not {type(plan).__name__}")
    check_number("save_every", means.save_every, low=0)
    if means.workers is not None:
        check_integer("workers", means.workers, low=1)
    parts = None if means.parts is None else os.fspath(means.parts)
    if parts is not None and "://" not in parts:
        parts = os.path.abspath(parts)
    check_run_folder(Path(out), means.resume)
    opened_model = as_model(model, in_workers=means.on_cluster)
    with naming(opened_model):
        check_autoencoder(opened_model.autoencoder)
    with contextlib.ExitStack() as stack:
        if means.on_cluster:
            stack.enter_context(cluster.connected(means.ray, means.workers))
            cluster.check_can_be_sent(opened_model.load)
        kind = cluster.device_kind(opened_model.device) if means.on_cluster else opened_model.kind
        crew = cluster.number_of_workers(means.workers, kind) if means.on_cluster else None
        sources = {split: images.source.name for split, images in plan.splits.items()}
        with naming(opened_model):
            description = describe(plan, opened_model.autoencoder, kind, opened_model.name, sources, parts)
        plan.check_degradation()
        checked = cluster.without_gpu(plan) if means.on_cluster else plan
        with naming(opened_model):
            streams, remarks = prepare(checked, opened_model.autoencoder)
        if crew is None:
            for open_stream in streams.values():  # which takes no memory yet, but says where there is too little
                open_stream(plan.most_at_a_time)
        opened = stack.enter_context(open_run(plan.splits, description, Path(out), means.resume, means.output.remark))
        for remark in remarks:
            means.output.remark(remark)
        if crew is None:
            bench = Workbench(plan, streams, opened.folder.parts, means.save_every)
            make_work = functools.partial(_in_this_process, bench)
        else:
            threads = 1 if means.ray else cluster.threads_of_each(crew)
            task = cluster.make_task(plan, opened, opened_model.load, kind, means.save_every, threads)
            make_work = functools.partial(_by_workers, task, opened.folder, crew, means.output.console)
        if not plan.degraded and count_missing(plan, opened.folder):
            _measure(plan, opened_model, opened, means.output)
        weights_changed = watch_weights(opened_model.autoencoder)
        yield Session(plan, opened, means, crew, make_work, weights_changed)


@contextlib.contextmanager
def naming(model: Model) -> Iterator[None]:
    """What the model's own code raises becomes a ValueError or TypeError that names it."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        message = str(error) if isinstance(error, (TypeError, ValueError)) else one_line(error)
        raise kind(f"{model.name}: {message}") from error


def prepare(plan: Audit, autoencoder: Autoencoder) -> tuple[dict[str, Open], list[str]]:
    """The streams of the methods, and remarks on them. Raises as `Audit.prepare`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        streams = plan.prepare(autoencoder)
    return streams, sorted({str(warning.message) for warning in caught if warning.category is RuntimeWarning})


def _measure(plan: Audit, model: Model, opened: OpenRun, output: Output) -> None:
    """How well the model reconstructs the images, once for a run; and a warning where it does not."""
    if ERRORS not in opened.description:
        with warnings.catch_warnings(), naming(model):
            warnings.simplefilter("ignore", RuntimeWarning)  # what is to be said of the model was said by `prepare`
            opened.description[ERRORS] = measure(model.autoencoder, plan.splits)
        write_description(opened.folder.path, opened.description)
    warning = warning_of(opened.description[ERRORS])
    if warning is not None:
        output.remark(warning)


def _in_this_process(bench: Workbench, listener: Listener) -> Work:
    show, skip = listener.show, listener.skip
    return lambda method, shards, wanted: bench.work(method, shards, wanted, show, skip, doubt=listener.doubt)


def _by_workers(
    task: cluster.Task,
    folder: Folder,
    workers: int,
    console: Console,
    listener: Listener,
) -> Work:
    remark = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    return cluster.Crew(task, folder, workers, listener, remark).work


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


def _done_before(audit: Audit, folder: Folder) -> dict[Cell, tuple[int, int]]:
    """Of each cell, how many recoveries are done, and their evaluations together."""
    columns = {cell: folder.read(cell) for cell in audit.cells()}
    return {cell: (len(one["index"]), int(one["evaluations"].sum())) for cell, one in columns.items()}


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
    given_out = columns["index"][choose_given_out(columns)].tolist()
    thumbnails = leading(columns) if wanted is None and cell.split == "members" else []
    folder.complete(cell, [*shown, *given_out], columns["index"][sorted(kept)].tolist(), thumbnails)
