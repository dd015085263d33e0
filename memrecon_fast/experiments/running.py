"""Run an experiment: cell by cell, what is done is kept; then its numbers and figures."""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from torch import Tensor

from memrecon_fast.audit.model import find_device
from memrecon_fast.audit.report.charts import STYLE
from memrecon_fast.audit.store.manifest import machine, versions
from memrecon_fast.common.checks import check_choice, check_integer
from memrecon_fast.common.files import write_json
from memrecon_fast.common.threads import threads
from memrecon_fast.experiments import store
from memrecon_fast.experiments.experiment import Experiment, Given, Outcome, Row, Table
from memrecon_fast.images.photographs import make_photographs
from memrecon_fast.images.scan import open_images
from memrecon_fast.images.sources import Names
from memrecon_fast.settings import Settings

PHOTOGRAPHS = "photographs of scikit-image"


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The images of an experiment, and what identifies them."""

    members: Tensor | None
    controls: Tensor | None
    said: dict[str, str]
    """Of each split: where it is from, how many and how large they are."""
    digest: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """An experiment with all that its numbers depend on."""

    experiment: Experiment
    scale: str
    inputs: Inputs
    seed: int
    only: str = "*"
    """A pattern: the cells that are made; of the others those are shown that were made before."""
    device: str = "cpu"
    threads: int = 1

    @property
    def cells(self) -> dict[str, dict[str, Any]]:
        """The arguments of each cell."""
        return {name: dict(arguments) for name, arguments in self.experiment.scales[self.scale].cells.items()}

    def is_wanted(self, cell: str) -> bool:
        """Whether the cell is to be made."""
        return fnmatch.fnmatchcase(cell, self.only)

    @property
    def identity(self) -> dict[str, Any]:
        """What its numbers depend on, for JSON."""
        name = self.experiment.family or self.experiment.name
        ours = Settings()
        return {
            "experiment": name,
            "scale": self.scale,
            "seed": self.seed,
            "data": self.inputs.digest,
            "stopping": [ours.stop_below, ours.comparisons, ours.stall, ours.settled_counts],
        }


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """What came of an experiment."""

    rows: list[Row]
    tables: dict[str, Table]
    paths: list[Path]
    """Of what was written."""


@dataclasses.dataclass(frozen=True)
class Part:
    """What of an experiment is made, and on what.

    limit: so many members and controls in place of the scale's; only: a pattern with * and ?, the cells to make;
    device: "cpu", "cuda", or "auto" for a GPU where there is one; threads: of torch.
    """

    limit: int | None = None
    only: str = "*"
    device: str = "cpu"
    threads: int = 1


def make_plan(
    experiment: Experiment,
    scale: str = "small",
    members: Names | None = None,
    controls: Names | None = None,
    seed: int = 42,
    part: Part | None = None,
) -> Plan:
    """Check all that is given, and read the images.

    members, controls: sources of images of one shape, see `images.open_images`; the first of them are taken, as many as
    the experiment has by default. Without them, photographs.

    Raises ValueError where the experiment has not this scale or cell, takes no images, gets too few, or cannot be made
    there.
    """
    part = part or Part()
    check_integer("seed", seed, low=0, high=2**63 - 1)
    check_integer("--threads", part.threads, low=1)
    if scale not in experiment.scales:
        check_choice(f"--scale of {experiment.name}", scale, tuple(experiment.scales))
    device = find_device(part.device).type
    if not experiment.on_device and (device != "cpu" or part.threads != 1):
        raise ValueError(f"{experiment.name} is made on one thread of the CPU: it takes no --device and no --threads")
    cells = experiment.scales[scale].cells
    if not fnmatch.filter(cells, part.only):
        raise ValueError(f"--only {part.only} is none of the parts of {experiment.name}: {', '.join(cells)}")
    inputs = _open(experiment, scale, part.limit, members, controls)
    if experiment.check_shape is not None and inputs.members is not None:
        experiment.check_shape(tuple(inputs.members.shape[1:]), cells)
    return Plan(experiment, scale, inputs, seed, part.only, device, part.threads)


def reproduce(
    plan: Plan, out: Path, command: str = "", show: Callable[[str, int, int], object] | None = None
) -> Reproduction:
    """Measure the cells that are not done in the folder `out`; write numbers, tables and figures.

    command: what was called, for the files. show: is told the name of each cell before it is measured, how many are
    done, and how many there are. The same call goes on where an interrupted one ended.

    Raises ValueError where the folder holds something else.
    """
    identity, experiment = plan.identity, plan.experiment
    with store.opened(out, identity) as sessions, threads(plan.threads):
        session: dict[str, Any] = {
            "command": command,
            "machine": machine(),
            "device": plan.device,
            "threads": plan.threads,
            "versions": versions(),
            "seconds": None,
            "cells": [],
        }
        description: dict[str, Any] = {**identity, "images": plan.inputs.said, "sessions": [*sessions, session]}
        write_json(out / store.DESCRIPTION, description)
        outcomes = _measured(plan, out, description, show)
        rows = [{"cell": cell, **row} for cell, outcome in outcomes.items() for row in outcome.rows]
        tables = dict(experiment.tables(outcomes)) if experiment.tables is not None else {}
        with mpl.rc_context({**STYLE, "text.parse_math": True}):
            paths = store.write_results(out, experiment, description, rows, experiment.draw(outcomes))
        paths += store.write_tables(out, tables)
    return Reproduction(rows, tables, paths)


def check_folder(plan: Plan, out: Path) -> None:
    """Raise ValueError where this experiment cannot be made, or gone on with, in the folder."""
    store.earlier_sessions(out, plan.identity)
    for cell, arguments in plan.cells.items():
        store.read_cell(out, cell, arguments)


def done(plan: Plan, out: Path) -> int:
    """How many cells are done in the folder."""
    return sum((out / store.CELLS / f"{cell}.json").exists() for cell in plan.cells)


def _measured(
    plan: Plan, out: Path, description: dict[str, Any], show: Callable[[str, int, int], object] | None
) -> dict[str, Outcome]:
    outcomes = {}
    session, begun = description["sessions"][-1], time.monotonic()
    cells = plan.cells
    for number, (cell, arguments) in enumerate(cells.items()):
        if (outcome := store.read_cell(out, cell, arguments)) is None:
            if not plan.is_wanted(cell):
                continue
            if show is not None:
                show(cell, number, len(cells))
            folder = out / store.WORK / cell
            folder.mkdir(parents=True, exist_ok=True)
            kept = out / store.RUNS / cell
            given = Given(plan.seed, folder, plan.inputs.members, plan.inputs.controls, kept, plan.device)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(plan.seed)
                store.write_cell(out, cell, arguments, plan.experiment.measure(given, **arguments))
            outcome = store.read_cell(out, cell, arguments)
            assert outcome is not None
            session["cells"].append(cell)
            session["seconds"] = round(time.monotonic() - begun, 1)
            write_json(out / store.DESCRIPTION, description)
        outcomes[cell] = outcome
    if (out / store.WORK).exists() and not any((out / store.WORK).iterdir()):
        (out / store.WORK).rmdir()
    return outcomes


def _open(
    experiment: Experiment, scale: str, limit: int | None, members: Names | None, controls: Names | None
) -> Inputs:
    pictures = experiment.scales[scale].pictures or experiment.pictures
    if pictures is None:
        if members is not None or controls is not None or limit is not None:
            raise ValueError(
                f"{experiment.name} makes its own data: it takes no --members, no --controls and no --limit"
            )
        return Inputs(None, None, {}, "")
    if limit is not None:
        check_integer(f"--limit of {experiment.name}", limit, low=pictures.fewest)
        pictures = dataclasses.replace(pictures, members=limit, controls=limit if pictures.controls else 0)
    if controls is not None and members is None:
        raise ValueError("--controls needs --members: images of the same kind")
    if controls is not None and not pictures.controls:
        raise ValueError(f"{experiment.name} takes no --controls")
    if members is not None and controls is None and pictures.controls:
        raise ValueError(f"{experiment.name} needs --controls, images of the same kind as --members")
    if members is None:
        try:
            photographs = make_photographs(pictures.members, pictures.controls, pictures.size)
        except ValueError as error:
            raise ValueError(f"{error}: give --members and --controls, or fewer by --limit") from error
        chosen = dict(zip(("members", "controls"), photographs, strict=True))
        chosen = {split: images for split, images in chosen.items() if len(images)}
        said = dict.fromkeys(chosen, PHOTOGRAPHS)
    else:
        chosen, said = {}, {}
        shape = None
        for split, names, count in (("members", members, pictures.members), ("controls", controls, pictures.controls)):
            if names is not None:
                chosen[split] = _first(split, names, count, shape)
                shape = tuple(chosen[split].shape[1:])
                said[split] = str(names) if isinstance(names, (str, os.PathLike)) else ", ".join(map(str, names))
    digest = hashlib.sha256()
    for split, images in chosen.items():
        said[split] = f"{len(images)} of {said[split]}, {'×'.join(map(str, images.shape[1:]))}"
        digest.update(f"{split}{tuple(images.shape)}".encode() + images.numpy().tobytes())
    return Inputs(chosen["members"], chosen.get("controls"), said, digest.hexdigest()[:32])


def _first(split: str, names: Names, count: int, shape: Any) -> Tensor:
    """The first `count` images. Raises ValueError where there are fewer, or one is not usable."""
    images = open_images(names, shape, limit=count, expecting="as the members")
    if len(images) < count:
        raise ValueError(f"--{split} must have at least {count} images; {names} has {len(images)}")
    return images.stack()
