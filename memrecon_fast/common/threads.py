"""The number of threads that torch computes with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """With so many threads, ≥ 1, inside."""
    import torch  # the command's help does without

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_thread() -> contextlib.AbstractContextManager[None]:
    """A small net gains little from a second thread, and loses much where the other cores are busy."""
    return threads(1)
