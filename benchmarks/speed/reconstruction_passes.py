"""How fast are the passes over V that a reconstruction is made of, against BLAS?

    OMP_NUM_THREADS=1 python -m benchmarks reconstruction-passes            about three minutes on one core
    python -m benchmarks reconstruction-passes --quick                      tiny, to see that it works

A pass multiplies every row of V (float32 but for the reduced problem, of d = n) by n images and an offset, and adds up
what follows from it: 4·p·d·(n + 1) operations, in float64. Variants take turns in one process, on one thread; seconds
are of processor time. "BLAS": its two products alone, block by block, without what lies between them; "in torch": what
is used where the compiled kernels are missing. Beside them a square product of BLAS, about what the processor can do.

From the operations: a vector register of V's entries takes n + 1 columns, padded to a multiple of 8, so that of 11
columns at best 11/16 of the square product's speed is to be had, of 21 columns 7/8.

Then whole reconstructions, compiled against torch: n = 20, d = 100, 10 dn, and n = 10, d = 768, 4 dn.
Writes benchmarks/results/reconstruction-passes.json and .md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import memrecon_fast as mf
from benchmarks.measuring import percentiles, results_path, taking_turns, where, write_results
from benchmarks.registry import make_parser
from memrecon_fast.reconstruction import RandomFeatures, passes
from memrecon_fast.reconstruction.passes import Kinked, Passes, cpp, plain
from memrecon_fast.reconstruction.projected import onto_sphere
from memrecon_fast.reconstruction.rows import Rows

Sizes = tuple[tuple[int, int, int], ...]
ROUNDS = 15
SIZES: Sizes = ((20, 20, 20_000), (20, 100, 20_000), (10, 768, 30_720), (100, 192, 19_200), (20, 192, 200_000))
WHOLE: Sizes = ((20, 100, 20_000), (10, 768, 30_720))
SQUARE = 1000
WAYS = ("compiled", "in torch", "BLAS")


def random(*shape: int, seed: int) -> Tensor:
    """Normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def milliseconds(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """Of processor time, interleaved."""
    return {name: percentiles([1e3 * one for one in found]) for name, found in taking_turns(ways, rounds).items()}


def of_one_size(n: int, d: int, p: int, rounds: int) -> dict[str, Any]:
    """One row for each kind of pass."""
    weights = random(p, d, seed=1)
    rows = Rows(weights if d == n else weights.float(), random(p, seed=2))
    model, step = Kinked(random(d, n + 1, seed=3), random(n + 1, seed=4), False, True), random(d, n + 1, seed=5)
    sides = {way: way.linearise(rows, model)[1] for way in (cpp, plain)}

    def blas() -> None:
        left = step.T.contiguous()
        found = torch.zeros_like(left)
        for block in rows.blocks():
            block.add_to(found, block.times(left))

    ways: dict[str, Callable[[], object]] = {
        "product, compiled": lambda: cpp.product(rows, model.factors, sides[cpp], step),
        "product, in torch": lambda: plain.product(rows, model.factors, sides[plain], step),
        "product, BLAS": blas,
        "linearise, compiled": lambda: cpp.linearise(rows, model),
        "linearise, in torch": lambda: plain.linearise(rows, model),
    }
    return {"n": n, "d": d, "p": p, "milliseconds": milliseconds(ways, rounds)}


@contextlib.contextmanager
def using(way: Passes) -> Iterator[None]:
    """The passes are made in this way."""
    with mock.patch.object(passes, "choose", return_value=way):
        yield


def whole(n: int, d: int, p: int, rounds: int) -> dict[str, Any]:
    """A reconstruction, both ways."""
    inputs = onto_sphere(random(n, d, seed=6))
    model = RandomFeatures.from_seed(p, d, 7)
    theta = model.fit(inputs, torch.where(random(n, seed=8) < 0, -1.0, 1.0))
    taken: dict[str, float] = {}

    def by(name: str, way: Passes) -> None:
        with using(way):
            taken[name] = mf.reconstruct(model, theta, n).passes

    ways: dict[str, Callable[[], object]] = {
        "compiled": lambda: by("compiled", cpp),
        "in torch": lambda: by("in torch", plain),
    }
    return {"n": n, "d": d, "p": p, "milliseconds": milliseconds(ways, rounds), "passes": taken}


def square(size: int, rounds: int) -> float:
    """Operations of BLAS in a nanosecond."""
    a, b = random(size, size, seed=9), random(size, size, seed=10)
    return 2 * size**3 / milliseconds({"": lambda: a @ b}, rounds)[""]["p50"] / 1e6


def render(about: dict[str, Any], result: dict[str, Any]) -> str:
    """For people."""
    lines = [
        "# Passes over V",
        "",
        "Written by `OMP_NUM_THREADS=1 python -m benchmarks reconstruction-passes`, which says what is measured.",
        f"{about['processor']}, {about['instructions']}, one thread, torch {about['torch']}, {about['date']}, commit "
        f"{about['commit']}. A square product of BLAS: {result['square']:.0f} Gflop/s.",
        "",
        "| pass | n | d | p | compiled, ms (p20 – p80) | Gflop/s | in torch, ms | times | BLAS alone, ms | times |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["passes"]:
        for kind in ("product", "linearise"):
            of = {way: row["milliseconds"].get(f"{kind}, {way}") for way in WAYS}
            ours, torchs, blas = of["compiled"], of["in torch"], of["BLAS"]
            spread = f"{ours['p20']:.2f} – {ours['p80']:.2f}"
            speed = 4e-6 * row["p"] * row["d"] * (row["n"] + 1) / ours["p50"]
            alone = f"{blas['p50']:.2f} | {blas['p50'] / ours['p50']:.2f}" if blas else " | "
            lines.append(
                f"| {kind} | {row['n']} | {row['d']} | {row['p']} | {ours['p50']:.2f} ({spread}) | "
                f"{speed:.0f} | {torchs['p50']:.2f} | {torchs['p50'] / ours['p50']:.2f} | {alone} |"
            )
    lines += [
        "",
        "| reconstruction | compiled, s | in torch, s | times | passes, compiled | in torch |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["whole"]:
        ours, torchs = (row["milliseconds"][way]["p50"] / 1e3 for way in WAYS[:2])
        lines.append(
            f"| n = {row['n']}, d = {row['d']}, p = {row['p']} | {ours:.2f} | {torchs:.2f} | {torchs / ours:.2f} | "
            f"{row['passes']['compiled']:.0f} | {row['passes']['in torch']:.0f} |"
        )
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str]) -> None:
    """Measure, and write the results."""
    parser = make_parser("reconstruction-passes", __doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, results to a temporary folder")
    parser.add_argument("--out", type=Path, help="results, without suffix; benchmarks/results else")
    options = parser.parse_args(arguments)
    from memrecon_fast import _C

    torch.set_num_threads(1)
    sizes, of_whole, size, rounds = SIZES, WHOLE, SQUARE, ROUNDS
    if options.quick:
        sizes, of_whole, size, rounds = ((2, 2, 300), (3, 20, 300)), ((2, 20, 400),), 50, 1
    result = {
        "square": square(size, rounds),
        "passes": [of_one_size(*one, rounds) for one in sizes],
        "whole": [whole(*one, max(1, rounds // 5)) for one in of_whole],
    }
    about = {**where(), "instructions": _C.instruction_set()}
    path = results_path("reconstruction-passes", options.out, options.quick)
    write_results(path, {"where": about, **result}, render(about, result))
    print(render(about, result))
