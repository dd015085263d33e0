from __future__ import annotations

import pytest
import torch

from tests.memorised import Memorised, memorise_photographs


def pytest_configure() -> None:
    torch.set_num_threads(1)  # at the sizes of these tests faster, and steadier; some tests set another number


@pytest.fixture(scope="session")
def memorised() -> Memorised:
    return memorise_photographs()
