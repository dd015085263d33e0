"""How long an audit of 1,000 images takes: the accelerated solver against the plain reference of the paper's method.

    OMP_WAIT_POLICY=passive python -m benchmarks accelerated-time             about half an hour on two cores
    OMP_WAIT_POLICY=passive python -m benchmarks accelerated-time --every 4   one of four images: ten minutes
    python -m benchmarks accelerated-time --quick                             tiny, to see that it works

Trains a fully connected net on photographs, degrades them and as many more that it has not seen with six masks, and
recovers all of that blind. The reference takes 256 images at a time, and lets those that are done leave the batch.
Nothing else should run on the machine. Writes benchmarks/results/accelerated-time.json and .md.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import memrecon_fast as mf
from benchmarks.experiments.accelerated import BEFORE
from benchmarks.measuring import results_path, where, write_results
from benchmarks.registry import make_parser
from memrecon_fast import Settings, autoencoders, degradation, metrics
from memrecon_fast.engine.inflight import InFlight
from memrecon_fast.engine.samples import Sample
from memrecon_fast.images.photographs import make_photographs
from memrecon_fast.recovery import prepare_recover

BATCH = 256


@dataclasses.dataclass(frozen=True)
class Task:
    """What is audited."""

    members: int = 200
    controls: int = 800
    size: int = 16
    width: int = 512
    depth: int = 8
    steps: int = 3000
    target_loss: float = 1e-8
    threads: int = 2
    every: int = 1
    """Of the degraded images one of so many is recovered."""


PAPER = Settings(solver="paper")
QUICK = Task(members=8, controls=8, size=8, width=64, depth=4, steps=300)
WAYS = {
    "accelerated": Settings(solver="accelerated"),
    "accelerated, as it stopped before": Settings(solver="accelerated", **BEFORE),
    "accelerated, progressive": Settings(solver="accelerated", precision="progressive"),
    "accelerated, γ = 0.2": Settings(solver="accelerated", gamma=0.2),
    "accelerated, γ = 0.2, progressive": Settings(solver="accelerated", gamma=0.2, precision="progressive"),
    "paper, this library": PAPER,
    "paper, this library, progressive": Settings(solver="paper", precision="progressive"),
}


def main(arguments: Sequence[str]) -> None:
    """Measure, and write."""
    name = "accelerated-time"
    parser = make_parser(name, __doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, results to a temporary folder")
    parser.add_argument("--out", type=Path, help=f"results, without suffix; benchmarks/results/{name} without it")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="of the degraded images every Nth")
    options = parser.parse_args(arguments)
    results = measure(dataclasses.replace(QUICK if options.quick else Task(), every=options.every))
    write_results(results_path(name, options.out, options.quick), results, render(results))


def measure(task: Task) -> dict[str, Any]:
    """Every way once, the reference first."""
    torch.set_num_threads(task.threads)
    members, controls = make_photographs(task.members, task.controls, task.size)
    model = autoencoders.FullyConnected(tuple(members.shape[1:]), task.width, task.depth)
    loss = autoencoders.train(model, members, task.target_loss, max_steps=task.steps).loss
    originals = torch.cat([members, controls]).repeat(len(degradation.MASKS), 1, 1, 1)
    degraded = torch.cat(list(_degraded(torch.cat([members, controls]))))
    is_member = (torch.arange(len(originals)) % (task.members + task.controls)) < task.members
    originals, degraded, is_member = (one[:: task.every] for one in (originals, degraded, is_member))
    results: dict[str, Any] = {"where": where(), "task": dataclasses.asdict(task), "loss": loss, "ways": {}}
    results["members"] = int(is_member.sum())
    results["closest controls"] = closest(members, controls)

    def add(name: str, recover: Callable[[], tuple[Tensor, Tensor]]) -> None:
        begin = time.perf_counter()
        images, evaluations = recover()
        seconds = time.perf_counter() - begin
        mse = metrics.mse(images, originals)
        results["ways"][name] = {
            "seconds": seconds,
            "accurate": int((mse < metrics.ACCURATE_MSE)[is_member].sum()),
            "approximate": int((mse < metrics.APPROXIMATE_MSE)[is_member].sum()),
            "controls": int((mse < metrics.APPROXIMATE_MSE)[~is_member].sum()),
            "evaluations of members": evaluations[is_member].float().mean().item(),
            "evaluations of controls": evaluations[~is_member].float().mean().item(),
        }
        print(f"{name}: {seconds:.1f} s", flush=True)

    for name, settings in WAYS.items():
        add(name, lambda settings=settings: _stream(model, degraded, settings))  # type: ignore[misc]
    add("reference of the paper's method", lambda: _reference(model, degraded))
    return results


def closest(members: Tensor, controls: Tensor) -> list[float]:
    """The MSE of the ten controls that are nearest to a member, each to that member, ascending."""
    distances = torch.cdist(controls.flatten(1), members.flatten(1)).amin(dim=1)
    errors: list[float] = (distances.square() / members[0].numel()).sort().values[:10].tolist()
    return errors


def _degraded(images: Tensor) -> Iterator[Tensor]:
    for name in degradation.MASKS:
        yield degradation.erase(images, degradation.make_mask(name, images.shape[1:]))


def _reference(model: nn.Module, degraded: Tensor) -> tuple[Tensor, Tensor]:
    parts = [mf.reference.recover(model, batch, settings=PAPER) for batch in degraded.split(BATCH)]
    return torch.cat([part.images for part in parts]), torch.cat([part.evaluations for part in parts])


def _stream(model: nn.Module, degraded: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    images = torch.empty_like(degraded)
    evaluations = torch.zeros(len(degraded), dtype=torch.int32)
    in_flight = InFlight(prepare_recover(model, degraded.shape[1:], settings))
    for one in in_flight.stream(Sample(i, y) for i, y in enumerate(degraded)):
        images[one.index] = one.image
        evaluations[one.index] = one.evaluations
    return images, evaluations


def render(results: dict[str, Any]) -> str:
    """The table."""
    task, about, ways = results["task"], results["where"], results["ways"]
    slowest = ways["reference of the paper's method"]
    lines = [
        "# The time of an audit with the accelerated solver",
        "",
        f"Written by `python -m benchmarks accelerated-time`: {task['members']} members and {task['controls']} "
        f"controls, {task['size']}×{task['size']}×3, under six masks, blind; fully connected, "
        f"{task['depth']} × {task['width']}, train loss {results['loss']:.1e}. {about['processor']}, "
        f"{task['threads']} threads, torch {about['torch']}, commit {about['commit']}, {about['date']}. Each way ran "
        f"once; the reference (`mf.reference.recover`, γ = 0.5) with {BATCH} images at a time. "
        f"{'All' if task['every'] == 1 else 'One of ' + str(task['every'])} of the degraded images were recovered.",
        "",
        "Some controls are nearly a member: crops of one photograph. The pixel MSE of the closest ones to a member: "
        f"{', '.join(f'{mse:.1e}' for mse in results['closest controls'])}.",
        "",
        f"| | seconds | times as fast as the reference | members recovered accurately, of {results['members']} "
        "| approximately | controls, approximately | evaluations of a member, mean | of a control |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, way in ways.items():
        lines.append(
            f"| {name} | {way['seconds']:.1f} | {slowest['seconds'] / way['seconds']:.1f} | {way['accurate']} "
            f"| {way['approximate']} | {way['controls']} | {way['evaluations of members']:.0f} "
            f"| {way['evaluations of controls']:.0f} |"
        )
    return "\n".join(lines) + "\n"
