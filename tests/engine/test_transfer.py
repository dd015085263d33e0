from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator

import pytest
import torch

from memrecon_fast.engine.prox import Prox
from memrecon_fast.engine.transfer import (
    on_one_stream,
    on_this_stream,
    record_event,
    to_device,
    to_host,
    upload,
    working_on,
)

CPU = torch.device("cpu")


def test_upload_stacks_rows() -> None:
    target = torch.full((2, 3), torch.nan)
    upload([torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 5.0, 6.0])], target)
    assert target.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_upload_fills_what_is_not_contiguous() -> None:
    """The images of a net that is given its pixels channels-last are a view of the rows."""
    prox = Prox(lambda x: x, (3, 2, 2), CPU, channels_last=True)
    rows = torch.full((5, 12), torch.nan)
    images = torch.rand(3, 3, 2, 2)
    upload(list(images), prox.as_images(rows[1:4]))
    assert torch.equal(rows[1:4], prox.to_rows(images))
    assert rows[[0, 4]].isnan().all()


def test_on_a_cpu_there_is_nothing_to_send_and_nothing_to_wait_for() -> None:
    tensor = torch.rand(3)
    assert to_device(tensor, CPU) is tensor
    assert to_host(tensor) is tensor
    assert record_event(CPU) is None
    with working_on(CPU):
        assert torch.is_inference_mode_enabled()


def test_the_items_of_another_thread_stay_as_they_are() -> None:
    assert list(on_this_stream(iter(range(3)), CPU)) == [0, 1, 2]


class Stream:
    """In the place of a CUDA stream: notes for whom it waits."""

    current: Stream

    def __init__(self, name: str, waits: list[str]) -> None:
        self.name, self.waits = name, waits

    def wait_stream(self, other: Stream) -> None:
        self.waits.append(f"{self.name} for {other.name}")


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> tuple[Stream, Stream, list[str]]:
    waits: list[str] = []
    one, other = Stream("one", waits), Stream("other", waits)
    Stream.current = one

    @contextlib.contextmanager
    def stream(which: Stream) -> Iterator[None]:
        before, Stream.current = Stream.current, which
        yield
        Stream.current = before

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream.current)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    return one, other, waits


def test_items_are_computed_on_the_stream_of_the_first_one(streams: tuple[Stream, Stream, list[str]]) -> None:
    """Whatever the stream of those who ask for the others: these wait for it, and it for them."""
    one, other, waits = streams
    ended: list[str] = []

    def names() -> Generator[str, None, None]:
        try:
            while True:
                yield Stream.current.name
        finally:
            ended.append("ended")

    items = on_one_stream(names(), torch.device("cuda", 0))
    assert next(items) == "one"
    assert waits == []
    Stream.current = other
    assert next(items) == "one"
    assert Stream.current is other
    assert waits == ["one for other", "other for one"]
    items.close()
    assert ended == ["ended"]
    Stream.current = one


def test_items_that_end_or_fail_on_a_stream_do_so_for_the_caller(streams: tuple[Stream, Stream, list[str]]) -> None:
    def failing() -> Generator[int, None, None]:
        yield 1
        raise OSError("the disk is gone")

    cuda = torch.device("cuda", 0)
    assert list(on_one_stream((i for i in range(3)), cuda)) == [0, 1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        list(on_one_stream(failing(), cuda))


def test_on_a_cpu_there_are_no_streams() -> None:
    items = (i for i in range(3))
    assert on_one_stream(items, CPU) is items
