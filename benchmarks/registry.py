"""The benchmarks that there are: the table of benchmarks/README.md, and how each is started."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One of them. `minutes`: about; on two cores of a small machine, where `needs` names no GPU."""

    name: str
    question: str
    needs: str
    minutes: str
    writes: str
    """In benchmarks/results, unless --out or --results says where."""
    module: str
    is_pytest: bool = False
    """Whether pytest runs the module; otherwise it has a function `main` of the arguments."""


BENCHMARKS = (
    Benchmark(
        "ops",
        "How fast are the C++ operations, against plain torch and against a copy of as many bytes?",
        "extra `bench`",
        "3",
        "what `--results FILE` names",
        "benchmarks.speed.ops",
        is_pytest=True,
    ),
    Benchmark(
        "recovery",
        "How fast is `recover()`, against its forward passes, the reference, and deepinv?",
        "extra `test`; deepinv where it is installed",
        "8",
        "what `--results FILE` names",
        "benchmarks.speed.recovery",
        is_pytest=True,
    ),
    Benchmark(
        "audit",
        "How fast is an audit of 25,000 images, where do time and memory go, and what does a second worker add?",
        "extras `audit` and `ray`; an idle machine",
        "45",
        "`cpu-audit.json`, `.md`",
        "benchmarks.speed.audit.run",
    ),
    Benchmark(
        "host",
        "What does an image cost the host, where forward passes cost nothing?",
        "extra `audit`; an idle machine",
        "5",
        "`host.json`, `.md`",
        "benchmarks.speed.host",
    ),
    Benchmark(
        "passes",
        "What does a forward pass cost on a CPU: by number of rows, with packed weights, in bfloat16?",
        "a C++ compiler; an idle machine",
        "10",
        "`passes.json`, `.md`",
        "benchmarks.speed.passes",
    ),
    Benchmark(
        "spectra",
        "What do eigenvalues at images cost, against the bare backward passes that they are made of?",
        "an idle machine",
        "5",
        "`spectra.json`, `.md`",
        "benchmarks.speed.spectra",
    ),
    Benchmark(
        "nearest",
        "What does comparing every estimate with all members cost, against the passes of a recovery?",
        "extra `audit`",
        "5",
        "`nearest.json`, `.md`",
        "benchmarks.speed.nearest",
    ),
    Benchmark(
        "gpu",
        "Is everything right on this GPU, and how fast are operations, blocks and an audit?",
        "a CUDA GPU, Triton; a compiler where the kernels are not built; not installed",
        "8",
        "`gpu-NAME.json`, `.md`",
        "benchmarks.speed.gpu.run",
    ),
    Benchmark(
        "products",
        "Which product of float32 matrices is fastest on this GPU (IEEE, TF32, three of halves), and how exact is it?",
        "a CUDA GPU; not installed",
        "1",
        "`products.json`, `.md`",
        "benchmarks.speed.gpu.products",
    ),
    Benchmark(
        "accelerated",
        "What does the accelerated solver recover, against the paper's method and others?",
        "extra `audit`",
        "60",
        "`accelerated.md`, `.png`; rows in `accelerated/`",
        "benchmarks.experiments.accelerated",
    ),
    Benchmark(
        "accelerated-time",
        "How long does an audit of 1,000 images take with it, against the literal reference?",
        "extra `audit`; an idle machine",
        "30",
        "`accelerated-time.json`, `.md`",
        "benchmarks.experiments.accelerated_time",
    ),
    Benchmark(
        "attractors",
        "Do eigenvalues tell which images can be recovered? Do verdicts and harvests agree with iteration?",
        "extra `audit`",
        "50",
        "`attractors.json`, `.md`, `attractors-unets.…`",
        "benchmarks.experiments.attractors",
    ),
    Benchmark(
        "reconstruction",
        "In how many passes do training inputs come back from parameters, against gradient descent, Adam and L-BFGS?",
        "extra `audit`",
        "12",
        "`reconstruction.json`, `.md`",
        "benchmarks.experiments.reconstruction",
    ),
    Benchmark(
        "reconstruction-memory",
        "How much memory does a reconstruction take, with V stored, and with V drawn again wherever it is needed?",
        "4 GB of memory",
        "10",
        "`reconstruction-memory.json`, `.md`",
        "benchmarks.speed.reconstruction_memory",
    ),
    Benchmark(
        "reconstruction-passes",
        "How fast are the passes over V that a reconstruction is made of, against BLAS?",
        "an idle machine",
        "3",
        "`reconstruction-passes.json`, `.md`",
        "benchmarks.speed.reconstruction_passes",
    ),
    Benchmark(
        "diffusion",
        "What do inpainting and a diffusion model get back of members and controls, without the autoencoder?",
        "extras `audit` and `diffusion`",
        "15",
        "`diffusion.json`, `.md`",
        "benchmarks.experiments.diffusion",
    ),
    Benchmark(
        "precision",
        "What does the number format of the forward passes do to the verdicts?",
        "extra `audit`",
        "15",
        "`precision.json`, `.md`",
        "benchmarks.experiments.precision",
    ),
    Benchmark(
        "training",
        "Which networks memorise, and how fast do they train to a given loss?",
        "extra `audit`",
        "40",
        "`training.json`, `.md`",
        "benchmarks.experiments.training",
    ),
    Benchmark(
        "demo-picture",
        "What does a recovery look like? The picture of the README, from a run of `memrecon demo`",
        "extra `audit`; the run",
        "1",
        "`demo.png`",
        "benchmarks.experiments.demo_picture",
    ),
    Benchmark(
        "harvest-picture",
        "What came out of noise? The pictures of docs/attractors.md, from a run of `memrecon attractors`",
        "extra `audit`; the run",
        "1",
        "what `--out FILE` names",
        "benchmarks.experiments.harvest_picture",
    ),
)


def table() -> str:
    """All of them as a Markdown table."""
    columns = ("name", "question", "needs", "minutes", "writes")
    rows = [columns, *(tuple(getattr(one, column) for column in columns) for one in BENCHMARKS)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    lines = [f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |" for row in rows]
    return "\n".join([lines[0], f"|{'|'.join('-' * (width + 2) for width in widths)}|", *lines[1:]])


def make_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """For the arguments after the name."""
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
