"""What does comparing every estimate with all members cost an audit?

    python -m benchmarks nearest             a few minutes
    python -m benchmarks nearest --quick     tiny, to see that it works

25,000 crops of photographs are the members, 64×64×3. An audit's time is taken as that of its forward passes alone,
through a fully connected net of 20 layers, 1024 wide, not trained (what a pass costs does not depend on the weights):
39 of each image, as many as a recovery with a known mask has, about the least. Beside it the queries: members with
little noise, as recoveries are; crops that are no members, half black, mixtures and noise, as what does not come back
may be; 64 at once, as in an audit. Variants take turns in one process; seconds are of processor time, of all its
threads. Writes benchmarks/results/nearest.json and .md.

From the operations: a pass has 88 Mflop an image; the bounds of a query 2·25,000·769, or 38: 1.1 % of 39 passes. All
pixels of all members, which only noise needs, 614: 18 %.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import memrecon_fast as mf
from benchmarks.measuring import percentiles, results_path, taking_turns, where, write_results
from benchmarks.registry import make_parser
from benchmarks.speed.audit.crops import write_crops
from memrecon_fast.audit.worker import COMPARED_AT_ONCE
from memrecon_fast.images import open_images
from memrecon_fast.images.nearest import Nearest

ROUNDS = 3
PASSES = 39
MASKS_AND_METHODS = 24
"""Of an audit as the command makes it: over so many the set-up is shared."""


def queries_of(members: Tensor, others: Tensor) -> dict[str, Tensor]:
    """As estimates may be, (n, C, H, W) each."""
    noise = torch.randn(members.shape, generator=torch.Generator().manual_seed(0))
    half = others.clone()
    half[:, :, others.shape[2] // 2 :] = 0
    return {
        "members, recovered": members + 1e-4 * noise,
        "other pictures": others,
        "other pictures, half black": half,
        "two pictures, mixed": (members + others) / 2,
        "noise": 0.5 + 0.3 * noise,
    }


def measure(model: torch.nn.Module, nearest: Nearest, queries: dict[str, Tensor], rounds: int) -> dict[str, Any]:
    """Milliseconds of an image, interleaved."""
    images = next(iter(queries.values()))
    ways: dict[str, Callable[[], object]] = {"a forward pass": lambda: model(images)}
    for name, some in queries.items():
        ways[name] = lambda some=some: nearest.of(some)  # type: ignore[misc]
    with torch.inference_mode():
        found = taking_turns(ways, rounds, time.process_time)
    return {name: percentiles([1e3 * one / len(images) for one in seconds]) for name, seconds in found.items()}


def render(about: dict[str, Any], result: dict[str, Any]) -> str:
    """For people."""
    a_pass = result["milliseconds"]["a forward pass"]["p50"]
    rows = [
        f"| {name} | {one['p50']:.2f} | {one['p20']:.2f} – {one['p80']:.2f} | {one['p50'] / a_pass / PASSES:.1%} |"
        for name, one in result["milliseconds"].items()
        if name != "a forward pass"
    ]
    recoveries = 2 * result["members"] * MASKS_AND_METHODS
    share = 1e3 * result["seconds of set-up"] / (recoveries * PASSES * a_pass)
    return "\n".join(
        [
            "# What comparing every estimate with all members costs",
            "",
            f"{about['processor']}, torch {about['torch']}, commit {about['commit']}, {about['date']}. "
            f"{result['members']:,} members of {result['image']}; {COMPARED_AT_ONCE} queries at once. A forward pass "
            f"(median {a_pass:.2f} ms an image) is made {PASSES} times at least.",
            "",
            f"| queries | ms each, median | p20 – p80 | of {PASSES} passes |",
            "|---|---|---|---|",
            *rows,
            "",
            f"Set-up: {result['seconds of set-up']:.1f} s of processor time, once for each worker and session: "
            f"{share:.2%} of the passes of as many members and controls under six masks by four methods.",
            "",
        ]
    )


def main(arguments: Sequence[str]) -> None:
    """Measure, and write the results."""
    parser = make_parser("nearest", __doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, results to a temporary folder")
    parser.add_argument("--out", type=Path, help="results, without suffix; benchmarks/results/nearest without it")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    count, size, width = (500, 16, 64) if options.quick else (25_000, 64, 1024)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{split}.npy" for split in ("members", "controls")]
        write_crops(paths, count, size)
        members, controls = (open_images(str(path)) for path in paths)
        began = time.process_time()
        nearest = Nearest(members)
        seconds = time.process_time() - began
        some = range(0, count, count // COMPARED_AT_ONCE)[:COMPARED_AT_ONCE]
        queries = queries_of(*(torch.stack([images[index] for index in some]) for images in (members, controls)))
    model = mf.autoencoders.FullyConnected(members.image_shape, width, 20, "leaky_relu").eval()
    result = {
        "members": count,
        "image": "×".join(map(str, members.image_shape)),
        "seconds of set-up": seconds,
        "milliseconds": measure(model, nearest, queries, 1 if options.quick else ROUNDS),
    }
    about = where()
    write_results(
        results_path("nearest", options.out, options.quick), {"about": about, **result}, render(about, result)
    )
