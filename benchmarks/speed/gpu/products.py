"""Which product of float32 matrices is fastest at the shapes of FC 10 × 1024, and how exact it is.

IEEE and TF32 as torch has them, and three products of halves: with a and w split into a high and a low half, bfloat16
or float16, [a_hi, a_hi, a_lo] times [w_hi; w_lo; w_hi] is one product of 3K with sums in float32.

    python -m benchmarks products            on the current CUDA GPU
    python -m benchmarks products --quick    a few rows on the CPU: errors as they are, times mean nothing

Exit status 2 where there is no GPU.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.measuring import results_path, write_results
from benchmarks.registry import make_parser
from benchmarks.speed.gpu.device import Device, Gpu, Rehearsal, compare, where, why_no_gpu
from memrecon_fast.common.errors import one_line
from memrecon_fast.engine.cuda_graph import Work
from memrecon_fast.engine.precision import allow_tf32

Product = Callable[[], Tensor]
SHAPES = ((1024, 1024), (12288, 1024), (1024, 12288))
"""K and N: of the layers inside, the first and the last one."""
ROWS = (1, 64, 600, 2048, 4096)
CALLS = 20
"""Of a product in a graph."""
SECONDS = 1.0
"""For the products of one shape."""
HALVES = {"bf16x3": torch.bfloat16, "fp16x3": torch.float16}


def split(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The high and the low half: their sum is x, to the bits that both have."""
    high = x.to(dtype)
    return high, (x - high.float()).to(dtype)


def by_halves(a: Tensor, w: Tensor, dtype: torch.dtype) -> Product:
    """a wᵀ by three products of halves; both are split beforehand: weights once, a by the kernel that makes it."""
    (a_high, a_low), (w_high, w_low) = split(a, dtype), split(w, dtype)
    left = torch.cat([a_high, a_high, a_low], dim=1)
    right = torch.cat([w_high, w_low, w_high], dim=1)
    if a.is_cuda:
        return functools.partial(torch.mm, left, right.T, out_dtype=torch.float32)
    return lambda: left.float() @ right.float().T


def products(a: Tensor, w: Tensor) -> dict[str, Product]:
    """All of them, by name."""

    def in_one(tf32: bool) -> Tensor:
        with allow_tf32(tf32):
            return a @ w.T

    by_torch: dict[str, Product] = {"ieee": functools.partial(in_one, False)}
    if a.is_cuda:
        by_torch["tf32"] = functools.partial(in_one, True)
    return by_torch | {name: by_halves(a, w, dtype) for name, dtype in HALVES.items()}


def error(product: Tensor, a: Tensor, w: Tensor) -> float:
    """‖product − a wᵀ‖ / ‖a wᵀ‖, in float64."""
    exact = a.double() @ w.double().T
    return float((product.double() - exact).norm() / exact.norm())


def measure(device: Device, rows: int, k: int, n: int) -> list[dict[str, Any]]:
    """A row for each product that there is, timed in turns; one that fails is a row that says so."""
    a = torch.randn(rows, k, device=device.torch)
    w = torch.randn(n, k, device=device.torch) * (2 / k) ** 0.5
    measured: dict[str, dict[str, Any]] = {}
    timed: dict[str, Work] = {}
    for name, product in products(a, w).items():
        try:
            about = {"product": name, "error": error(product(), a, w)}
            timed[name] = device.captured(functools.partial(_repeat, product))
        except Exception as failed:  # not every torch has every product
            about = {"product": name, "failed": one_line(failed)}
        measured[name] = {"rows": rows, "k": k, "n": n, **about}
    for name, times in compare(device, timed, SECONDS).items() if timed else ():
        us = {p: value / CALLS * 1e3 for p, value in times.percentiles().items()}
        measured[name] |= {"us": us, "tflops": 2 * rows * k * n / us["p50"] / 1e6}
    return list(measured.values())


def _repeat(product: Product) -> None:
    for _ in range(CALLS):
        product()


def line(rows: list[dict[str, Any]]) -> str:
    """One shape, for people."""
    told = (
        f"{row['product']} {row['failed'][:80]}"
        if "failed" in row
        else f"{row['product']} {row['us']['p50']:.1f} us {row['tflops']:.0f} TF/s {row['error']:.0e}"
        for row in rows
    )
    return f"{rows[0]['rows']} × {rows[0]['k']} × {rows[0]['n']}: {'; '.join(told)}"


def main(arguments: Sequence[str]) -> int:
    """Measure, and write the results; the exit status."""
    parser = make_parser("products", __doc__)
    parser.add_argument("--quick", action="store_true", help="on the CPU, few rows, results to a temporary folder")
    parser.add_argument("--out", type=Path, help="results, without suffix; benchmarks/results/products without it")
    parser.add_argument("--commit", default="", help="what was measured, where there is no git to ask")
    options = parser.parse_args(arguments)
    why_not = "" if options.quick else why_no_gpu()
    if why_not:
        print(f"{why_not}; --quick tells the errors without one", file=sys.stderr)
        return 2
    device: Device = Rehearsal() if options.quick else Gpu()
    about, lines, rows = where(device, options.commit), [], []
    path = results_path("products", options.out, options.quick)
    torch.manual_seed(0)
    with torch.inference_mode():
        for count in (4,) if options.quick else ROWS:
            for k, n in ((256, 64),) if options.quick else SHAPES:
                rows.append(measure(device, count, k, n))
                lines.append(line(rows[-1]))
                print(lines[-1], flush=True)
    page = "\n".join(
        [
            "# Products of float32 matrices",
            "",
            f"{about['gpu']}, torch {about['torch']}, commit {about['commit']}, {about['date']}. Rows × K × N: medians "
            f"of {CALLS} calls in a graph, and the error against float64.",
            "",
            *(f"- {one}" for one in lines),
            "",
        ]
    )
    write_results(path, {"where": about, "rows": [row for shape in rows for row in shape]}, page)
    return 0
