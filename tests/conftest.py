from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from tests.memorised import Memorised


def pytest_configure() -> None:
    # one thread is faster at the sizes of these tests, and steadier; some tests set another number
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests begin


@pytest.fixture(scope="session")
def memorised() -> Memorised:
    from tests.memorised import memorise_photographs  # needs scikit-image, which not every test does

    return memorise_photographs()
