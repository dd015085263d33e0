"""What do eigenvalues at images cost, against the bare backward passes that they are made of?

    python -m benchmarks spectra             a few minutes
    python -m benchmarks spectra --quick     tiny, to see that it works

A fully connected net of 20 layers, 1024 wide, for 64×64×3, not trained: what a product costs does not depend on the
weights; how many there are does, and so their number is given. "bare": the same forward passes, first backward passes
and products, with torch.autograd alone, in the same batches, on vectors that are there: nothing is made orthogonal,
nothing is looked at. All images are done at the first look: what it costs to make images ready again that go on to a
later one (two products each time) is left out. Variants take turns in one process, on one thread; seconds are of
processor time. Writes benchmarks/results/spectra.json and .md.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import memrecon_fast as mf
from benchmarks.measuring import percentiles, results_path, taking_turns, where, write_results
from benchmarks.registry import make_parser
from memrecon_fast.attractors.flight import LOOKS, MAX_ROWS_ON_CPU

ROUNDS = 3


def bare(model: torch.nn.Module, images: Tensor, products: int) -> None:
    """So many products J v of each image, and what they need."""
    for batch in images.split(MAX_ROWS_ON_CPU):
        x = batch.clone().requires_grad_()
        value = model(x)
        weights = torch.zeros_like(value, requires_grad=True)
        (pulled,) = torch.autograd.grad(value, x, weights, create_graph=True)
        v = torch.randn_like(batch)
        for _ in range(products):
            torch.autograd.grad(pulled, weights, v, retain_graph=True)


def measure(model: torch.nn.Module, images: Tensor, rounds: int) -> dict[str, Any]:
    """Seconds of all images, interleaved."""
    found = mf.attractors.spectra(model, images, k=1, tolerance=1e30)  # done at the first look
    products = int(found.products[0])
    assert (found.products == products).all()
    ways: dict[str, Callable[[], object]] = {
        "bare": lambda: bare(model, images, products),
        "spectra": lambda: mf.attractors.spectra(model, images, k=1, tolerance=1e30),
        "forward": lambda: forward(model, images),
    }
    seconds = taking_turns(ways, rounds)
    ratios = [ours / theirs for ours, theirs in zip(seconds["spectra"], seconds["bare"], strict=True)]
    return {
        "images": len(images),
        "products": products,
        "seconds": {name: percentiles(times) for name, times in seconds.items()},
        "spectra over bare": percentiles(ratios),
    }


@torch.inference_mode()
def forward(model: torch.nn.Module, images: Tensor) -> None:
    """One application to each image."""
    for batch in images.split(MAX_ROWS_ON_CPU):
        model(batch)


def memory(model: torch.nn.Module, image_shape: tuple[int, ...], counts: Sequence[int]) -> list[dict[str, float]]:
    """The most memory that the process had, after so many images more; images are made as they are needed."""
    rows = []
    for count in counts:
        images = torch.rand(1, *image_shape, generator=torch.Generator().manual_seed(0)).expand(count, *image_shape)
        mf.attractors.spectra(model, images, k=1, tolerance=1e30)
        rows.append({"images": count, "MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})
    return rows


def render(about: dict[str, Any], row: dict[str, Any], growth: list[dict[str, float]]) -> str:
    """The results for a person."""
    seconds = {name: one["p50"] for name, one in row["seconds"].items()}
    each = {name: 1e3 * value / row["images"] for name, value in seconds.items()}
    per_image = each["spectra"] / row["products"]
    return "\n".join(
        [
            "# What eigenvalues at images cost",
            "",
            "Written by `python -m benchmarks spectra`, which says what is measured.",
            f"{about['processor']}, one thread, Python {about['python']}, torch {about['torch']}, {about['date']}, "
            f"commit {about['commit']}.",
            "",
            f"{row['images']} images, {row['products']} products each, medians:",
            "",
            "| | ms an image | over bare |",
            "|---|---|---|",
            f"| a forward pass | {each['forward']:.2f} | |",
            f"| bare passes: a forward, a backward, {row['products']} products | {each['bare']:.1f} | 1 |",
            f"| `spectra` | {each['spectra']:.1f} | {row['spectra over bare']['p50']:.3f} |",
            "",
            f"25,000 images at {LOOKS[0]} to {LOOKS[1]} products, extrapolated: "
            f"{25_000 * per_image * LOOKS[0] / 6e4:.0f} to {25_000 * per_image * LOOKS[1] / 6e4:.0f} minutes.",
            "",
            "The most memory of the process, in MiB: "
            + ", ".join(f"{one['MiB']:.0f} after {one['images']} images" for one in growth)
            + ".",
            "",
        ]
    )


def main(arguments: Sequence[str]) -> None:
    """Measure and write."""
    parser = make_parser("spectra", __doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, results to a temporary folder")
    parser.add_argument("--out", type=Path, help="results, without suffix; benchmarks/results/spectra without it")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    about = where()
    shape, width, depth, count = ((3, 8, 8), 32, 4, 20) if options.quick else ((3, 64, 64), 1024, 20, 1000)
    torch.manual_seed(0)
    model = mf.autoencoders.FullyConnected(shape, width, depth, "leaky_relu").eval()
    images = torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))
    growth = memory(model, shape, (10, 20) if options.quick else (128, 1000, 4000))  # first: it is the most so far
    row = measure(model, images, 1 if options.quick else ROUNDS)
    text = render(about, row, growth)
    print(text)
    write_results(
        results_path("spectra", options.out, options.quick), {"where": about, "row": row, "memory": growth}, text
    )
