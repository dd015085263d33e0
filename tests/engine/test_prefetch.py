from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from memrecon_fast.engine.prefetch import prefetch


def running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "memrecon-prefetch"]


def test_the_items_come_in_their_order_and_the_thread_ends() -> None:
    assert list(prefetch(range(1000), 3)) == list(range(1000))
    assert not running()


def test_it_reads_ahead_and_no_further() -> None:
    read = []
    enough = threading.Event()

    def items() -> Iterator[int]:
        for i in range(50):
            read.append(i)
            if i == 4:
                enough.set()
            yield i

    ahead = prefetch(items(), 3)
    assert next(ahead) == 0
    assert enough.wait(10)  # 0 is out, three are ready, one is in hand
    time.sleep(0.2)
    assert read == [0, 1, 2, 3, 4]
    ahead.close()
    assert not running()
    assert len(read) <= 5


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("the disk is gone")

    ahead = prefetch(items(), 8)
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(ahead)
    assert not running()


def test_the_items_are_read_by_another_thread() -> None:
    threads = list(prefetch((threading.current_thread() for _ in range(2)), 1))
    assert threading.main_thread() not in threads


def test_closing_before_the_first_item_reads_nothing() -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        read.append(1)
        yield 1

    prefetch(items(), 1).close()
    assert not read
    assert not running()
