"""How many passes over V does each optimiser take to training inputs?

    OMP_NUM_THREADS=1 python -m benchmarks reconstruction       about twelve minutes on one core
    python -m benchmarks reconstruction --quick                 tiny, to see that it works

Random features (ReLU) of n random inputs in d dimensions, with p = 10 n·d features fitted to random labels. This
project's solver is told n. The others descend the paper's loss from a random start: its own optimiser, gradient descent
with momentum 0.9 and a rate of 20; Adam with a rate of 0.03; L-BFGS with a history of 20 and strong Wolfe conditions.
They end where the mean error ρ is at most 0.1, where they have used 100 times the passes of this project's (Adam and
L-BFGS: 30 times), or where they no longer move. A pass is a product of V, or of its transpose, with all inputs at once:
two for each value of the loss with its gradient. "Back": inputs with an error of at most 0.01 of their length, with
their signs. Seconds are of processor time.
From how many parameters on inputs come back: `memrecon reproduce reconstruction-law`.

Writes benchmarks/results/reconstruction.json and .md.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

import memrecon_fast as mf
from benchmarks.measuring import results_path, where, write_results
from benchmarks.registry import make_parser
from memrecon_fast.reconstruction import Comparison, RandomFeatures, compare
from memrecon_fast.reconstruction.projected import OnSphere, onto_sphere, project
from memrecon_fast.reconstruction.sgd import PASSES_A_STEP, sgd

GOOD = 0.1
"""ρ at which the others are stopped."""
RATIO = 10
"""p/(n·d)."""
LOOK_EVERY = 10
"""Steps between looks at ρ."""
ADAM_RATE, HISTORY = 0.03, 20


@dataclasses.dataclass(frozen=True)
class Task:
    """Numbers of inputs, dimensions and seeds."""

    sizes: tuple[tuple[int, int, int], ...] = ((5, 50, 3), (20, 100, 3))


QUICK = Task(sizes=((3, 20, 1),))


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """A model, the inputs, and the parameters that were fitted to them."""

    model: RandomFeatures
    inputs: Tensor
    theta: Tensor
    start: Tensor

    @classmethod
    def of(cls, n: int, d: int, seed: int) -> Problem:
        """Labels are ±1."""
        generator = Generator().manual_seed(1_000_000 + seed)  # not that of the weights
        inputs = onto_sphere(torch.randn(n, d, generator=generator, dtype=torch.float64))
        labels = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
        model = RandomFeatures.from_seed(RATIO * n * d, d, seed)
        start = torch.randn(n, d, generator=Generator().manual_seed(2_000_000 + seed), dtype=torch.float64)
        return cls(model, inputs, model.fit(inputs, labels), onto_sphere(start))

    def loss(self, free: Tensor) -> tuple[float, Tensor]:
        """The paper's loss of inputs of any length, taken to the sphere, and its gradient."""
        here = project(self.model, self.theta[None], OnSphere(onto_sphere(free)))
        norm = float(self.theta.square().sum())
        stretch = math.sqrt(free.shape[1]) / free.norm(dim=1, keepdim=True)
        return here.loss / norm, -2 / norm * stretch * here.gradient


Steps = Iterator[tuple[int, Tensor]]
"""Passes so far, and inputs."""


def by_sgd(problem: Problem) -> Steps:
    """The paper's."""
    for step, here in enumerate(sgd(problem.model, problem.theta[None], OnSphere(problem.start))):
        yield PASSES_A_STEP * (step + 1), here.at.inputs


def by_adam(problem: Problem) -> Steps:
    """Adam."""
    free = problem.start.clone().requires_grad_()
    optimiser = torch.optim.Adam([free], lr=ADAM_RATE)
    passes = 0
    while True:
        with torch.no_grad():
            _, free.grad = problem.loss(free)
        passes += PASSES_A_STEP
        optimiser.step()
        yield passes, onto_sphere(free.detach())


def by_lbfgs(problem: Problem) -> Steps:
    """L-BFGS; it ends where a step no longer changes anything."""
    free = problem.start.clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [free], max_iter=LOOK_EVERY, history_size=HISTORY, line_search_fn="strong_wolfe", tolerance_change=0.0
    )
    passes = 0

    def closure() -> float:
        nonlocal passes
        passes += PASSES_A_STEP
        with torch.no_grad():
            value, free.grad = problem.loss(free)
        return value

    while True:
        before = free.detach().clone()
        optimiser.step(closure)
        yield passes, onto_sphere(free.detach())
        if torch.equal(free.detach(), before):
            return


OTHERS: dict[str, tuple[Callable[[Problem], Steps], int, int]] = {
    "the paper's": (by_sgd, LOOK_EVERY, 100),
    "Adam": (by_adam, LOOK_EVERY, 30),
    "L-BFGS": (by_lbfgs, 1, 30),
}
"""And after how many of their steps ρ is looked at, and how many times the passes they may use."""


def row_of(name: str, passes: float, seconds: float, compared: Comparison, ours: float) -> dict[str, Any]:
    """One row."""
    return {
        "optimiser": name,
        "passes": passes,
        "times": passes / ours,
        "seconds": seconds,
        "error": compared.error,
        "back": compared.recovered,
    }


def measure(n: int, d: int, seed: int) -> Iterator[dict[str, Any]]:
    """A row for each optimiser."""
    problem = Problem.of(n, d, seed)
    about = {"n": n, "d": d, "seed": seed}
    began = time.thread_time()
    found = mf.reconstruct(problem.model, problem.theta, n)
    seconds = time.thread_time() - began
    ours = found.passes
    yield about | row_of("this project's", ours, seconds, compare(problem.inputs, found.inputs), ours)
    for name, (path, every, most_times) in OTHERS.items():
        began = time.thread_time()
        for step, (passes, inputs) in enumerate(path(problem)):
            if step % every == 0:
                compared = compare(problem.inputs, inputs)
                if compared.error <= GOOD or passes >= most_times * ours:
                    break
        yield about | row_of(name, passes, time.thread_time() - began, compare(problem.inputs, inputs), ours)


def spread(values: Sequence[float], form: str) -> str:
    """The median, and in brackets the least and the greatest."""
    return f"{statistics.median(values):{form}} ({min(values):{form}}–{max(values):{form}})"


def render(about: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        "# Passes over V to training inputs",
        "",
        "Written by `OMP_NUM_THREADS=1 python -m benchmarks reconstruction`, which says what is measured.",
        f"{about['processor']}, one thread, torch {about['torch']}, {about['date']}, commit {about['commit']}.",
        "",
        f"This project's until all is explained; others until ρ is {GOOD} or 100 (Adam, L-BFGS: 30) times its passes.",
        f"ρ ≤ {GOOD}: with how many seeds. Else medians over the seeds, with the least and the greatest. Passes do not "
        "depend on what else the machine does; seconds, of processor time, do a little.",
        "",
        f"| n | d | seeds | optimiser | ρ ≤ {GOOD} | passes | times this project's | ρ | inputs back | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[int, int, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["n"], row["d"], row["optimiser"]), []).append(row)
    for (n, d, optimiser), group in groups.items():
        near = sum(row["error"] <= GOOD for row in group)
        columns = {"passes": ".0f", "times": ".1f", "error": ".1e", "back": ".0f", "seconds": ".1f"}
        spreads = [spread([row[column] for row in group], form) for column, form in columns.items()]
        lines.append(f"| {n} | {d} | {len(group)} | {optimiser} | {near} | {' | '.join(spreads)} |")
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
    rows: list[dict[str, Any]] = []
    for n, d, seeds in task.sizes:
        for seed in range(seeds):
            for row in measure(n, d, seed):
                rows.append(row)
                print(row, flush=True)
                write_results(path, {"where": about, "rows": rows}, render(about, rows))
    print(render(about, rows))
