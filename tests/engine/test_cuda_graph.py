"""The bookkeeping of cuda_graph.py, with a capture that records a Python function; test_gpu.py has real ones."""

from __future__ import annotations

import pytest
import torch

from memrecon_fast.engine.cuda_graph import Graphs, Work


class Recorder:
    """A capture as CUDA's: the work is not done, its replay does it."""

    def __init__(self) -> None:
        self.captures = 0
        self.replays = 0
        self.error: Exception | None = None

    def __call__(self, work: Work) -> Work:
        if self.error is not None:
            raise self.error
        self.captures += 1

        def replay() -> None:
            self.replays += 1
            work()

        return replay


def test_the_first_call_of_each_size_warms_up_and_the_second_captures() -> None:
    done: list[int] = []
    capture = Recorder()
    graphs = Graphs(done.append, capture)
    for rows in (8, 8, 4, 8, 4, 8):
        graphs(rows)
    assert done == [8, 8, 4, 8, 4, 8]  # every call does its work once
    assert capture.captures == 2
    assert capture.replays == 4
    assert graphs.captured
    assert not graphs.why_not


def test_what_cannot_be_captured_runs_without_and_says_why() -> None:
    done: list[int] = []
    capture = Recorder()
    capture.error = RuntimeError("operation not permitted when stream is capturing\nmore")
    graphs = Graphs(done.append, capture)
    graphs(8)
    with pytest.warns(RuntimeWarning, match="cannot be captured .* operation not permitted when stream is capturing"):
        graphs(8)
    capture.error = None
    graphs(8)
    assert done == [8, 8, 8]
    assert not graphs.captured
    assert graphs.why_not == "RuntimeError: operation not permitted when stream is capturing"


def test_what_is_known_not_to_be_capturable_is_not_tried() -> None:
    capture = Recorder()
    graphs = Graphs(lambda rows: None, capture, why_not="it waits for the device")
    for _ in range(3):
        graphs(8)
    assert capture.captures == 0
    assert graphs.why_not == "it waits for the device"


def test_memory_that_runs_out_in_a_capture_is_not_a_reason_to_run_without() -> None:
    capture = Recorder()
    capture.error = torch.cuda.OutOfMemoryError("CUDA out of memory")
    graphs = Graphs(lambda rows: None, capture)
    graphs(8)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        graphs(8)
    assert not graphs.why_not
