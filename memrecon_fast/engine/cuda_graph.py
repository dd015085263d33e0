"""CUDA Graphs: a function on fixed memory, captured once for each number of rows and replayed without the host.

The first call for a number of rows runs the function as it is, which also warms up every kernel of that size; the
second one captures it. Nothing is run twice, and what is called once is never captured. A captured function must do
the same work in every call, on the same memory, and ask the device for no answer.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable

import torch

from memrecon_fast.common.errors import is_out_of_memory, one_line

Work = Callable[[], None]
Capture = Callable[[Work], Work]


class Graphs:
    """A function of a number of rows, as graphs; runs it as it is, and says why, where it cannot be captured."""

    def __init__(self, function: Callable[[int], None], capture: Capture, why_not: str = "") -> None:
        self.why_not = why_not
        """Why the function is not captured; empty where it is, or may be."""
        self._function = function
        self._capture = capture
        self._replays: dict[int, Work] = {}
        self._warm: set[int] = set()

    @property
    def captured(self) -> bool:
        """Whether anything has been captured."""
        return bool(self._replays)

    def __call__(self, rows: int) -> None:
        """Do the function's work for this many rows."""
        if rows in self._warm and rows not in self._replays and not self.why_not:
            self._try_to_capture(rows)
        replay = self._replays.get(rows)
        if replay is not None:
            replay()
        else:
            self._function(rows)
            self._warm.add(rows)

    def _try_to_capture(self, rows: int) -> None:
        try:
            self._replays[rows] = self._capture(functools.partial(self._function, rows))
        except Exception as error:  # whatever the autoencoder does that a capture does not allow
            if is_out_of_memory(error):
                raise
            self.why_not = one_line(error)
            warnings.warn(
                f"the autoencoder cannot be captured in a CUDA Graph and runs without ({self.why_not})",
                RuntimeWarning,
                stacklevel=2,
            )


_failed: list[torch.cuda.CUDAGraph] = []
"""Graphs whose capture failed: what they hold of it is taken back below, and must not be once more as they go."""


def make_capture(device: torch.device) -> Capture:
    """What captures work on this GPU: the work is recorded, not done; what is returned does it.

    All that one such function captures shares one pool of memory: it must not be replayed at the same time, and once
    all of it is gone, another function is needed for more.
    """
    pool = torch.cuda.graph_pool_handle()
    stream = torch.cuda.Stream(device)  # torch's own for captures belongs to the GPU that it was first used on

    def capture(work: Work) -> Work:
        nonlocal pool
        graph = torch.cuda.CUDAGraph()
        failed: list[Exception] = []

        def watched() -> None:
            try:
                work()
            except Exception as error:
                failed.append(error)
                raise

        # where the work fails, torch.cuda.graph leaves its stream the current one: the outer context undoes that
        with torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream(device)):
            torch._C._cuda_clearCublasWorkspaces()  # those of the capture are of the pool, and go with it
            try:
                # other threads, which read images meanwhile, may go on calling CUDA
                with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                    watched()
            except Exception as error:
                _failed.append(graph)
                _recover_from_failure(device, pool, stream)
                pool = torch.cuda.graph_pool_handle()  # one that nothing holds any more cannot be used again
                raise (failed.pop() if failed else error) from None
            finally:
                torch._C._cuda_clearCublasWorkspaces()
        return graph.replay

    return capture


def _recover_from_failure(device: torch.device, pool: tuple[int, int], stream: torch.cuda.Stream) -> None:
    """After a capture that failed, torch's allocator and its random generator still take it to be under way: end it."""
    names = ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool")  # the second before torch 2.8
    end_allocation = next(getattr(torch._C, name) for name in names if hasattr(torch._C, name))
    with contextlib.suppress(RuntimeError):  # this torch has ended it
        end_allocation(device.index, pool)
        torch._C._cuda_releasePool(device.index, pool)  # the capture's hold on it
    number = torch.zeros(1, device=device)
    with torch.cuda.graph(torch.cuda.CUDAGraph(), stream=stream, capture_error_mode="thread_local"):
        number.add_(1)  # a capture that succeeds sets the generator right
