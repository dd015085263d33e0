"""Audits of a net at several levels of its train loss, by the methods of the paper and by this project's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memrecon_fast.audit import Audit, open_model, run
from memrecon_fast.audit.opened import Run
from memrecon_fast.audit.store.records import Cell
from memrecon_fast.degradation import MASKS, erase, make_mask
from memrecon_fast.engine.inflight import InFlight
from memrecon_fast.engine.samples import Sample
from memrecon_fast.experiments.experiment import Given, Outcome, Row
from memrecon_fast.experiments.recovery.nets import Net, Trained, fit
from memrecon_fast.images.arrays import from_array
from memrecon_fast.images.scan import Images, scan
from memrecon_fast.recovery import prepare_recover
from memrecon_fast.results import noise_floor
from memrecon_fast.settings import Settings

OURS = "accelerated"
PUBLISHED = ("paper", "known-mask", "iterate", "inpaint")
"""The methods of the paper; "inpaint", for which no diffusion model is needed, in place of DDNM."""
BORDERLINE = (4e-4, 5e-4)
"""The errors of the images of Figure F.1."""
_SHOWN = 4


@dataclasses.dataclass(frozen=True)
class Task:
    """What of a net is audited."""

    levels: Sequence[float]
    masks: Sequence[str] = MASKS
    methods: Sequence[str] = (OURS, *PUBLISHED)
    noise_std: float = 0.0
    controls: Sequence[str] = (OURS, "paper")
    """The solvers whose audits try controls as well, of the net with the lowest loss; of others none does, as in the
    paper."""
    borderline: bool = False
    """Whether estimates of which the error is borderline are kept, to be shown."""


def measure(given: Given, net: Net, task: Task) -> Outcome:
    """Train the net, and audit it at each level that it reached; rows as `rates_of` makes them.

    Arrays, for each level: the errors of the members, by `errors_name`; and "borderline", (2, n, C, H, W), originals
    and estimates by the paper's method with "borderline-mse" (n,).
    """
    members, controls = (net.images(pictures) for pictures in given.images())
    rows: list[Row] = []
    arrays: dict[str, NDArray[Any]] = {}
    trained = fit(given, net, members, task.levels)
    shown: dict[int, tuple[Tensor, float]] = {}
    for one in trained:
        about = {"net": net.title, "level": one.level, "loss": one.loss}
        for audit in audits_of(given, net, one, members, controls if one is trained[-1] else None, task):
            rows += [about | row for row in rates_of(audit)]
            for cell in _cells(audit):
                if cell.split == "members":
                    arrays[errors_name(one.name, cell)] = audit.results.cells[cell]["mse"]
            if task.borderline and "paper" in audit.summary["methods"] and len(shown) < _SHOWN:
                shown = _borderline(given, net, one, audit, members, task) | shown
    if shown:
        chosen = dict(list(shown.items())[:_SHOWN])
        estimates, errors = zip(*chosen.values(), strict=True)
        arrays["borderline"] = torch.stack([members[list(chosen)], torch.stack(estimates)]).numpy()
        arrays["borderline-mse"] = np.array(errors)
    return Outcome(rows, arrays)


def errors_name(level: str, cell: Cell) -> str:
    """The name of an array of errors."""
    return f"{level} {cell.mask} {cell.method}"


def rates_of(audit: Run) -> list[Row]:
    """A row for each split, mask and method under which images count: how many, the rates of accurate and approximate
    recovery, mean PSNR in dB, mean applications of the autoencoder."""
    taken = ("split", "mask", "method", "images")
    named = {"accurate_rate": "accurate", "approximate_rate": "approximate", "mean_psnr": "psnr",
             "mean_evaluations": "evaluations"}  # fmt: skip
    return [
        {name: row[name] for name in taken} | {ours: row[name] for name, ours in named.items()}
        for row in audit.summary["rows"]
        if row["images"]
    ]


def audits_of(given: Given, net: Net, one: Trained, members: Tensor, controls: Tensor | None, task: Task) -> list[Run]:
    """Two of them, as this project's method and the paper's have different γ."""
    images = {"members": _scanned(members)}
    beside = {} if controls is None else {"controls": _scanned(controls)}
    shape = images["members"].image_shape
    masks = {name: make_mask(name, shape, given.seed) for name in task.masks}
    model = open_model(one.path, device=given.device)
    found = []
    for solver, methods in ((OURS, [OURS]), ("paper", PUBLISHED)):
        if chosen := tuple(method for method in methods if method in task.methods):
            plan = Audit(
                images | (beside if solver in task.controls else {}),
                masks,
                chosen,
                net.settings(given.seed, solver, noisy=task.noise_std > 0),
                noise_std=task.noise_std,
            )
            found.append(run(plan, model, given.kept / f"{one.name}-{solver}", progress=False))
    return found


def _cells(audit: Run) -> list[Cell]:
    return [Cell(row["split"], row["mask"], row["method"]) for row in audit.summary["rows"] if row["images"]]


def _borderline(
    given: Given, net: Net, one: Trained, audit: Run, members: Tensor, task: Task
) -> dict[int, tuple[Tensor, float]]:
    """Estimates by the paper's method of members that are just about recovered, with their errors, by the member's
    index. They are made once more: an audit keeps few."""
    low, high = BORDERLINE
    found: dict[int, tuple[Tensor, float]] = {}
    prepared = prepare_recover(one.load(given.device), members.shape[1:], net.settings(given.seed, "paper"))
    for name in task.masks:
        cell = Cell("members", name, "paper")
        columns = audit.results.cells.get(cell, {"index": np.array([]), "mse": np.array([])})
        chosen = columns["index"][(columns["mse"] > low) & (columns["mse"] < high)].tolist()
        mask = make_mask(name, members.shape[1:], given.seed)
        wanted = [index for index in chosen if index not in found][:2]
        samples = [Sample(index, erase(members[index : index + 1], mask)[0]) for index in wanted]
        for done in InFlight(prepared, max(1, len(samples))).stream(samples):
            found[done.index] = (done.image, (done.image - members[done.index]).square().mean().item())
    return found


def noisy_settings(net: Net, seed: int, solver: str, noise_std: float, pixels: int) -> Settings:
    """Of a blind recovery of images of so many entries, as audits make it: they allow for what the noise leaves of the
    score."""
    settings = net.settings(seed, solver, noisy=noise_std > 0)
    below = settings.recognized_below + noise_floor(noise_std, pixels, pixels)
    return dataclasses.replace(settings, recognized_below=below)


def _scanned(pictures: Tensor) -> Images:
    return scan(from_array(pictures.permute(0, 2, 3, 1).contiguous().numpy()))
