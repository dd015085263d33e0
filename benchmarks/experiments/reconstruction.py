"""From how many parameters on do the training inputs come back, and in how many passes over V?

    OMP_NUM_THREADS=1 python -m benchmarks reconstruction       about twenty minutes on one core
    python -m benchmarks reconstruction --quick                 tiny, to see that it works

Random features of n random inputs in d dimensions, with p features fitted to random labels: `mf.reconstruct` is told n,
and its inputs are compared with the true ones. "whole": trainings of which every input came back (an error of at most
0.01 of its length, with its sign where n ≤ d). And the paper's optimiser, gradient descent with momentum 0.9 and a rate
of 20 from a random start, until the mean error ρ is 0.1, or until it has used 100 times the passes: a pass is a product
of V, or of its transpose, with all inputs at once, two for each of its steps. Seconds are of processor time.

Writes benchmarks/results/reconstruction.json and .md.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

import memrecon_fast as mf
from benchmarks.measuring import results_path, where, write_results
from benchmarks.registry import make_parser
from memrecon_fast.reconstruction import Comparison, RandomFeatures, Reconstruction, compare
from memrecon_fast.reconstruction.projected import OnSphere, onto_sphere
from memrecon_fast.reconstruction.sgd import PASSES_A_STEP, sgd

GOOD = 0.1
"""ρ at which gradient descent is stopped."""
MOST_TIMES = 100


@dataclasses.dataclass(frozen=True)
class Task:
    """Numbers of inputs and dimensions, and p over n·d."""

    law: tuple[tuple[str, int, int, tuple[float, ...]], ...] = (
        ("relu", 5, 50, (1.5, 2, 2.5, 4, 10)),
        ("relu", 10, 100, (1.5, 2, 2.5, 4, 10)),
        ("relu", 20, 100, (1.5, 2, 2.5, 4, 10)),
        ("relu", 30, 20, (2, 4, 10)),
        ("relu+tanh", 5, 50, (2.5, 4, 10)),
        ("relu+tanh", 10, 100, (2.5, 4, 10)),
    )
    descent: tuple[tuple[str, int, int, float], ...] = (("relu", 5, 50, 10), ("relu", 20, 100, 10))
    seeds: int = 5
    descent_seeds: int = 3


QUICK = Task(law=(("relu", 3, 20, (1.7, 6)),), descent=(("relu", 3, 20, 6),), seeds=1, descent_seeds=1)


def example(activation: str, n: int, d: int, ratio: float, seed: int) -> tuple[RandomFeatures, Tensor, Tensor]:
    """A model, the inputs, and the parameters that were fitted to them."""
    generator = Generator().manual_seed(1_000_000 + seed)  # not that of the weights
    inputs = torch.randn(n, d, generator=generator, dtype=torch.float64)
    inputs *= math.sqrt(d) / inputs.norm(dim=1, keepdim=True)
    labels = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    model = RandomFeatures.from_seed(round(ratio * n * d), d, seed, activation)
    return model, inputs, model.fit(inputs, labels)


def solve(model: RandomFeatures, inputs: Tensor, theta: Tensor) -> tuple[Reconstruction, Comparison, float]:
    """What comes back, and the seconds that it took."""
    began = time.thread_time()
    found = mf.reconstruct(model, theta, len(inputs))
    seconds = time.thread_time() - began
    return found, compare(inputs, found.inputs, up_to_sign=len(inputs) > model.d), seconds


def law(task: Task, activation: str, n: int, d: int, ratio: float) -> dict[str, Any]:
    """One row: some seeds."""
    solved = [solve(*example(activation, n, d, ratio, seed)) for seed in range(task.seeds)]
    row = {
        "activation": activation,
        "n": n,
        "d": d,
        "p over nd": ratio,
        "seeds": task.seeds,
        "whole": sum(compared.recovered == n for _, compared, _ in solved),
        "inputs": sum(compared.recovered for _, compared, _ in solved) / (n * task.seeds),
        "worst error": max(compared.error for _, compared, _ in solved),
        "explained": sum(found.residual < 1e-5 for found, _, _ in solved),
        "passes": sorted(found.passes for found, _, _ in solved)[task.seeds // 2],
        "seconds": sorted(seconds for _, _, seconds in solved)[task.seeds // 2],
    }
    print(row, flush=True)
    return row


def descent(activation: str, n: int, d: int, ratio: float, seed: int) -> dict[str, Any]:
    """One row: the paper's optimiser, and this project's."""
    model, inputs, theta = example(activation, n, d, ratio, seed)
    found, compared, seconds = solve(model, inputs, theta)
    start = torch.randn(n, d, generator=Generator().manual_seed(2_000_000 + seed), dtype=torch.float64)
    began = time.thread_time()
    passes, error = 0, math.inf
    for step, here in enumerate(sgd(model, theta[None], OnSphere(onto_sphere(start)))):
        passes = PASSES_A_STEP * step
        if step % 10 == 0:
            error = compare(inputs, here.at.inputs).error
        if error <= GOOD or passes >= MOST_TIMES * found.passes:
            break
    row = {
        "activation": activation,
        "n": n,
        "d": d,
        "p over nd": ratio,
        "seed": seed,
        "passes": found.passes,
        "seconds": seconds,
        "error": compared.error,
        "passes of descent": passes,
        "seconds of descent": time.thread_time() - began,
        "error of descent": error,
    }
    print(row, flush=True)
    return row


def render(about: dict[str, Any], rows: list[dict[str, Any]], descents: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        "# Training inputs from the parameters of random features",
        "",
        "Written by `OMP_NUM_THREADS=1 python -m benchmarks reconstruction`, which says what is measured.",
        f"{about['processor']}, one thread, torch {about['torch']}, {about['date']}, commit {about['commit']}.",
        "",
        "| σ | n | d | p/nd | whole | inputs back | worst ρ | θ explained | passes, median | seconds, median |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['activation']} | {row['n']} | {row['d']} | {row['p over nd']:g} | {row['whole']} of {row['seeds']} | "
        f"{row['inputs']:.0%} | {row['worst error']:.0e} | {row['explained']} of {row['seeds']} | "
        f"{row['passes']:.0f} | {row['seconds']:.1f} |"
        for row in rows
    ]
    lines += [
        "",
        f"Against the paper's optimiser, until its ρ is {GOOD} or it has used {MOST_TIMES} times the passes:",
        "",
        "| σ | n | d | p/nd | seed | passes | ρ | seconds | passes of descent | its ρ | seconds | times the passes |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['activation']} | {row['n']} | {row['d']} | {row['p over nd']:g} | {row['seed']} | "
        f"{row['passes']:.0f} | {row['error']:.0e} | {row['seconds']:.1f} | "
        f"{row['passes of descent']} | {row['error of descent']:.2f} | "
        f"{row['seconds of descent']:.1f} | {row['passes of descent'] / row['passes']:.0f} |"
        for row in descents
    ]
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str]) -> None:
    """Measure and write."""
    parser = make_parser("reconstruction", __doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, results to a temporary folder")
    parser.add_argument("--out", type=Path, help="results, without suffix; benchmarks/results/reconstruction else")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    about = where()
    task = QUICK if options.quick else Task()
    path = results_path("reconstruction", options.out, options.quick)
    descents = [descent(*cell, seed) for cell in task.descent for seed in range(task.descent_seeds)]
    rows = []
    for activation, n, d, ratios in task.law:
        for ratio in ratios:
            rows.append(law(task, activation, n, d, ratio))
            results = {"where": about, "law": rows, "descent": descents}
            write_results(path, results, render(about, rows, descents))
    print(render(about, rows, descents))
