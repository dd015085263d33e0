"""What the number format of the forward passes does to the verdicts; not to the time, which a GPU would have to show.

    OMP_NUM_THREADS=1 python -m benchmarks precision        about a quarter of an hour on one core
    python -m benchmarks precision --quick                  tiny, to see that it works

Trains three nets on 30 photographs, and recovers these and 30 others, blind, under all masks and with two γ, in
float32, progressive and bfloat16. Writes benchmarks/results/precision.json and precision.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import memrecon_fast as mf
from benchmarks.measuring import results_path, where, write_results
from benchmarks.registry import make_parser
from memrecon_fast import Settings, autoencoders, degradation, metrics
from memrecon_fast.images.photographs import make_photographs

SETTINGS = Settings(solver="paper", max_outer_iterations=60)
OTHERS = ("progressive", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Task:
    """What is recovered. `images`: members, and as many controls. `nets`: activation, depth and target loss."""

    images: int = 30
    size: int = 16
    width: int = 384
    nets: tuple[tuple[str, int, float], ...] = (("leaky_relu", 6, 1e-9), ("prelu", 6, 1e-7), ("leaky_relu", 10, 1e-9))
    steps: int = 6000
    gammas: tuple[float, ...] = (0.1, 0.5)
    masks: tuple[str, ...] = degradation.MASKS


QUICK = Task(images=2, size=8, width=32, nets=(("leaky_relu", 2, 1e-2),), steps=100, gammas=(0.5,), masks=("center",))


def train_net(task: Task, net: tuple[str, int, float], members: Tensor) -> tuple[str, nn.Module]:
    """The net, and what to call it."""
    activation, depth, target_loss = net
    model = autoencoders.FullyConnected(tuple(members.shape[1:]), task.width, depth, activation)
    result = autoencoders.train(model, members, target_loss, max_steps=task.steps)
    return f"FC {depth} × {task.width}, {activation}, loss {result.loss:.1e}", model


def compare(name: str, net: nn.Module, images: Tensor, gamma: float, mask: str) -> dict[str, Any]:
    """One cell: how often each format recovers, and how often it disagrees with float32. The first half are members."""
    degraded = degradation.erase(images, degradation.make_mask(mask, images.shape[1:]))
    settings = dataclasses.replace(SETTINGS, gamma=gamma)
    exact = mf.recover(net, degraded, settings=settings)
    row: dict[str, Any] = {"net": name, "gamma": gamma, "mask": mask, "float32": rates(exact.images, images)}
    row["float32"]["evaluations"] = int(exact.evaluations.sum())
    for precision in OTHERS:
        rows = {"bfloat16": 0, "float32": 0}

        def counting(x: Tensor, rows: dict[str, int] = rows) -> Tensor:
            rows["bfloat16" if torch.is_autocast_enabled("cpu") else "float32"] += len(x)
            return net(x)  # type: ignore[no-any-return]

        got = mf.recover(counting, degraded, settings=dataclasses.replace(settings, precision=precision))
        row[precision] = rates(got.images, images) | {
            "other accurate verdicts": differing(got.images, exact.images, images, metrics.ACCURATE_MSE),
            "other approximate verdicts": differing(got.images, exact.images, images, metrics.APPROXIMATE_MSE),
            "same images": int((got.images == exact.images).flatten(1).all(dim=1).sum()),
            "evaluations": int(got.evaluations.sum()),
            "rows": rows,
        }
    return row


def rates(recovered: Tensor, images: Tensor) -> dict[str, float]:
    """Of members and of controls."""
    members, controls = metrics.mse(recovered, images).chunk(2)
    return {
        "accurate": metrics.recovery_rate(members, metrics.ACCURATE_MSE),
        "approximate": metrics.recovery_rate(members, metrics.APPROXIMATE_MSE),
        "controls": metrics.recovery_rate(controls, metrics.APPROXIMATE_MSE),
    }


def differing(a: Tensor, b: Tensor, images: Tensor, threshold: float) -> int:
    """The number of images of which one recovery is below the threshold and the other is not."""
    return int(((metrics.mse(a, images) < threshold) != (metrics.mse(b, images) < threshold)).sum())


def render(rows: list[dict[str, Any]], about: dict[str, Any], images: int) -> str:
    """The results as Markdown."""
    lines = [
        "# Number formats of the forward passes",
        "",
        f"`OMP_NUM_THREADS=1 python -m benchmarks precision`, {about['processor']}, torch {about['torch']}, commit "
        f"{about['commit']}. {images} members and {images} controls, blind, at most {SETTINGS.max_outer_iterations} "
        "outer iterations. Rates are of members, approximate / accurate. *Other verdicts*: images, of all "
        f"{2 * images}, that float32 judges otherwise, approximate / accurate. *Same*: images that are float32's bit "
        "for bit. "
        "*In bfloat16*: share of the rows that went through the net.",
        "",
        "| net | γ | mask | float32 | progressive: other verdicts | same | in bfloat16 | bfloat16 | other verdicts |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        progressive, fast = row["progressive"], row["bfloat16"]
        share = progressive["rows"]["bfloat16"] / sum(progressive["rows"].values())
        cells = [
            *(row["net"], f"{row['gamma']:g}", row["mask"], rate(row["float32"]), verdicts(progressive)),
            *(str(progressive["same images"]), f"{share:.0%}", rate(fast), verdicts(fast)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def rate(row: dict[str, float]) -> str:
    return f"{row['approximate']:.0%} / {row['accurate']:.0%}"


def verdicts(row: dict[str, int]) -> str:
    return f"{row['other approximate verdicts']} / {row['other accurate verdicts']}"


def main(arguments: Sequence[str]) -> None:
    """Measure all cells; the results are written after each net."""
    parser = make_parser("precision", __doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, results to a temporary folder")
    parser.add_argument("--out", type=Path, help="results, without suffix; benchmarks/results/precision without it")
    options = parser.parse_args(arguments)
    out, task = results_path("precision", options.out, options.quick), QUICK if options.quick else Task()
    torch.set_num_threads(1)
    members, controls = make_photographs(task.images, task.images, task.size)
    images, about = torch.cat([members, controls]), where()
    rows: list[dict[str, Any]] = []
    for one in task.nets:
        name, net = train_net(task, one, members)
        for gamma in task.gammas:
            rows += [compare(name, net, images, gamma, mask) for mask in task.masks]
            print(render(rows, about, task.images).splitlines()[-1], flush=True)
        write_results(out, {**about, "rows": rows}, render(rows, about, task.images))
