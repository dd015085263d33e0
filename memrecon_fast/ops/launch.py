"""How the Triton kernels are launched: how many threads for how many pixels, and the options that all of them share.

If the environment variable TRITON_INTERPRET is 1 when this module is imported, Triton's interpreter runs the kernels on
the CPU instead.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import torch
import triton
from torch import Tensor

from memrecon_fast.common.errors import one_line
from memrecon_fast.ops.state import Order, State

MAX_PIXELS = 2**30
"""In a row: a pixel's position in its row is a 32-bit integer."""
INTERPRETED = bool(triton.knobs.runtime.interpret)
DEVICE_TYPE = "cpu" if INTERPRETED else "cuda"

# Each thread has four neighbouring pixels: 128 bits of float32 and 32 of the mask. With more, Triton would give the
# mask to other threads than the images, and shuffle it through shared memory. Latency is hidden by many threads
# instead: the kernels take few enough registers to fill a multiprocessor with them.
PIXELS_PER_WARP = 4 * 32
FLAT_WARPS = 4
MAX_ROW_WARPS = 16  # of the one block of threads that a row has: a few rows, too, should keep the memory busy
_MAX_ROW_REGISTERS = {4: 64, 2: 80, 1: 80}  # of a thread: two blocks of 64 fill a multiprocessor; with more, one fits
ROWS_PER_WARP = 32  # where each row has one thread

OPTIONS = {"enable_fp_fusion": False, "num_stages": 1}
"""Of every kernel. Without the first a product and a sum may become one fused operation, which rounds once."""

Arguments = tuple[Any, ...]


@triton.jit
def _count(count):  # type: ignore[no-untyped-def]
    for _ in range(0, count):  # noqa: PIE808 (as the kernels have it)
        pass


def why_not_interpreted() -> str:
    """Why Triton's interpreter cannot run the kernels, in a process that interprets; empty where it can.

    From numpy 2.4 on no array of one dimension becomes a number, and Triton 3.6 counts loops that way.
    """
    try:
        _count[(1,)](2)
    except Exception as error:  # the interpreter's own, around whatever numpy says
        installed = f"Triton {triton.__version__} does not interpret kernels with numpy {np.__version__}"
        return f"{installed}: take numpy<2.4, or a newer Triton ({one_line(error)})"
    return ""


def arguments(state: State, order: Order, v: Tensor | None = None) -> Arguments:
    """The tensors that a kernel is given, if it may have them; raises TypeError or ValueError."""
    _check(state)
    return state.arguments(order, v)


def _check(state: State) -> None:
    if state.device.type != DEVICE_TYPE:
        raise ValueError(f"the slots must be on {DEVICE_TYPE}, not on {state.device}")
    if max(state.rows, state.d) > MAX_PIXELS:
        sizes = f"{state.rows} of {state.d}"
        raise ValueError(f"there must be at most {MAX_PIXELS} rows, and pixels in a row; not {sizes}")


def not_aligned(state: type[State]) -> list[str]:
    """The buffers that are read number by number: how they are aligned must not make a new kernel."""
    return [name for name, buffer in state.buffers().items() if not buffer.has_pixels]


def launch_flat(kernel: Any, rows: int, d: int, buffers: Arguments) -> None:
    """Run `kernel` on one long row of rows · d pixels."""
    n = rows * d
    unit = unit_of(n)
    block = FLAT_WARPS * PIXELS_PER_WARP
    launch(kernel, triton.cdiv(n, block), *buffers, n // unit, UNIT=unit, D=d, BLOCK=block, num_warps=FLAT_WARPS)


def launch_rows(
    kernel: Any,
    rows: int,
    d: int,
    *arguments: Any,
    most_warps: int = MAX_ROW_WARPS,
    registers: int | None = None,
    **constants: int,
) -> None:
    """Run `kernel` with a block of threads for each row; a thread may have so many `registers`."""
    unit = unit_of(d)
    warps = min(triton.next_power_of_2(max(triton.cdiv(d, PIXELS_PER_WARP), 1)), most_warps)
    block = warps * PIXELS_PER_WARP
    constants |= {"UNIT": unit, "BLOCK": block, "num_warps": warps, "maxnreg": registers or _MAX_ROW_REGISTERS[unit]}
    launch(kernel, rows, *arguments, d // unit, **constants)


def share_of(d: int) -> float:
    """That of a pixel in a mean."""
    return 1 / d if d else math.nan


def unit_of(pixels: int) -> int:
    """What the compiler is told `pixels` to be a multiple of, for it to move so many pixels at once."""
    return 4 if pixels % 4 == 0 else 2 if pixels % 2 == 0 else 1


def launch(kernel: Any, programs: int, *arguments: Any, **configuration: Any) -> None:
    """Run so many programs of `kernel` on the device of its first argument."""
    if programs == 0:
        return
    device = arguments[0].device
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        _run(kernel, programs, *arguments, **configuration, **OPTIONS)


def _run(kernel: Any, programs: int, *arguments: Any, **configuration: Any) -> None:
    kernel[(programs,)](*arguments, **configuration)  # tests put here what compiles and does not run
