"""The first question to a GPU: does a recovery run on it at all, with which kernels, and is it captured?

    python -m benchmarks.speed.gpu.smoke             on the current CUDA GPU
    python -m benchmarks.speed.gpu.smoke --why-not   say in one line why there is nothing to run on; exit status 2
    python -m benchmarks.speed.gpu.smoke --quick     on the CPU

A line for each solver and precision; exit status 1 if one of them failed, 2 where there is no GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import sys
import traceback
from collections.abc import Sequence

SHAPE = (3, 16, 16)


def why_not() -> str:
    """Why there is no GPU to run on; empty if there is one."""
    try:
        import torch
        import triton  # noqa: F401
    except ImportError as error:
        return f"torch and triton are needed: {error}"
    if torch.version.hip is not None or not torch.cuda.is_available():
        return "torch finds no CUDA GPU"
    return ""


def run(on: str) -> int:
    """Recover images that no training made known, on "cuda" or "cpu"; the exit status."""
    import numpy as np
    import torch

    import memrecon_fast as mf

    versions = f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"
    gpu = torch.cuda.get_device_name() if on == "cuda" else "no GPU"
    print(f"{gpu}; {versions}; {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}; {mf.backends()}")
    torch.manual_seed(0)
    net = mf.autoencoders.FullyConnected(SHAPE, 64, 4).eval().to(on)
    degraded = torch.rand(48, *SHAPE, device=on)
    status = 0
    for settings in (mf.Settings(solver="paper", max_outer_iterations=6), mf.Settings(max_outer_iterations=12)):
        for precision in (
            ("float32", "float32x3", "tf32", "bfloat16") if on == "cuda" else ("float32", "float32x3", "bfloat16")
        ):
            what = f"{settings.solver} {precision}"
            try:
                done = mf.recover(net, degraded, settings=dataclasses.replace(settings, precision=precision))
                finite = "finite" if bool(done.images.isfinite().all()) else "NOT FINITE"
                print(f"{what}: {done.backend}, {done.execution}, {finite}", flush=True)
            except Exception as error:
                traceback.print_exc()
                print(f"{what}: FAILED, {type(error).__name__}: {error}", flush=True)
                status = 1
    return status


def main(arguments: Sequence[str]) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--why-not", action="store_true", help="only say whether there is a GPU")
    parser.add_argument("--quick", action="store_true", help="on the CPU")
    options = parser.parse_args(arguments)
    if options.quick:
        return run("cpu")
    missing = why_not()
    if missing:
        print(missing)
        return 2
    return 0 if options.why_not else run("cuda")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
