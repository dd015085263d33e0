"""An iterable read ahead by a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")
_LOOK_UP = 0.1  # seconds after which a thread that waits looks whether it is still needed


def prefetch(items: Iterable[T], count: int) -> Generator[T, None, None]:
    """The same items, read by another thread that stays at most `count` + 1 ahead.

    What reading raises is raised here, after the items that were read before. When this generator is closed, the thread
    ends as soon as it has the item in hand.
    """
    ready: queue.Queue[T | _End] = queue.Queue(maxsize=count)
    closed = threading.Event()
    thread = threading.Thread(target=_read, args=(items, ready, closed), name="memrecon-prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        closed.set()
        thread.join()


class _End:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def _read(items: Iterable[T], ready: queue.Queue[T | _End], closed: threading.Event) -> None:
    error = None
    try:
        for item in items:
            if not _put(item, ready, closed):
                return
    except BaseException as raised:
        error = raised
    _put(_End(error), ready, closed)


def _put(item: T | _End, ready: queue.Queue[T | _End], closed: threading.Event) -> bool:
    while not closed.is_set():
        try:
            ready.put(item, timeout=_LOOK_UP)
        except queue.Full:
            continue
        return True
    return False
