"""What the number format of the forward passes does to the verdicts; not to the time, which a GPU would have to show.

    OMP_NUM_THREADS=1 python -m benchmarks.precision        about a quarter of an hour on one core

Trains three nets on 30 photographs, and recovers these and 30 others, blind, under all masks and with two γ, in
float32, progressive and bfloat16. Writes benchmarks/results/precision.json and precision.md.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import memrecon_fast as mf
from benchmarks.measuring import where
from memrecon_fast import Settings, autoencoders, degradation, metrics
from memrecon_fast.images.photographs import make_photographs

RESULTS = Path(__file__).parents[1] / "results"
SHAPE = (3, 16, 16)
IMAGES = 30
NETS = (("leaky_relu", 6, 1e-9), ("prelu", 6, 1e-7), ("leaky_relu", 10, 1e-9))
GAMMAS = (0.1, 0.5)
SETTINGS = Settings(solver="paper", max_outer_iterations=60)
OTHERS = ("progressive", "bfloat16")


def train_net(activation: str, depth: int, target_loss: float, members: Tensor) -> tuple[str, nn.Module]:
    """The net, and what to call it."""
    net = autoencoders.FullyConnected(SHAPE, width=384, depth=depth, activation=activation)
    result = autoencoders.train(net, members, target_loss, max_steps=6000)
    return f"FC {depth} × 384, {activation}, loss {result.loss:.1e}", net


def compare(name: str, net: nn.Module, images: Tensor, gamma: float, mask: str) -> dict[str, Any]:
    """One cell: how often each format recovers, and how often it disagrees with float32."""
    degraded = degradation.erase(images, degradation.make_mask(mask, SHAPE))
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
    mse = metrics.mse(recovered, images)
    return {
        "accurate": metrics.recovery_rate(mse[:IMAGES], metrics.ACCURATE_MSE),
        "approximate": metrics.recovery_rate(mse[:IMAGES], metrics.APPROXIMATE_MSE),
        "controls": metrics.recovery_rate(mse[IMAGES:], metrics.APPROXIMATE_MSE),
    }


def differing(a: Tensor, b: Tensor, images: Tensor, threshold: float) -> int:
    """The number of images of which one recovery is below the threshold and the other is not."""
    return int(((metrics.mse(a, images) < threshold) != (metrics.mse(b, images) < threshold)).sum())


def render(rows: list[dict[str, Any]], about: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "# Number formats of the forward passes",
        "",
        f"`OMP_NUM_THREADS=1 python -m benchmarks.precision`, {about['processor']}, torch {about['torch']}, commit "
        f"{about['commit']}. {IMAGES} members and {IMAGES} controls, blind, at most {SETTINGS.max_outer_iterations} "
        "outer iterations. Rates are of members, approximate / accurate. *Other verdicts*: images, of all "
        f"{2 * IMAGES}, that float32 judges otherwise, approximate / accurate. *Same*: images that are float32's bit "
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


def main() -> None:
    """Measure all cells; the results are written after each net."""
    torch.set_num_threads(1)
    members, controls = make_photographs(IMAGES, IMAGES, SHAPE[1])
    images, about = torch.cat([members, controls]), where()
    rows: list[dict[str, Any]] = []
    for activation, depth, target_loss in NETS:
        name, net = train_net(activation, depth, target_loss, members)
        for gamma in GAMMAS:
            rows += [compare(name, net, images, gamma, mask) for mask in degradation.MASKS]
            print(render(rows, about).splitlines()[-1], flush=True)
        (RESULTS / "precision.json").write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
        (RESULTS / "precision.md").write_text(render(rows, about))


if __name__ == "__main__":
    main()
