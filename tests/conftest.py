from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.helpers.memorised import Memorised


TESTS = Path(__file__).parent
SLOWEST = (
    "audit/test_cluster.py",
    "attractors/test_workers.py",
    "benchmarks/test_audit.py",
    "benchmarks/test_gpu.py",
    "engine/test_prox.py",
    "test_cli.py",
    "audit/test_killing.py",
    "engine/test_inflight.py",
    "ops/anderson/test_triton.py",
    "ops/admm/test_triton.py",
    "test_recovery.py",
)
"""Begun last, they would leave cores without work at the end."""


def pytest_configure(config: pytest.Config) -> None:
    # threads that wait are not to spin, on cores that other tests need; what OpenMP reads as torch is imported
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch

    # one thread is faster at the sizes of these tests, and steadier; some tests set another number
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests begin
    # Ray would let its workers wait for all other tests
    os.environ.setdefault("RAY_worker_niceness", "0")
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False  # pytest-xdist would begin with the files that have many tests


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: place(item.path))


def place(path: Path) -> int:
    """When a file of tests is begun."""
    name = path.relative_to(TESTS).as_posix() if path.is_relative_to(TESTS) else ""
    return SLOWEST.index(name) if name in SLOWEST else len(SLOWEST)


@pytest.fixture(scope="session")
def memorised(tmp_path_factory: pytest.TempPathFactory) -> Memorised:
    from tests.helpers.memorised import memorised_by_all  # needs scikit-image, which not every test does

    own = tmp_path_factory.getbasetemp()
    return memorised_by_all(own.parent if "PYTEST_XDIST_WORKER" in os.environ else own)


@pytest.fixture
def of_any_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch.save wrote is read with every torch: that an older one refuses it has a test of its own."""
    monkeypatch.setattr("memrecon_fast.autoencoders.tensors.SAFE_SINCE", (0, 0))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C interrupts this process and those that it begins, also where SIGINT is ignored: after `nohup`, say."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
