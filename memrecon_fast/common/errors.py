"""What is said of other people's exceptions."""

from __future__ import annotations

import torch


def one_line(error: BaseException) -> str:
    """The kind of the error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or on a CPU."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    # the first is said by torch's allocator for CPUs, the others by CUDA and its libraries
    messages = ("can't allocate memory", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(message in str(error) for message in messages)
