from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from tests.memorised import Memorised


def pytest_configure() -> None:
    torch.set_num_threads(1)  # at the sizes of these tests faster, and steadier; some tests set another number


@pytest.fixture(scope="session")
def memorised() -> Memorised:
    from tests.memorised import memorise_photographs  # needs scikit-image, which not every test does

    return memorise_photographs()
