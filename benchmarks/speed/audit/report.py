"""The results of the benchmark of audits as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Row = dict[str, Any]

MIN_IN_PASSES = 0.90
MIN_BUSY = 0.95
MAX_MEMORY = 1.10
MIN_OF_TWO_WORKERS = 1.8


def targets(parts: Row) -> list[Row]:
    """What was asked for, and what was measured: value None where its part was not."""
    throughput, memory, workers = (parts.get(name) for name in ("throughput", "memory", "workers"))
    in_passes = throughput and throughput["share in forward passes"]
    busy = throughput and throughput["slots busy"]
    growth = throughput and memory and throughput["peak, MB"] / memory["peak, MB"]
    ratio = workers and workers["ratio"]
    return [
        _target("share of the time in forward passes", in_passes, MIN_IN_PASSES, at_least=True),
        _target("share of slots busy, until the last 1 % of images", busy, MIN_BUSY, at_least=True),
        _target("peak of memory, all images / a tenth of them", growth, MAX_MEMORY, at_least=False),
        _target("images per second, two Ray workers / one", ratio, MIN_OF_TWO_WORKERS, at_least=True),
    ]


def render(results: Row) -> str:
    """The whole report."""
    return "\n".join(_lines(results)) + "\n"


def _lines(results: Row) -> Iterator[str]:
    task, parts = results["task"], results["parts"]
    yield "# Audits"
    yield ""
    if results["quick"]:
        yield from ["**Made with `--quick`: tiny sizes, times mean nothing.**", ""]
    yield (
        f"Written by `python -m benchmarks audit`: an audit of {task['images']} images of {task['size']}×"
        f"{task['size']}×3, half members, half controls, overlapping crops of photographs, no two the same. The "
        f"autoencoder is fully connected, {task['depth']} layers × {task['width']}, with random weights, as "
        f"`FullyConnected` begins with: the time of a matrix product does not depend on them; nothing is recovered. "
        f"Mask {task['mask']}, method `paper`, γ = {task['gamma']:g}, at most {task['outer_iterations']} outer "
        f"iterations, otherwise the settings and slots that an audit has by default. Each part ran in a process of its "
        f"own."
    )
    yield ""
    yield "| target | wanted | measured | met |"
    yield "|---|---|---|---|"
    for target in targets(parts):
        met = {None: "not measured", True: "yes", False: "**no**"}[target["met"]]
        value = "" if target["value"] is None else f"{target['value']:.3f}"
        yield f"| {target['what']} | {target['wanted']} | {value} | {met} |"
    for name, section in (
        ("throughput", _throughput),
        ("memory", _memory),
        ("workers", _workers),
        ("reference", _reference),
    ):
        if name in parts:
            yield from ["", f"## {name.capitalize()}", ""]
            yield from section(parts, task)
            yield ""
            yield "; ".join(f"{key}: {value}" for key, value in parts[name]["where"].items()) + "."


def _throughput(parts: Row, task: Row) -> Iterator[str]:
    part = parts["throughput"]
    seconds, bare = part["seconds"], part["bare pass"]
    yield (
        f"{part['images per second']:.2f} images per second, {seconds:.1f} seconds from opening the images to the "
        f"report ({part['execution']}). Of these {part['share in forward passes']:.1%} in forward passes; of the work "
        f"alone, without reading the images, opening the run and the report, "
        f"{part['share in forward passes, of the work']:.1%}."
    )
    yield ""
    yield "| what | seconds | share |"
    yield "|---|---|---|"
    for what, spent in sorted(part["seconds by what"].items(), key=lambda item: -item[1]):
        yield f"| {what} | {spent:.2f} | {spent / seconds:.2%} |"
    yield ""
    yield (
        f"The floor: {part['TFLOP']:.4g} TFLOP in matrix products, at the {bare['GFLOP/s']:.1f} GFLOP/s of the bare "
        f"forward pass of {bare['rows']} images in the same process ({_milliseconds(bare['seconds before'])} before, "
        f"{_milliseconds(bare['seconds after'])} after), are {part['floor, seconds']:.1f} seconds: the audit took "
        f"{seconds / part['floor, seconds']:.3f} times as long."
    )
    yield ""
    yield (
        f"Until 99 % of the images were done, {part['slots busy']:.2%} of the slots held an image that was worked on, "
        f"and {part['rows used']:.2%} of the rows given to the model belonged to one; to the very end "
        f"{part['rows used, to the end']:.2%} ({part['evaluations']} evaluations in the records, {part['rows']} rows "
        f"in {part['forward passes']} passes). So few outer iterations are the same number for all images: they end in "
        f"step, and slots are refilled all at once. tests/engine/test_inflight.py asserts what holds where they do not."
    )


def _memory(parts: Row, task: Row) -> Iterator[str]:
    runs = [parts[name] for name in ("memory", "throughput") if name in parts]
    yield "MB (10⁶ bytes) that were resident after each step, in brackets the most until then; in fresh processes."
    yield ""
    steps = list(runs[0]["resident, MB"])
    yield f"| images | near-duplicates found | {' | '.join(steps)} | peak |"
    yield "|---" * (len(steps) + 3) + "|"
    for run in runs:
        cells = (f"{run['resident, MB'][step]:.0f} ({run['peak until then, MB'][step]:.0f})" for step in steps)
        yield f"| {run['images']} | {run['near duplicates']} | {' | '.join(cells)} | {run['peak, MB']:.0f} |"


def _workers(parts: Row, task: Row) -> Iterator[str]:
    part = parts["workers"]
    yield (
        f"Ray workers of one thread each on {part['images']} images, in turn. Images per second of the work: from the "
        f"first forward pass of any worker to the last one of any, without the start of Ray and the loading of the "
        f"model, and with the time at the end when one worker has nothing left to do. *All at work*: by the forward "
        f"passes made while every worker was at work. The record files of all rounds are equal, byte for byte."
    )
    yield ""
    columns = ("workers", "images per second", "all at work", "seconds of the work", "to start Ray")
    yield f"| {' | '.join(columns)} | to the first pass | in passes |"
    yield "|---|---|---|---|---|---|---|"
    for row in part["rounds"]:
        in_passes = ", ".join(f"{seconds / row['seconds of the work']:.1%}" for seconds in row["seconds in passes"])
        yield (
            f"| {row['workers']} | {row['images per second']:.2f} | {row['images per second, all at work']:.2f} | "
            f"{row['seconds of the work']:.1f} | {row['seconds to start Ray']:.1f} | "
            f"{row['seconds from there to the first pass']:.1f} | {in_passes} |"
        )
    yield ""
    if any(row["workers that had work"] < row["workers"] for row in part["rounds"]):
        yield from ["**Of so few images a worker got none: the ratio means nothing.**", ""]
    yield f"Two workers against one: {part['ratio']:.3f} times; all at work {part['ratio, all at work']:.3f} times."


def _reference(parts: Row, task: Row) -> Iterator[str]:
    part = parts["reference"]
    yield (
        f"{part['images']} images, {part['rounds']} rounds in turn, the same threads: the work of an audit (its "
        f"session in `audit.json`; it keeps all estimates here), `recover()`, and the plain reference on all of them "
        f"as one batch. The audit gives the images of `recover()` bit for bit; those of the reference differ by at "
        f"most {part['largest difference of a pixel']:.1e} in a pixel ({part['tolerance']:g} is allowed), and its "
        f"verdicts are the same."
    )
    yield ""
    yield "| | seconds (p20–p80) | reference / this |"
    yield "|---|---|---|"
    ratios = {"audit": part["ratio"], "recover": part["ratio of recover"], "reference": 1.0}
    for name, ratio in ratios.items():
        spread = part["seconds"][name]
        yield f"| {name} | {spread['p50']:.2f} ({spread['p20']:.2f}–{spread['p80']:.2f}) | {ratio:.3f} |"


def _target(what: str, value: float | None, limit: float, at_least: bool) -> Row:
    met = None if value is None else (value >= limit if at_least else value <= limit)
    return {"what": what, "wanted": f"{'≥' if at_least else '≤'} {limit:.2f}", "value": value, "met": met}


def _milliseconds(spread: dict[str, float]) -> str:
    return f"{spread['p50'] * 1e3:.2f} ms"
