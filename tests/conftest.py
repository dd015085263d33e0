from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from tests.helpers.memorised import Memorised


SLOWEST = ("test_cluster.py", "test_gpu_benchmark.py", "test_audit_benchmark.py", "test_cli.py", "test_killing.py")
"""Begun last, they would leave cores without work at the end."""


def pytest_configure(config: pytest.Config) -> None:
    # one thread is faster at the sizes of these tests, and steadier; some tests set another number
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests begin
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False  # pytest-xdist would begin with the files that have many tests


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: SLOWEST.index(item.path.name) if item.path.name in SLOWEST else len(SLOWEST))


@pytest.fixture(scope="session")
def memorised() -> Memorised:
    from tests.helpers.memorised import memorise_photographs  # needs scikit-image, which not every test does

    return memorise_photographs()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C interrupts this process and those that it begins, also where SIGINT is ignored: after `nohup`, say."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
